//! What signed-in users may see and change of their own account.

use hallpass_allowlist::Whose;
use secrecy::{ExposeSecret, SecretString};
use tracing::info;

use super::{
    Auth,
    authenticate::Authenticated,
    login::{MAX_PASSWORD_BYTES, invalid_fields},
    unavailable,
};
use crate::{
    api::{
        error::ApiError,
        types::{Revocation, SecurityEvents, SessionInfo, SessionList},
    },
    server::{
        auth::password::{self, PasswordCheck, Share},
        clock::UnixSeconds,
        db::{sessions::LiveSession, user_changes::Change, users::User},
        ids::{SessionId, UserId},
    },
};

impl Auth {
    /// The live sessions of the bearer's user.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`].
    pub async fn sessions(
        &self,
        authenticated: &Authenticated,
        now: UnixSeconds,
    ) -> Result<SessionList, ApiError> {
        self.sessions_of(authenticated.user_id(), Some(authenticated.session_id()), now).await
    }

    pub(super) async fn sessions_of(
        &self,
        user_id: UserId,
        current: Option<SessionId>,
        now: UnixSeconds,
    ) -> Result<SessionList, ApiError> {
        let now = self.allowlist.shared_time(now);
        let live =
            self.db.live_sessions_of(user_id, current, &self.config, now).await.map_err(unavailable)?;
        let current = current.map(|id| id.to_string());
        let is_current = |session: &LiveSession| current.as_ref() == Some(&session.id);
        let sessions = live
            .into_iter()
            .map(|session| SessionInfo {
                is_current: is_current(&session),
                device: session.device.label(),
                session_id: session.id,
                address: session.device.address,
                created_at: to_the_minute(session.created_at),
                last_seen_at: to_the_minute(session.rotated_at),
            })
            .collect();
        Ok(SessionList { now, sessions })
    }

    /// The recent security events of the bearer's user.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`].
    pub async fn security_events(
        &self,
        authenticated: &Authenticated,
        now: UnixSeconds,
    ) -> Result<SecurityEvents, ApiError> {
        let now = self.allowlist.shared_time(now);
        let events = self.db.events_of(authenticated.user_id()).await.map_err(unavailable)?;
        Ok(SecurityEvents { now, events })
    }

    /// Changes the password of the bearer's user, and revokes all of their other sessions.
    ///
    /// # Errors
    /// [`ApiError::ReauthenticationRequired`] when the user has an authenticator app, and has not signed in with it lately;
    /// [`ApiError::InvalidFields`] when the current password is wrong or the new one is not acceptable;
    /// [`ApiError::InvalidToken`] when the bearer's session has been revoked concurrently;
    /// [`ApiError::TooManyRequests`]; [`ApiError::Unavailable`] when the change cannot be confirmed: the
    /// password may have been changed, and the other sessions may still be live.
    pub async fn change_password(
        &self,
        authenticated: &Authenticated,
        current: SecretString,
        new: SecretString,
        now: UnixSeconds,
    ) -> Result<Revocation, ApiError> {
        let missing = current.expose_secret().is_empty();
        let missing = missing.then(|| ApiError::invalid_field("current", "Enter your current password."));
        let new_one = password::validate_new_password(&new, authenticated.email());
        let new_one = new_one.map_err(|error| error.with_field_name("new"));
        if missing.is_some() || new_one.is_err() {
            return Err(invalid_fields([missing, new_one.err()]));
        }
        let user = self.verify_password(authenticated, current, "current").await?;
        if user.totp.is_some() {
            self.require_recent(authenticated, SecretString::default(), now).await?;
        }
        let hash = self.passwords.hash(Share::of_user(user.id), new).await;
        let hash = hash.map_err(|error| error.with_field_name("new"))?;
        let (db, except) = (self.db.clone(), authenticated.session_id());
        let (user_id, version) = (user.id, user.password_version);
        let recording = async move {
            let change = Change::Password { hash, version, except };
            db.change_user(user_id, change, Some(except), now).await
        };
        let whose = Whose::User { user_id, except: Some(except) };
        let revocation = self.revoke(whose, recording).await.map_err(|error| match error {
            // The password has been changed since it was verified.
            ApiError::NotFound => wrong("current"),
            other => other,
        })?;
        info!(user.id = %user_id, "user {user_id} changed the password");
        Ok(revocation)
    }

    /// The bearer's user, if the password is theirs.
    pub(super) async fn verify_password(
        &self,
        authenticated: &Authenticated,
        password: SecretString,
        field: &'static str,
    ) -> Result<User, ApiError> {
        let counted = self.throttle.try_session(authenticated.session_id()).await?;
        let verified = self.user_with_password(authenticated.user_id(), password).await;
        // Charge wrong passwords, and right ones beyond their own limit, but not passwords that could not
        // be checked.
        if !matches!(verified, Ok(None) | Err(ApiError::TooManyRequests(_))) {
            self.throttle.refund(counted).await;
        }
        verified?.ok_or_else(|| wrong(field))
    }

    async fn user_with_password(
        &self,
        user_id: UserId,
        password: SecretString,
    ) -> Result<Option<User>, ApiError> {
        if password.expose_secret().len() > MAX_PASSWORD_BYTES {
            return Ok(None);
        }
        let user = self.db.find_user_by_id(user_id).await.map_err(unavailable)?;
        let user = user.ok_or(ApiError::InvalidToken)?;
        let share = Share::of_user(user_id);
        let verified = self.passwords.verify(share, password, Some(user.password_hash.clone())).await?;
        if verified == PasswordCheck::Mismatch {
            return Ok(None);
        }
        self.throttle.charge_right_password(user_id).await?;
        Ok(Some(user))
    }
}

/// The time rounded down to the minute: a client that polls the list must not see to the second when
/// another holder of the session's tokens refreshes it.
fn to_the_minute(time: UnixSeconds) -> UnixSeconds {
    time - time.rem_euclid(60)
}

pub(super) fn wrong(field: &str) -> ApiError {
    ApiError::invalid_field(field, "This is not your password.")
}
