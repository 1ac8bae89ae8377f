//! Register and log in: check the password, start a session, issue its first pair of tokens.

use std::collections::BTreeMap;

use hallpass_allowlist::TokenRecord;
use secrecy::{ExposeSecret, SecretString};
use tracing::{error, info};

use super::{
    Auth, TokenPair,
    authenticate::Authenticated,
    device_cookie::{self, KnownDevice},
    refresh_token, unavailable,
};
use crate::{
    api::{error::ApiError, types::Role},
    server::{
        auth::password::{self, PasswordCheck, Share},
        client_info::ClientInfo,
        clock::UnixSeconds,
        db::{
            sessions::{NewSession, Started},
            users::{Added, Email},
        },
        ids::{DeviceId, SessionId, TokenId, UserId},
    },
};

/// The longest password that can be right (128 characters of 4 bytes). A longer one is rejected without
/// hashing.
pub(super) const MAX_PASSWORD_BYTES: usize = 512;

impl Auth {
    /// Creates a user and starts their first session, both or neither. If users have to confirm their address first, it
    /// sends a mail instead, and the answer does not show whether there was an account.
    ///
    /// # Errors
    /// [`ApiError::InvalidFields`], [`ApiError::EmailTaken`], [`ApiError::TooManyRequests`],
    /// [`ApiError::VerificationRequired`], [`ApiError::Unavailable`].
    pub async fn register(
        &self,
        email: &str,
        password: SecretString,
        caller: &ClientInfo,
        now: UnixSeconds,
    ) -> Result<TokenPair, ApiError> {
        // Never refunded: a client that can create one account could create thousands.
        let _ = self.throttle.try_address(caller).await?;
        let email = match (Email::parse(email), password::validate_new_password(&password, email)) {
            (Ok(email), Ok(())) => email,
            (email, password) => return Err(invalid_fields([email.err(), password.err()])),
        };
        let share = Share::of(caller.rate_limit_prefix(), &email);
        let hash = self.passwords.hash(share, password).await?;
        if self.requires_verified {
            self.db.request_registration(&email, hash, now).await.map_err(unavailable)?;
            return Err(ApiError::VerificationRequired);
        }
        let new = new_session(UserId::random(), caller);
        let adding = self.db.add_user(new.user_id, &email, &hash, Some((new, &self.config)), now);
        let (entry, now) = match adding.await.map_err(unavailable)? {
            Added::Done(Some(started)) => started,
            Added::Done(None) => return Err(ApiError::Internal),
            Added::EmailTaken => return Err(ApiError::EmailTaken),
        };
        let (user, session) = (entry.user_id, entry.session_id);
        info!(user.id = %user, session.id = %session, "user {user} registered, session {session}");
        let pair = self.issue_pair(&entry, email.as_str(), Role::User, 0, self.idle_at(now), now).await?;
        let device = KnownDevice { id: DeviceId::random(), password_version: now };
        Ok(TokenPair { device_token: Some(device_cookie::sign(&self.ring().keys, &email, device)), ..pair })
    }

    /// Starts a session for the holder of the password. `devices` is the cookie with the tokens that
    /// earlier logins gave to this browser ([`device_cookie`]).
    ///
    /// # Errors
    /// [`ApiError::InvalidGrant`], the same and after the same time for an unknown user, a disabled one and
    /// a wrong password; [`ApiError::VerificationRequired`] for a right one, if the address has to be confirmed first;
    /// [`ApiError::InvalidFields`] for a malformed e-mail address or an empty password;
    /// [`ApiError::TooManyRequests`], [`ApiError::Unavailable`].
    pub async fn login(
        &self,
        email: &str,
        password: SecretString,
        caller: &ClientInfo,
        devices: Option<&str>,
        now: UnixSeconds,
    ) -> Result<TokenPair, ApiError> {
        let email = Email::parse(email)?;
        if password.expose_secret().is_empty() {
            return Err(ApiError::invalid_field("password", "Enter your password."));
        }
        let device = devices.and_then(|devices| device_cookie::verify(&self.ring().keys, &email, devices));
        let known_device = match device {
            Some(device) => self.still_known(&email, device).await?,
            None => None,
        };
        let charge = self.throttle.try_login(&email, caller, known_device).await?;
        let known = KnownBrowser { device, is_known: known_device.is_some() };
        let begun = self.begin_session(&email, password, caller, known, now).await;
        // Charge wrong passwords, and right ones beyond their own limit, but not passwords that could not
        // be checked.
        if !matches!(begun, Err(ApiError::InvalidGrant(_) | ApiError::TooManyRequests(_))) {
            self.throttle.refund(charge).await;
        }
        begun
    }

