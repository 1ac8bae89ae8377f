//! Subject identifiers: how another service names a user (RFC 9493), and global token revocation, which takes one.

use serde::Deserialize;
use tracing::info;
use utoipa::ToSchema;

use super::{Auth, clients::AuthenticatedClient, unavailable};
use crate::{
    api::{
        error::ApiError,
        types::{EndReason, Revocation},
    },
    server::{clock::UnixSeconds, db::users::Email, ids::UserId},
};

/// A user as another service knows them (RFC 9493, 3.2).
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "format", rename_all = "snake_case")]
pub enum SubjectIdentifier {
    /// The e-mail address.
    Email { email: String },
    /// The claims `iss` and `sub` of an access token.
    IssSub { iss: String, sub: String },
    /// The id: the claim `sub` of an access token.
    Opaque { id: String },
}

impl Auth {
    /// Revokes all sessions of a user, on the authority of a client
    /// (draft-parecki-oauth-global-token-revocation, "Revocation Expectations"). The user can log in again.
    ///
    /// # Errors
    /// [`ApiError::UnauthorizedClient`]; [`ApiError::NotFound`] when there is no such user;
    /// [`ApiError::InvalidRequest`] when `subject` has an address that cannot be one; [`ApiError::Unavailable`].
    pub async fn revoke_user(
        &self,
        client: &AuthenticatedClient,
        subject: &SubjectIdentifier,
        now: UnixSeconds,
    ) -> Result<Revocation, ApiError> {
        client.require_may_revoke_users()?;
        let user_id = self.user_named(subject).await?;
        let revocation = self.end_sessions_of(user_id, None, None, EndReason::EndedByAdmin, now).await?;
        let client = client.id();
        info!(user.id = %user_id, client.id = client, "client {client} ended the sessions of user {user_id}");
        Ok(revocation)
    }

    async fn user_named(&self, subject: &SubjectIdentifier) -> Result<UserId, ApiError> {
        match subject {
            SubjectIdentifier::Email { email } => {
                let email = Email::parse(email)
                    .map_err(|_| ApiError::InvalidRequest("The e-mail address cannot be one.".into()))?;
                let user = self.db.find_user(&email).await.map_err(unavailable)?;
                user.map(|user| user.id).ok_or(ApiError::NotFound)
            }
            SubjectIdentifier::IssSub { iss, .. } if *iss != self.config.issuer => Err(ApiError::NotFound),
            SubjectIdentifier::IssSub { sub: id, .. } | SubjectIdentifier::Opaque { id } => {
                self.existing(id).await
            }
        }
    }
}
