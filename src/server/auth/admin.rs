//! The actions of administrators: list users and their sessions, revoke sessions, disable or enable a user,
//! change a role. An action that takes rights away from a user also revokes the user's sessions.

use hallpass_allowlist::Whose;
use tracing::info;

use super::{Auth, authenticate::Administrator, not_changed, step_up::ConfirmedAdministrator, unavailable};
use crate::{
    api::{
        error::ApiError,
        types::{EndReason, Revocation, Role, SessionList, UserInfo, UserList},
    },
    server::{
        clock::UnixSeconds,
        db::{decode, user_changes::Change, users::Email},
        ids::{SessionId, UserId},
    },
};

/// The number of users on a page.
const PAGE: usize = 50;

impl Auth {
    /// A page of the users whose address contains `part`, starting after the address `after`.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`].
    pub async fn users(
        &self,
        _: &Administrator,
        part: &str,
        after: &str,
        now: UnixSeconds,
    ) -> Result<UserList, ApiError> {
        let now = self.allowlist.shared_time(now);
        let found = self.db.list_users(&Email::form(part), after, PAGE as i64 + 1, &self.config, now).await;
        let mut users: Vec<_> = found
            .map_err(unavailable)?
            .into_iter()
            .map(|user| UserInfo {
                user_id: user.id,
                email: user.email,
                role: decode::role(&user.role),
                is_disabled: user.disabled_at.is_some(),
                sessions: user.sessions,
                last_login_at: user.last_login_at,
            })
            .collect();
        let has_more = users.len() > PAGE;
        users.truncate(PAGE);
        Ok(UserList { users, has_more })
    }

    /// The live sessions of a user.
    ///
    /// # Errors
    /// [`ApiError::NotFound`], [`ApiError::Unavailable`].
    pub async fn sessions_of_user(
        &self,
        _: &Administrator,
        user_id: &str,
        now: UnixSeconds,
    ) -> Result<SessionList, ApiError> {
        self.sessions_of(self.existing(user_id).await?, None, now).await
    }

    /// Disables a user and revokes all of their sessions.
    ///
    /// # Errors
    /// [`ApiError::NotFound`]; [`ApiError::InvalidFields`] for the administrator's own account;
    /// [`ApiError::InvalidToken`] when the administrator's session has been revoked concurrently;
    /// [`ApiError::Unavailable`].
    pub async fn disable_user(
        &self,
        administrator: &ConfirmedAdministrator,
        user_id: &str,
        now: UnixSeconds,
    ) -> Result<Revocation, ApiError> {
        let user_id = someone_else(administrator, user_id)?;
        let db = self.db.clone();
        let by = Some(administrator.session_id());
        let recording = async move { db.change_user(user_id, Change::Disable, by, now).await };
        let revocation = self.revoke(Whose::User { user_id, except: None }, recording).await?;
        let by = administrator.user_id();
        info!(user.id = %user_id, admin.id = %by, "administrator {by} disabled user {user_id}");
        Ok(revocation)
    }

    /// Allows a disabled user to log in again.
    ///
    /// # Errors
    /// [`ApiError::NotFound`]; [`ApiError::InvalidFields`] for the administrator's own account;
    /// [`ApiError::InvalidToken`] when the administrator's session has been revoked concurrently;
    /// [`ApiError::Unavailable`].
    pub async fn enable_user(
        &self,
        administrator: &ConfirmedAdministrator,
        user_id: &str,
        now: UnixSeconds,
    ) -> Result<(), ApiError> {
        let user_id = someone_else(administrator, user_id)?;
        let enabled = self.db.enable_user(user_id, Some(administrator.session_id()), now).await;
        enabled.map_err(not_changed)?;
        let by = administrator.user_id();
        info!(user.id = %user_id, admin.id = %by, "administrator {by} enabled user {user_id}");
        Ok(())
    }

