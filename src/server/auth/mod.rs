//! The point of the project: tokens whose end is as certain as their beginning.
//!
//! The guarantee, and where it is kept:
//! 1. Once log-out (or any revocation) has answered 2xx, no access or refresh token of that
//!    session is accepted again, not after a restart either: [`revoke`].
//! 2. Authorizing a request asks nobody: a signature, then one look into local memory: [`verify`].
//! 3. A live token is never refused with 401. When the server cannot know, it answers 503:
//!    [`AuthError::Unavailable`].
//! 4. A log-out that cannot be made certain answers 503, never 2xx: `allowlist/mod.rs`.
//!
//! `server/doors.rs` calls this, with what it found in the request; nothing in here knows HTTP
//! but for the one header that carries the bearer.

use anyhow::Result;
use tracing::error;

use self::{allowlist::Allowlist, jwt::Jwt, keys::Keys, verify::VerifiedTokens};
use super::{
    clock::UnixSeconds,
    config::{Config, TokenConfig},
    db::{Db, DbError},
    ids::SessionId,
    password::Passwords,
    throttle::Throttle,
};
use crate::api::{
    error::AuthError,
    types::{AccessToken, RefreshToken},
};

pub mod allowlist;
pub mod issue;
pub mod jwt;
pub mod keys;
pub mod refresh;
pub mod refresh_token;
pub mod revoke;
pub mod verify;

/// Issues, verifies, refreshes and revokes tokens. One for the whole server.
pub struct Auth {
    db: Db,
    keys: Keys,
    jwt: Jwt,
    allowlist: Allowlist,
    verified: VerifiedTokens,
    passwords: Passwords,
    throttle: Throttle,
    config: TokenConfig,
}

/// What a client gets to hold.
#[derive(Debug)]
pub struct TokenPair {
    pub access_token: AccessToken,
    pub refresh_token: RefreshToken,
    pub session_id: SessionId,
    pub expires_at: UnixSeconds,
    /// From then on no refresh is accepted any more.
    pub session_expires_at: UnixSeconds,
}

impl Auth {
    /// Reads the keys, and fills the allowlist from the database.
    ///
    /// # Errors
    /// A key or a password setting cannot be used, or the database cannot be read.
    pub async fn load(config: &Config, db: Db, now: UnixSeconds) -> Result<Self> {
        let keys = Keys::load(&config.token)?;
        Ok(Self {
            jwt: Jwt::new(&config.token, &keys)?,
            keys,
            allowlist: Allowlist::load(db.clone(), now).await?,
            verified: VerifiedTokens::default(),
            passwords: Passwords::new(&config.password)?,
            throttle: Throttle::new(&config.throttle),
            config: config.token.clone(),
            db,
        })
    }

    /// Whether log-in, refresh and log-out can be served.
    pub async fn is_ready(&self) -> bool {
        self.db.check_writable().await.map_err(unavailable).is_ok()
    }

    /// Whether the session of this refresh token holds: what a page needs to know before it is
    /// drawn. Answered from memory while an access token of the session lives. When nobody can
    /// tell, it holds: what the page then asks for is checked again.
    pub async fn is_signed_in(&self, token: &RefreshToken, now: UnixSeconds) -> bool {
        match refresh_token::verify(&self.keys, token) {
            None => false,
            Some((session_id, _)) if self.allowlist.has_live_token(session_id, now) => true,
            Some((session_id, _)) => {
                self.db.is_session_live(session_id, now).await.map_err(unavailable).unwrap_or(true)
            }
        }
    }

    /// Drops what has expired.
    pub async fn forget_expired(&self, now: UnixSeconds) {
        self.throttle.forget_old();
        self.verified.forget_expired(now);
        if let Err(error) = self.allowlist.forget_expired(now).await {
            unavailable(error);
        }
    }
}

/// The database failed: logged here, once, for the operator. The client learns that it may try again.
fn unavailable(error: DbError) -> AuthError {
    error!(%error, "the database failed: {error}");
    AuthError::Unavailable
}
