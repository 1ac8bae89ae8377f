//! Authentication: issuing, verifying, refreshing and revoking tokens. A revocation takes effect at once,
//! on every instance.
//!
//! The guarantees, and where they are implemented:
//! 1. Once logout (or any revocation) has answered 2xx, no access or refresh token of that session is
//!    accepted again, not even after a restart: [`revoke`].
//! 2. Authorizing a request needs no network call: it verifies the signature and looks up the token in
//!    local memory, as long as the lease holds: [`authenticate`], `lease.rs` of the crate `hallpass-allowlist`.
//! 3. A live token is never refused with 401. When it is undetermined whether a token is live, the response
//!    is 503: [`ApiError::Unavailable`].
//! 4. A logout that cannot be confirmed answers 503, never 2xx: `publisher.rs` there.
//!
//! `server/mod.rs` and `server/http/` call this module. Nothing in here depends on HTTP except for the one
//! header that carries the bearer.

use std::sync::Arc;

use anyhow::Result;
use hallpass_allowlist::{ClusterSnapshot, MemberKind};
use hallpass_guard::{VerifiedTokens, wire::Settings};
use tracing::{error, warn};

use self::{
    allowlist::Allowlist,
    guard_calls::GuardCalls,
    key::PublicJwk,
    key_ring::{KeyRing, Ring},
    keys::Keys,
    passkeys::Passkeys,
    verified_claims::VerifiedClaims,
};
use crate::{
    api::{
        error::ApiError,
        types::{AccessToken, EndReason, Presence, RefreshToken, Role},
    },
    server::{
        auth::{
            password::PasswordHasherPool,
            throttle::{Throttle, redis::SharedBuckets},
        },
        clock::UnixSeconds,
        config::{Config, TokenConfig},
        db::{ChangeError, Db, DbError, sessions::SessionState},
        ids::SessionId,
    },
};

pub mod account;
pub mod admin;
pub mod allowlist;
pub mod authenticate;
pub mod breached_passwords;
pub mod clients;
mod confirmation;
pub mod device_cookie;
mod factors;
mod guard_calls;
pub mod guards;
pub mod introspect;
pub mod jwt;
pub mod key;
pub mod key_folder;
mod key_ring;
pub mod keys;
pub mod login;
pub mod mail_token;
pub mod passkeys;
pub mod password;
mod password_queue;
mod personal_data;
mod recovery;
mod recovery_code;
pub mod refresh;
pub mod refresh_token;
pub mod revoke;
pub mod step_up;
pub mod subject;
pub mod throttle;
mod totp;
mod verified_claims;

/// The entry point of this module, of which each process has one.
pub struct Auth {
    db: Db,
    key_ring: KeyRing,
    allowlist: Arc<Allowlist>,
    verified: VerifiedTokens<Arc<VerifiedClaims>>,
    passwords: PasswordHasherPool,
    passkeys: Passkeys,
    throttle: Throttle,
    config: TokenConfig,
    /// Whether only users who have confirmed their address can log in.
    requires_verified: bool,
    /// Whether administrators need a second factor to change others.
    requires_admin_factor: bool,
    /// The name of the site, for authenticator apps.
    site_name: String,
    /// What guards have to know; `None` if this instance runs alone.
    guard_settings: Option<Settings>,
    guard_calls: GuardCalls,
}

/// The tokens that are issued to a client.
#[derive(Debug)]
pub struct TokenPair {
    pub access_token: AccessToken,
    pub refresh_token: RefreshToken,
    pub session_id: SessionId,
    /// The time of issue, by the clock that all instances share.
    pub issued_at: UnixSeconds,
    pub expires_at: UnixSeconds,
    /// The time from which the refresh token is refused.
    pub refresh_expires_at: UnixSeconds,
    /// The token that a browser keeps to prove that a user has signed in there ([`device_cookie`]). Only
    /// the first pair of a session has one.
    pub device_token: Option<String>,
}

impl Auth {
    /// Reads the keys, fills the allowlist from the database, and joins the other instances.
    ///
    /// # Errors
    /// A key, a password setting or Redis cannot be used, or the database cannot be read.
    pub async fn load(config: &Config, kind: MemberKind, db: Db, now: UnixSeconds) -> Result<Self> {
        // A gate verifies the tokens of the instances: a key of its own would be of no use.
        let mut keys = match kind {
            MemberKind::Instance => Keys::load_or_make(&config.token, now)?,
            MemberKind::Gate | MemberKind::Guard => Keys::load(&config.token, now)?,
        };
        if config.redis.url.is_some() && config.token.signing_key.is_none() {
            // The others may not have the newest key yet, and this instance could not start with it. When all accept it,
            // `follow_keys` turns to it.
            let oldest = keys.oldest().id().to_owned();
            keys = keys.signing_with(&oldest);
        }
        let allowlist = Arc::new(allowlist::load(config, kind, &keys, db.clone(), now).await?);
        Ok(Self {
            key_ring: KeyRing::new(&config.token, keys, now)?,
            verified: VerifiedTokens::default(),
            passwords: PasswordHasherPool::new(&config.password)?,
            passkeys: Passkeys::new(config)?,
            throttle: Throttle::new(
                &config.throttle,
                config.token.access_ttl_seconds,
                config.redis.url.is_some().then(|| SharedBuckets(Arc::clone(&allowlist))),
            ),
            allowlist,
            guard_settings: allowlist::guard_settings(config),
            guard_calls: GuardCalls::default(),
            config: config.token.clone(),
            requires_verified: config.account.require_verified,
            requires_admin_factor: config.account.admin_second_factor,
            site_name: config.site_name().to_owned(),
            db,
        })
    }

