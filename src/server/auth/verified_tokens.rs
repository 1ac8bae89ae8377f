//! The access tokens whose signature this instance has verified.

use std::sync::Arc;

use super::jwt::AccessClaims;
use crate::server::clock::UnixSeconds;

/// Live tokens whose signature has been checked here, by their whole text: the same text need not
/// be checked again. Says nothing about whether the token is still alive.
pub struct VerifiedTokens {
    claims: papaya::HashMap<Box<str>, Arc<AccessClaims>, foldhash::fast::RandomState>,
}

impl Default for VerifiedTokens {
    fn default() -> Self {
        // As for the mirror: reading must not slow down while it grows.
        let map = papaya::HashMap::builder().resize_mode(papaya::ResizeMode::Blocking);
        Self { claims: map.hasher(foldhash::fast::RandomState::default()).build() }
    }
}

impl VerifiedTokens {
    pub fn get(&self, token: &str) -> Option<Arc<AccessClaims>> {
        self.claims.pin().get(token).cloned()
    }

    pub fn insert(&self, token: &str, claims: Arc<AccessClaims>) {
        self.claims.pin().insert(token.into(), claims);
    }

    pub fn forget_expired(&self, now: UnixSeconds) {
        self.claims.pin().retain(|_, claims| claims.exp > now);
    }
}