    /// Changes a user's role and revokes all of their sessions.
    ///
    /// # Errors
    /// [`ApiError::NotFound`]; [`ApiError::InvalidFields`] for the administrator's own account;
    /// [`ApiError::InvalidToken`] when the administrator's session has been revoked concurrently;
    /// [`ApiError::Unavailable`].
    pub async fn set_role(
        &self,
        administrator: &ConfirmedAdministrator,
        user_id: &str,
        role: Role,
        now: UnixSeconds,
    ) -> Result<Revocation, ApiError> {
        let user_id = someone_else(administrator, user_id)?;
        let db = self.db.clone();
        let by = Some(administrator.session_id());
        let recording = async move { db.change_user(user_id, Change::Role(role), by, now).await };
        let revocation = self.revoke(Whose::User { user_id, except: None }, recording).await?;
        let (by, role) = (administrator.user_id(), role.as_str());
        info!(user.id = %user_id, admin.id = %by, "administrator {by} made user {user_id} {role}");
        Ok(revocation)
    }

    /// Revokes one session of any user.
    ///
    /// # Errors
    /// [`ApiError::NotFound`]; [`ApiError::InvalidToken`] when the administrator's session has been revoked
    /// concurrently; [`ApiError::Unavailable`].
    pub async fn end_users_session(
        &self,
        administrator: &ConfirmedAdministrator,
        session_id: &str,
        now: UnixSeconds,
    ) -> Result<Revocation, ApiError> {
        let session_id: SessionId = session_id.parse().map_err(|_| ApiError::NotFound)?;
        let owner = self.db.session_owner(session_id).await.map_err(unavailable)?;
        owner.ok_or(ApiError::NotFound)?;
        let by = Some(administrator.session_id());
        let revocation = self.end_session(session_id, by, EndReason::EndedByAdmin, now).await?;
        let by = administrator.user_id();
        info!(session.id = %session_id, admin.id = %by, "administrator {by} ended session {session_id}");
        Ok(revocation)
    }

    /// Revokes all sessions of a user.
    ///
    /// # Errors
    /// [`ApiError::NotFound`]; [`ApiError::InvalidToken`] when the administrator's session has been revoked
    /// concurrently; [`ApiError::Unavailable`].
    pub async fn end_users_sessions(
        &self,
        administrator: &ConfirmedAdministrator,
        user_id: &str,
        now: UnixSeconds,
    ) -> Result<Revocation, ApiError> {
        let user_id = self.existing(user_id).await?;
        let by = Some(administrator.session_id());
        let revocation = self.end_sessions_of(user_id, None, by, EndReason::EndedByAdmin, now).await?;
        let by = administrator.user_id();
        info!(user.id = %user_id, admin.id = %by, "administrator {by} ended the sessions of user {user_id}");
        Ok(revocation)
    }

    /// Revokes all sessions of all users, including the administrator's own.
    ///
    /// # Errors
    /// [`ApiError::InvalidToken`] when the administrator's session has been revoked concurrently;
    /// [`ApiError::Unavailable`].
    pub async fn end_all_sessions(
        &self,
        administrator: &ConfirmedAdministrator,
        now: UnixSeconds,
    ) -> Result<Revocation, ApiError> {
        let db = self.db.clone();
        let by = Some(administrator.session_id());
        let recording = async move { db.revoke_every_session(by, EndReason::EndedByAdmin, now).await };
        let revocation = self.revoke(Whose::Everyone, recording).await?;
        let by = administrator.user_id();
        info!(admin.id = %by, "administrator {by} ended all sessions");
        Ok(revocation)
    }

    pub(super) async fn existing(&self, user_id: &str) -> Result<UserId, ApiError> {
        let user_id = user_id.parse().map_err(|_| ApiError::NotFound)?;
        let user = self.db.find_user_by_id(user_id).await.map_err(unavailable)?;
        user.map(|user| user.id).ok_or(ApiError::NotFound)
    }
}

/// Parses the id of a user other than the administrator, so that the last administrator cannot lock
/// themselves out.
fn someone_else(administrator: &ConfirmedAdministrator, user_id: &str) -> Result<UserId, ApiError> {
    let user_id = user_id.parse().map_err(|_| ApiError::NotFound)?;
    if user_id == administrator.user_id() {
        return Err(ApiError::invalid_field(
            "user_id",
            "You cannot do this to your own account. Ask another administrator.",
        ));
    }
    Ok(user_id)
}