    /// The ids of the keys whose tokens are accepted, starting with the signing key.
    pub fn key_ids(&self) -> Vec<String> {
        self.ring().keys.all().map(|key| key.id().to_owned()).collect()
    }

    fn ring(&self) -> Arc<Ring> {
        self.key_ring.current()
    }

    /// Adopts changes of the folder of signing keys.
    pub async fn follow_keys(&self, now: UnixSeconds) {
        if let Err(error) = self.key_ring.follow_folder(&self.allowlist, now).await {
            warn!(error = format!("{error:#}"), "the signing keys cannot be read again: {error:#}");
        }
    }

    /// The public keys with which others can verify access tokens.
    pub fn public_keys(&self, now: UnixSeconds) -> Vec<PublicJwk> {
        self.ring().public_keys(now)
    }

    /// The session and the counter of a refresh token; `None` if none of our keys authenticates it.
    pub fn read_refresh_token(&self, token: &RefreshToken) -> Option<(SessionId, i64)> {
        refresh_token::verify(&self.ring().keys, token)
    }

    /// Whether requests are authorized from memory, and the wall clock agrees with that of the database.
    pub fn is_authorizing_from_memory(&self) -> bool {
        self.allowlist.is_ready() && self.allowlist.is_clock_right()
    }

    /// Whether login, refresh and logout can be recorded.
    pub async fn can_record(&self) -> bool {
        self.db.check_writable().await.map_err(unavailable).is_ok()
    }

    /// The presence to show to the holder of this refresh token: signed in, anonymous, or why the session
    /// ended. Answered from memory while an access token of the session is live.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`].
    pub async fn presence(&self, token: &RefreshToken, now: UnixSeconds) -> Result<Presence, ApiError> {
        let Some((session_id, _)) = refresh_token::verify(&self.ring().keys, token) else {
            return Ok(Presence::Anonymous);
        };
        self.presence_in(session_id, now).await
    }

    /// The presence to show to the holder of this session.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`].
    pub async fn presence_in(&self, session_id: SessionId, now: UnixSeconds) -> Result<Presence, ApiError> {
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
            // The mirror holds a tombstone, which records no reason.
            (_, Some(_)) => Presence::Ended(EndReason::SignedOut),
            (Err(error), None) => return Err(unavailable(error)),
        })
    }

    /// The role of the user of this session, by SQL; `None` if it does not know the session.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`].
    pub async fn role_in(&self, session_id: SessionId) -> Result<Option<Role>, ApiError> {
        self.db.role_in(session_id).await.map_err(unavailable)
    }

    /// The session of this refresh token, if its counter is the current one or the one before: the response
    /// that carried the current token may be lost or still in transit. If the database cannot be read, any
    /// counter is accepted. This does not prove that the session is live ([`Auth::presence`]).
    pub async fn session_of_recent(&self, token: &RefreshToken) -> Option<SessionId> {
        let (session_id, counter) = refresh_token::verify(&self.ring().keys, token)?;
        let current = self.db.refresh_counter(session_id).await.map_err(unavailable);
        let is_recent = match current {
            Ok(Some(current)) => (current - 1..=current).contains(&counter),
            Ok(None) => false,
            Err(_) => true,
        };
        is_recent.then_some(session_id)
    }

    /// Resolves when this instance learns that the session of this refresh token has been revoked.
    pub async fn until_revoked(&self, token: &RefreshToken) {
        if let Some((session_id, _)) = refresh_token::verify(&self.ring().keys, token) {
            self.allowlist.until_revoked(session_id).await;
        }
    }

    /// The running instances, as seen by this one.
    pub async fn cluster(&self) -> ClusterSnapshot {
        self.allowlist.snapshot().await
    }

    /// Updates the gauges that are measured on demand.
    pub fn measure(&self) {
        self.allowlist.measure();
        self.db.measure();
    }

    /// Drops expired state, and reconciles revocations that were recorded but not propagated.
    pub async fn maintain(&self, now: UnixSeconds) {
        self.throttle.forget_old();
        let shared_time = self.allowlist.shared_time(now);
        self.verified.retain(|claims| claims.expires_at > shared_time);
        if let Err(error) = self.allowlist.maintain(now).await {
            error!(%error, "revocations could not be read from the database: {error}");
        }
        if let Err(error) = self.delete_expired(now).await {
            unavailable(error);
        }
    }

    /// Deletes by the clock of the database, and not at all if this process's clock differs: a wrong clock
    /// must not delete what other instances still need.
    async fn delete_expired(&self, own: UnixSeconds) -> Result<(), DbError> {
        if !self.allowlist.is_clock_right() {
            return Ok(());
        }
        let now = self.db.clock(own).await?;
        self.db.delete_expired(now).await
    }

    /// Leaves the cluster, so that the other instances need not wait for this one.
    pub async fn leave(&self) {
        self.allowlist.leave().await;
    }
}

/// The error for a change that was not made.
fn not_changed(error: ChangeError) -> ApiError {
    match error {
        ChangeError::NotFound => ApiError::NotFound,
        ChangeError::SessionEnded => ApiError::InvalidToken,
        ChangeError::Db(error) => unavailable(error),
    }
}

/// Logs a database error and maps it to the error that invites the client to try again.
pub fn unavailable(error: DbError) -> ApiError {
    error!(%error, "the database failed: {error}");
    ApiError::Unavailable
}
