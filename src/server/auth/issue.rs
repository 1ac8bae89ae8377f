//! Register and log in: check the password, start a session, issue its first pair of tokens.

use std::{collections::BTreeMap, net::IpAddr};

use secrecy::{ExposeSecret, SecretString};
use tracing::{error, info};

use super::{Auth, TokenPair, refresh_token, unavailable};
use crate::{
    api::error::AuthError,
    server::{
        clock::UnixSeconds,
        ids::{SessionId, TokenId, UserId},
        password::{self, Verified},
        sessions::TokenEntry,
        users::{Added, Email},
    },
};

/// No accepted password has more bytes (128 characters of 4), so a longer one is wrong unhashed.
const MAX_PASSWORD_BYTES: usize = 512;

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
        address: IpAddr,
        now: UnixSeconds,
    ) -> Result<TokenPair, AuthError> {
        self.throttle.try_address(address)?;
        let email = match (Email::parse(email), password::check_acceptable(&password, email)) {
            (Ok(email), Ok(())) => email,
            (email, password) => return Err(invalid_fields([email.err(), password.err()])),
        };
        let hash = self.passwords.hash(password).await?;
        let entry = self.new_entry(UserId::random(), SessionId::random(), now);

        let session_expires_at = now + self.config.refresh_ttl_seconds;
        let session = Some((&entry, session_expires_at));
        match self.db.add_user(entry.user_id, &email, &hash, session, now).await.map_err(unavailable)? {
            Added::Done => {}
            Added::EmailTaken => return Err(AuthError::EmailTaken),
        }
        let (user, session) = (entry.user_id, entry.session_id);
        info!(user.id = %user, session.id = %session, "user {user} registered, session {session}");
        self.allow(&entry, email.as_str(), 0, session_expires_at, now).await
    }

    /// Starts a session for the holder of the password.
    ///
    /// # Errors
    /// [`AuthError::InvalidGrant`], the same for an unknown user, a disabled one and a wrong
    /// password, after the same time; [`AuthError::InvalidFields`] for what cannot be an address;
    /// [`AuthError::TooManyRequests`], [`AuthError::Unavailable`].
    pub async fn login(
        &self,
        email: &str,
        password: SecretString,
        address: IpAddr,
        now: UnixSeconds,
    ) -> Result<TokenPair, AuthError> {
        self.throttle.try_address(address)?;
        let email = Email::parse(email)?;
        if password.expose_secret().is_empty() {
            return Err(AuthError::invalid_field("password", "Enter your password."));
        }
        self.throttle.try_account(&email)?;
        if password.expose_secret().len() > MAX_PASSWORD_BYTES {
            return Err(AuthError::wrong_credentials());
        }
        let user = self.db.find_user(&email).await.map_err(unavailable)?;
        let stored = user.as_ref().map(|user| user.password_hash.clone());
        let verified = self.passwords.verify(password, stored).await?;
        let (Some(user), Verified::Right { rehashed }) = (user, verified) else {
            return Err(AuthError::wrong_credentials());
        };

        let entry = self.new_entry(user.id, SessionId::random(), now);
        let session_expires_at = now + self.config.refresh_ttl_seconds;
        let started = self.db.start_session(&entry, user.password_version, session_expires_at, now).await;
        if !started.map_err(unavailable)? {
            return Err(AuthError::wrong_credentials());
        }
        if let Some(hash) = rehashed {
            // The log-in stands either way: the next one tries again.
            let _ = self.db.rehash(&user, &hash).await.map_err(unavailable);
        }
        let (user_id, session) = (entry.user_id, entry.session_id);
        info!(user.id = %user_id, session.id = %session, "user {user_id} logged in, session {session}");
        self.allow(&entry, &user.email, 0, session_expires_at, now).await
    }

    fn new_entry(&self, user_id: UserId, session_id: SessionId, now: UnixSeconds) -> TokenEntry {
        let expires_at = now + self.config.access_ttl_seconds;
        TokenEntry { token_id: TokenId::random(), session_id, user_id, expires_at }
    }

    /// Lets in a token that SQL has recorded, and makes the pair that goes to the client.
    pub(super) async fn allow(
        &self,
        entry: &TokenEntry,
        email: &str,
        counter: i64,
        session_expires_at: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<TokenPair, AuthError> {
        let access_token = self.jwt.sign(entry, email, now).map_err(|error| {
            error!(%error, "an access token could not be signed: {error}");
            AuthError::Internal
        })?;
        self.allowlist.allow(entry).await;
        Ok(TokenPair {
            access_token,
            refresh_token: refresh_token::sign(&self.keys, entry.session_id, counter),
            session_id: entry.session_id,
            expires_at: entry.expires_at,
            session_expires_at,
        })
    }
}

/// All that is wrong with the fields, in one answer.
fn invalid_fields(errors: [Option<AuthError>; 2]) -> AuthError {
    let fields = errors.into_iter().flatten().flat_map(|error| match error {
        AuthError::InvalidFields(fields) => fields,
        _ => BTreeMap::new(),
    });
    AuthError::InvalidFields(fields.collect())
}
