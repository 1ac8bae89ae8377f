//! How many calls of guards may use the database at the same time. `guards.rs` calls this.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::error::ApiError;

/// How many calls of guards use the database at the same time: fewer than there are connections for requests.
const MOST_CALLS: usize = 4;

/// The permits for calls of guards that use the database.
pub struct GuardCalls(Arc<Semaphore>);

impl Default for GuardCalls {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST_CALLS)))
    }
}

impl GuardCalls {
    /// Waits for a permit.
    ///
    /// # Errors
    /// Never: the semaphore is not closed.
    pub async fn permit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.0).acquire_owned().await.map_err(|_| ApiError::Unavailable)
    }
}
