//! The point of the project: tokens whose end is as certain as their beginning.
//!
//! The guarantee, and where it is kept:
//! 1. Once log-out (or any revocation) has answered 2xx, no access or refresh token of that
//!    session is accepted again, not after a restart either: [`revoke`].
//! 2. Authorizing a request asks nobody: a signature, then one look into local memory, for as long
//!    as it may be trusted: [`authenticate`], `allowlist/lease.rs`.
//! 3. A live token is never refused with 401. When the server cannot know, it answers 503:
//!    [`ApiError::Unavailable`].
//! 4. A log-out that cannot be made certain answers 503, never 2xx: `allowlist/mod.rs`.
//!
//! `server/http/handlers.rs` calls this, with what it found in the request; nothing in here knows HTTP
//! but for the one header that carries the bearer.

use anyhow::Result;
use tracing::error;

use self::{allowlist::Allowlist, jwt::Jwt, keys::Keys, verified_tokens::VerifiedTokens};
use crate::{
    api::{
        error::ApiError,
        types::{AccessToken, ClusterView, EndReason, Presence, RefreshToken},
    },
    server::{
        auth::{password::PasswordHasherPool, throttle::Throttle},
        clock::UnixSeconds,
        config::{Config, TokenConfig},
        db::{Db, DbError, sessions::SessionState},
        ids::SessionId,
    },
};

pub mod account;
pub mod admin;
pub mod allowlist;
pub mod authenticate;
pub mod device_cookie;
pub mod jwt;
pub mod keys;
pub mod login;
pub mod password;
mod password_queue;
mod rate_limit;
pub mod refresh;
pub mod refresh_token;
pub mod revoke;
pub mod throttle;
mod verified_tokens;

/// Issues, verifies, refreshes and revokes tokens. One for the whole server.
pub struct Auth {
    db: Db,
    keys: Keys,
    jwt: Jwt,
    allowlist: Allowlist,
    verified: VerifiedTokens,
    passwords: PasswordHasherPool,
    throttle: Throttle,
    config: TokenConfig,
}

/// What a client gets to hold.
#[derive(Debug)]
pub struct TokenPair {
    pub access_token: AccessToken,
    pub refresh_token: RefreshToken,
    pub session_id: SessionId,
    /// By the clock that all instances share.
    pub issued_at: UnixSeconds,
    pub expires_at: UnixSeconds,
    /// From then on no refresh is accepted any more.
    pub refresh_expires_at: UnixSeconds,
    /// With the first pair of a session: what a browser keeps, to show that someone has signed in there as
    /// this user ([`device_cookie`]).
    pub device_token: Option<String>,
}

impl Auth {
    /// Reads the keys, fills the allowlist from the database, and joins the other instances.
    ///
    /// # Errors
    /// A key, a password setting or Redis cannot be used, or the database cannot be read.
    pub async fn load(config: &Config, db: Db, now: UnixSeconds) -> Result<Self> {
        let keys = Keys::load(&config.token)?;
        let allowlist = Allowlist::load(config, &keys, db.clone(), now).await?;
        Ok(Self {
            jwt: Jwt::new(&config.token, &keys)?,
            keys,
            verified: VerifiedTokens::default(),
            passwords: PasswordHasherPool::new(&config.password)?,
            throttle: Throttle::new(
                &config.throttle,
                config.token.access_ttl_seconds,
                allowlist.cluster().cloned(),
            ),
            allowlist,
            config: config.token.clone(),
            db,
        })
    }

    /// The ids of the keys whose tokens are accepted, the one that signs first.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keys.all().map(keys::Key::id)
    }

    /// The session and the counter of a refresh token, if one of our keys made it.
    pub fn read_refresh_token(&self, token: &RefreshToken) -> Option<(SessionId, i64)> {
        refresh_token::verify(&self.keys, token)
    }

    /// Whether requests are authorized from memory, by a clock that is right.
    pub fn may_decide(&self) -> bool {
        self.allowlist.is_ready() && self.allowlist.is_clock_right()
    }

    /// Whether login, refresh and logout can be recorded.
    pub async fn may_record(&self) -> bool {
        self.db.check_writable().await.map_err(unavailable).is_ok()
    }

    /// What the holder of this refresh token is to see: a session that holds, or why it does not.
    /// Answered from memory while an access token of the session lives.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`].
    pub async fn presence(&self, token: &RefreshToken, now: UnixSeconds) -> Result<Presence, ApiError> {
        let Some((session_id, _)) = refresh_token::verify(&self.keys, token) else {
            return Ok(Presence::Anonymous);
        };
        let now = self.allowlist.shared_time(now);
        let remembered = self.allowlist.remembers_session(session_id, now);
        if remembered == Some(true) {
            return Ok(Presence::SignedIn);
        }
        let state = self.db.session_state(session_id, &self.config, now).await;
        Ok(match (state, remembered) {
            (Ok(SessionState::Ended(reason)), _) => Presence::Ended(reason),
            (Ok(SessionState::Live), None) => Presence::SignedIn,
            (Ok(SessionState::Unknown), None) => Presence::Anonymous,
            // Memory knows that it is dead, and nobody why.
            (_, Some(_)) => Presence::Ended(EndReason::SignedOut),
            (Err(error), None) => return Err(unavailable(error)),
        })
    }

    /// The session of this refresh token, if the token is the current one, or the one before: the answer
    /// that brought the current one may be lost, or still on its way. Where the database cannot tell, it
    /// is taken for one of them. This is no proof that the session is alive ([`Auth::presence`]).
    pub async fn session_of_recent(&self, token: &RefreshToken) -> Option<SessionId> {
        let (session_id, counter) = refresh_token::verify(&self.keys, token)?;
        let current = self.db.refresh_counter(session_id).await.map_err(unavailable);
        let is_recent = match current {
            Ok(Some(current)) => (current - 1..=current).contains(&counter),
            Ok(None) => false,
            Err(_) => true,
        };
        is_recent.then_some(session_id)
    }

    /// Resolves when this instance hears that the session of this refresh token has been revoked.
    pub async fn until_revoked(&self, token: &RefreshToken) {
        if let Some((session_id, _)) = refresh_token::verify(&self.keys, token) {
            self.allowlist.until_revoked(session_id).await;
        }
    }

    /// The running instances, as this one sees them.
    pub fn cluster(&self) -> ClusterView {
        self.allowlist.view()
    }

    /// Puts what is only known at the moment of asking into the metrics.
    pub fn measure(&self) {
        self.allowlist.measure();
        self.db.measure();
    }

    /// Drops what has expired, and takes over revocations that could not be spread.
    pub async fn maintain(&self, now: UnixSeconds) {
        self.throttle.forget_old();
        self.verified.forget_expired(self.allowlist.shared_time(now));
        if let Err(error) = self.allowlist.maintain(now).await {
            unavailable(error);
        }
    }

    /// Tells the other instances that this one stops.
    pub async fn leave(&self) {
        self.allowlist.leave().await;
    }
}

/// The database failed: logged here, once, for the operator. The client learns that it may try again.
fn unavailable(error: DbError) -> ApiError {
    error!(%error, "the database failed: {error}");
    ApiError::Unavailable
}
