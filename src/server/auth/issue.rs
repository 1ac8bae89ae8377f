//! Register and log in: check the password, start a session, issue its first pair of tokens.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use tracing::{error, info};

use super::{Auth, TokenPair, device, refresh_token, unavailable};
use crate::{
    api::{error::AuthError, types::Role},
    server::{
        access_tokens::TokenEntry,
        caller::Caller,
        clock::UnixSeconds,
        ids::{DeviceId, SessionId, TokenId, UserId},
        password::{self, Verified},
        sessions::{NewSession, Started},
        users::{Added, Email},
    },
};

/// No accepted password has more bytes (128 characters of 4), so a longer one is wrong unhashed.
pub(super) const MAX_PASSWORD_BYTES: usize = 512;

impl Auth {
    /// Creates a user and starts their first session, both or neither.
    ///
    /// # Errors
    /// [`AuthError::InvalidFields`], [`AuthError::EmailTaken`], [`AuthError::TooManyRequests`],
    /// [`AuthError::Unavailable`].
    pub async fn register(
        &self,
        email: &str,
        password: SecretString,
        caller: &Caller,
        now: UnixSeconds,
    ) -> Result<TokenPair, AuthError> {
        // Not given back: whoever can make one account can make thousands.
        let _ = self.throttle.try_address(caller).await?;
        let email = match (Email::parse(email), password::check_acceptable(&password, email)) {
            (Ok(email), Ok(())) => email,
            (email, password) => return Err(invalid_fields([email.err(), password.err()])),
        };
        let hash = self.passwords.hash(password).await?;
        let new = new_session(UserId::random(), caller);
        let adding = self.db.add_user(new.user_id, &email, &hash, Some((new, &self.config)), now);
        let (entry, now) = match adding.await.map_err(unavailable)? {
            Added::Done(Some(started)) => started,
            Added::Done(None) => return Err(AuthError::Internal),
            Added::EmailTaken => return Err(AuthError::EmailTaken),
        };
        let (user, session) = (entry.user_id, entry.session_id);
        info!(user.id = %user, session.id = %session, "user {user} registered, session {session}");
        self.allow(&entry, email.as_str(), Role::User, 0, self.idle_at(now), now).await
    }

    /// Starts a session for the holder of the password. `device_token` is what an earlier log-in
    /// left with this browser ([`Auth::device_token`]).
    ///
    /// # Errors
    /// [`AuthError::InvalidGrant`], the same for an unknown user, a disabled one and a wrong
    /// password, after the same time; [`AuthError::InvalidFields`] for what cannot be an address;
    /// [`AuthError::TooManyRequests`], [`AuthError::Unavailable`].
    pub async fn login(
        &self,
        email: &str,
        password: SecretString,
        caller: &Caller,
        device_token: Option<&str>,
        now: UnixSeconds,
    ) -> Result<TokenPair, AuthError> {
        let from_address = self.throttle.try_address(caller).await?;
        let email = Email::parse(email)?;
        if password.expose_secret().is_empty() {
            return Err(AuthError::invalid_field("password", "Enter your password."));
        }
        let known_device = device_token.and_then(|token| device::verify(&self.keys, &email, token));
        let at_account = self.throttle.try_account(&email, caller, known_device).await?;
        let begun = self.begin_session(&email, password, caller, now).await;
        // Only a wrong one counts, and none that could not be looked at.
        if !matches!(begun, Err(AuthError::InvalidGrant(_))) {
            self.throttle.give_back(from_address).await;
            self.throttle.give_back(at_account).await;
        }
        begun
    }

    /// Starts a session if this is the password.
    async fn begin_session(
        &self,
        email: &Email,
        password: SecretString,
        caller: &Caller,
        now: UnixSeconds,
    ) -> Result<TokenPair, AuthError> {
        if password.expose_secret().len() > MAX_PASSWORD_BYTES {
            return Err(AuthError::wrong_credentials());
        }
        let user = self.db.find_user(email).await.map_err(unavailable)?;
        let stored = user.as_ref().map(|user| user.password_hash.clone());
        let verified = self.passwords.verify(password, stored).await?;
        let (Some(user), Verified::Right { rehashed }) = (user, verified) else {
            return Err(AuthError::wrong_credentials());
        };

        let started = self.db.start_session(new_session(user.id, caller), &user, &self.config, now).await;
        let Some(Started { entry, now, displaced }) = started.map_err(unavailable)? else {
            return Err(AuthError::wrong_credentials());
        };
        self.allowlist.propagate_later(displaced);
        if let Some(hash) = rehashed {
            // The log-in stands either way: the next one tries again.
            let _ = self.db.rehash(&user, &hash).await.map_err(unavailable);
        }
        let (user_id, session) = (entry.user_id, entry.session_id);
        info!(user.id = %user_id, session.id = %session, "user {user_id} logged in, session {session}");
        self.allow(&entry, &user.email, user.role, 0, self.idle_at(now), now).await
    }

    /// What a browser keeps, to show that someone has signed in there as the user with this address.
    pub fn device_token(&self, email: &str) -> Option<String> {
        let email = Email::parse(email).ok()?;
        Some(device::sign(&self.keys, &email, DeviceId::random()))
    }

    /// When a session that begins now can be refreshed no more, if it is not refreshed before.
    fn idle_at(&self, now: UnixSeconds) -> UnixSeconds {
        now + self.config.refresh_ttl_seconds.min(self.config.idle_ttl_seconds)
    }

    /// Lets in a token that SQL has recorded, and makes the pair that goes to the client.
    pub(super) async fn allow(
        &self,
        entry: &TokenEntry,
        email: &str,
        role: Role,
        counter: i64,
        refresh_expires_at: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<TokenPair, AuthError> {
        let access_token = self.jwt.sign(entry, email, role, now).map_err(|error| {
            error!(%error, "an access token could not be signed: {error}");
            AuthError::Internal
        })?;
        self.allowlist.allow(entry).await;
        Ok(TokenPair {
            access_token,
            refresh_token: refresh_token::sign(&self.keys, entry.session_id, counter),
            session_id: entry.session_id,
            issued_at: now,
            expires_at: entry.expires_at,
            refresh_expires_at,
        })
    }
}

fn new_session(user_id: UserId, caller: &Caller) -> NewSession {
    NewSession {
        session_id: SessionId::random(),
        user_id,
        token_id: TokenId::random(),
        device: caller.device(),
    }
}

/// All that is wrong with the fields, in one answer.
pub(super) fn invalid_fields(errors: [Option<AuthError>; 2]) -> AuthError {
    let fields = errors.into_iter().flatten().flat_map(|error| match error {
        AuthError::InvalidFields(fields) => fields,
        _ => BTreeMap::new(),
    });
    AuthError::InvalidFields(fields.collect())
}