    /// The device, unless the password has been changed since the user signed in there.
    async fn still_known(&self, email: &Email, device: KnownDevice) -> Result<Option<DeviceId>, ApiError> {
        let user = self.db.find_user(email).await.map_err(unavailable)?;
        let is_known = user.is_some_and(|user| user.password_version == device.password_version);
        Ok(is_known.then_some(device.id))
    }

    /// Starts a session if the password is right.
    async fn begin_session(
        &self,
        email: &Email,
        password: SecretString,
        caller: &ClientInfo,
        browser: KnownBrowser,
        now: UnixSeconds,
    ) -> Result<TokenPair, ApiError> {
        if password.expose_secret().len() > MAX_PASSWORD_BYTES {
            return Err(ApiError::wrong_credentials());
        }
        let user = self.db.find_user(email).await.map_err(unavailable)?;
        let stored = user.as_ref().map(|user| user.password_hash.clone());
        let verified =
            self.passwords.verify(Share::of(caller.rate_limit_prefix(), email), password, stored).await?;
        let (Some(user), PasswordCheck::Match { rehashed }) = (user, verified) else {
            return Err(ApiError::wrong_credentials());
        };
        self.throttle.charge_right_password(user.id).await?;
        if self.requires_verified && user.email_verified_at.is_none() && user.disabled_at.is_none() {
            self.db.request_verification(&user, now).await.map_err(unavailable)?;
            return Err(ApiError::VerificationRequired);
        }

        let (new, config) = (new_session(user.id, caller), &self.config);
        let started = self.db.start_session(new, &user, browser.is_known, config, now).await;
        let Some(Started { entry, now, displaced }) = started.map_err(unavailable)? else {
            return Err(ApiError::wrong_credentials());
        };
        self.allowlist.propagate_later(displaced);
        if let Some(hash) = rehashed {
            // The login succeeds either way; the next one will try again to store the new hash.
            let _ = self.db.rehash(&user, &hash).await.map_err(unavailable);
        }
        let (user_id, session) = (entry.user_id, entry.session_id);
        info!(user.id = %user_id, session.id = %session, "user {user_id} logged in, session {session}");
        let pair = self.issue_pair(&entry, &user.email, user.role, 0, self.idle_at(now), now).await?;
        // A device keeps its id, and with it the attempts it has been charged for.
        let id = browser.device.map_or_else(DeviceId::random, |device| device.id);
        let device = KnownDevice { id, password_version: user.password_version };
        Ok(TokenPair { device_token: Some(device_cookie::sign(&self.ring().keys, email, device)), ..pair })
    }

    /// The token that replaces the one in `devices` after the password was changed in this browser, so that
    /// the browser stays a known device.
    pub async fn renew_device_token(&self, authenticated: &Authenticated, devices: &str) -> Option<String> {
        let email = Email::parse(authenticated.email()).ok()?;
        let KnownDevice { id, .. } = device_cookie::verify(&self.ring().keys, &email, devices)?;
        let user = self.db.find_user(&email).await.ok()??;
        let device = KnownDevice { id, password_version: user.password_version };
        Some(device_cookie::sign(&self.ring().keys, &email, device))
    }

    /// The time at which a session that starts now expires unless it is refreshed before.
    fn idle_at(&self, now: UnixSeconds) -> UnixSeconds {
        now + self.config.refresh_ttl_seconds.min(self.config.idle_ttl_seconds)
    }

    /// Adds a token that SQL has recorded to the allowlist, and makes the pair for the client.
    pub(super) async fn issue_pair(
        &self,
        entry: &TokenRecord,
        email: &str,
        role: Role,
        counter: i64,
        refresh_expires_at: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<TokenPair, ApiError> {
        let access_token = self.ring().jwt.sign(entry, email, role, now).map_err(|error| {
            error!(%error, "an access token could not be signed: {error}");
            ApiError::Internal
        })?;
        self.allowlist.allow(entry).await;
        Ok(TokenPair {
            access_token,
            refresh_token: refresh_token::sign(&self.ring().keys, entry.session_id, counter),
            session_id: entry.session_id,
            issued_at: now,
            expires_at: entry.expires_at,
            refresh_expires_at,
            device_token: None,
        })
    }
}

/// What a browser has shown about earlier logins to the account.
struct KnownBrowser {
    device: Option<KnownDevice>,
    /// Whether that was with the present password.
    is_known: bool,
}

fn new_session(user_id: UserId, caller: &ClientInfo) -> NewSession {
    NewSession {
        session_id: SessionId::random(),
        user_id,
        token_id: TokenId::random(),
        device: caller.device(),
    }
}

/// Merges the errors of all fields into one response.
pub(super) fn invalid_fields(errors: [Option<ApiError>; 2]) -> ApiError {
    let fields = errors.into_iter().flatten().flat_map(|error| match error {
        ApiError::InvalidFields(fields) => fields,
        _ => BTreeMap::new(),
    });
    ApiError::InvalidFields(fields.collect())
}
