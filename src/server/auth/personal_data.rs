//! What is kept about a user: shown, exported, deleted.

use hallpass_allowlist::Whose;
use tracing::info;

use super::{Auth, account::wrong, authenticate::Authenticated, unavailable};
use crate::{
    api::{
        error::ApiError,
        types::{AccountExport, ExportedSession, Revocation, Role, UserProfile},
    },
    server::{
        clock::UnixSeconds,
        db::{decode, sessions::SessionRecord, user_changes::Change, users::User},
    },
};

impl Auth {
    /// The account of the bearer's user.
    ///
    /// # Errors
    /// [`ApiError::InvalidToken`] when the account has been deleted concurrently; [`ApiError::Unavailable`].
    pub async fn profile(&self, authenticated: &Authenticated) -> Result<UserProfile, ApiError> {
        self.own_user(authenticated).await.map(|user| profile_of(&user))
    }

    /// All that is kept about the bearer's user.
    ///
    /// # Errors
    /// [`ApiError::InvalidToken`] when the account has been deleted concurrently; [`ApiError::TooManyRequests`],
    /// [`ApiError::Unavailable`].
    pub async fn export(
        &self,
        authenticated: &Authenticated,
        now: UnixSeconds,
    ) -> Result<AccountExport, ApiError> {
        let _ = self.throttle.try_session(authenticated.session_id()).await?;
        let user = self.own_user(authenticated).await?;
        let sessions = self.db.all_sessions_of(user.id).await.map_err(unavailable)?;
        let events = self.db.recorded_events_of(user.id).await.map_err(unavailable)?;
        let session = |row: SessionRecord| ExportedSession {
            session_id: row.id,
            user_agent: row.device.user_agent,
            address: row.device.address,
            created_at: row.created_at,
            refreshed_at: row.rotated_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            revoke_reason: row.revoke_reason.as_deref().map(decode::reason),
        };
        let methods = self.sign_in_methods(authenticated, now).await?;
        Ok(AccountExport {
            exported_at: methods.now,
            totp_added_at: methods.totp_added_at,
            recovery_codes: methods.recovery_codes,
            passkeys: methods.passkeys,
            user_id: user.id.to_string(),
            role: user.role,
            profile: profile_of(&user),
            last_login_at: user.last_login_at,
            sessions: sessions.into_iter().map(session).collect(),
            events,
        })
    }

    /// Ends all sessions of the bearer's user, and removes what is personal. The caller has checked that the request
    /// comes from the user ([`Auth::require_recent`]).
    ///
    /// # Errors
    /// [`ApiError::Conflict`] for the only administrator; [`ApiError::InvalidFields`] when the password has been
    /// changed concurrently; [`ApiError::InvalidToken`] when the bearer's session has been
    /// revoked concurrently; [`ApiError::Unavailable`].
    pub async fn delete_account(
        &self,
        authenticated: &Authenticated,
        now: UnixSeconds,
    ) -> Result<Revocation, ApiError> {
        let user = self.own_user(authenticated).await?;
        let is_admin = user.role == Role::Admin;
        let (db, user_id, version) = (self.db.clone(), user.id, user.password_version);
        let by = Some(authenticated.session_id());
        let recording = async move { db.change_user(user_id, Change::Delete { version }, by, now).await };
        let revocation = self.revoke(Whose::User { user_id, except: None }, recording).await;
        let revocation = revocation.map_err(|error| match error {
            ApiError::NotFound if is_admin => ApiError::Conflict(
                "You are the only administrator. Make another user an administrator first.".into(),
            ),
            // The password or the address has been changed since the request was checked. The session may be live.
            ApiError::NotFound => wrong("password"),
            other => other,
        })?;
        info!(user.id = %user_id, "user {user_id} deleted the account");
        Ok(revocation)
    }

    /// The row of the bearer's user.
    pub(super) async fn own_user(&self, authenticated: &Authenticated) -> Result<User, ApiError> {
        let user = self.db.find_user_by_id(authenticated.user_id()).await.map_err(unavailable)?;
        user.ok_or(ApiError::InvalidToken)
    }
}

fn profile_of(user: &User) -> UserProfile {
    UserProfile {
        email: user.email.clone(),
        is_verified: user.email_verified_at.is_some(),
        created_at: user.created_at,
    }
}
