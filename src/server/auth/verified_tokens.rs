//! A cache of the access tokens whose signature this instance has verified.

use std::sync::Arc;

use super::jwt::AccessClaims;
use crate::server::clock::UnixSeconds;

/// The claims of unexpired tokens whose signature has been verified here, by the whole text of the token. A
/// token in the cache may have been revoked since.
pub struct VerifiedTokens {
    claims: papaya::HashMap<Box<str>, Arc<AccessClaims>, foldhash::fast::RandomState>,
}

impl Default for VerifiedTokens {
    fn default() -> Self {
        // Reads must not slow down while the map grows, as in the mirror.
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
