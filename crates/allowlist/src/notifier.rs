//! Subscriptions to the end of a session, for responses that stream as long as it is live.
//!
//! Only `mirror.rs` calls this.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tokio::sync::watch;

use crate::id::SessionId;

/// The subscribers by session. They are notified by dropping the sender.
#[derive(Default)]
pub struct RevocationNotifier(Mutex<HashMap<SessionId, watch::Sender<()>>>);

impl RevocationNotifier {
    /// Resolves when the session is revoked after this call.
    pub fn wait(&self, session_id: SessionId) -> impl Future<Output = ()> + use<> {
        let mut subscribers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ending = subscribers.entry(session_id).or_default().subscribe();
        async move { while ending.changed().await.is_ok() {} }
    }

    /// Notifies the subscribers that the session has been revoked.
    pub fn tell(&self, session_id: SessionId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&session_id);
    }

    /// Drops the sessions that have no subscribers any more.
    pub fn forget_gone(&self) {
        let mut subscribers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|_, sender| sender.receiver_count() > 0);
    }
}
