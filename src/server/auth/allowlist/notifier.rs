//! Who waits for a session to end: the responses that go on for as long as it lives.
//!
//! Only `mirror.rs` calls this.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tokio::sync::watch;

use crate::server::ids::SessionId;

/// Those who wait, by session. What they wait for is that the sender goes.
#[derive(Default)]
pub struct RevocationNotifier(Mutex<HashMap<SessionId, watch::Sender<()>>>);

impl RevocationNotifier {
    /// Resolves when the session ends, if that is from now on.
    pub fn wait(&self, session_id: SessionId) -> impl Future<Output = ()> + use<> {
        let mut subscribers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ending = subscribers.entry(session_id).or_default().subscribe();
        async move { while ending.changed().await.is_ok() {} }
    }

    /// The session has ended.
    pub fn tell(&self, session_id: SessionId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&session_id);
    }

    /// Drops those who wait no longer.
    pub fn forget_gone(&self) {
        let mut subscribers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|_, sender| sender.receiver_count() > 0);
    }
}
