//! Forgotten passwords: a link by mail, with which the user chooses a new one.
//!
//! The answer to asking for a link is the same, and takes the same time, whether there is an account or not. A reset
//! ends all sessions of the user before it is answered, like every revocation, and starts none.

use hallpass_allowlist::Whose;
use secrecy::SecretString;
use tracing::info;

use super::{
    Auth, mail_token,
    password::{self, Share},
    unavailable,
};
use crate::{
    api::{error::ApiError, types::Revocation},
    server::{
        client_info::ClientInfo,
        clock::UnixSeconds,
        db::{
            user_changes::Change,
            users::{Email, User},
        },
    },
};

impl Auth {
    /// Sends a link to choose a new password to the address, if it is that of a user who may log in. No more than three
    /// links are valid at a time; further requests are answered the same, and send none.
    ///
    /// # Errors
    /// [`ApiError::InvalidFields`] for what is not an address; [`ApiError::TooManyRequests`] by the client's address;
    /// [`ApiError::Unavailable`].
    pub async fn forgot_password(
        &self,
        email: &str,
        caller: &ClientInfo,
        now: UnixSeconds,
    ) -> Result<(), ApiError> {
        let email = Email::parse(email)?;
        // Never refunded: each request may send a mail.
        let _ = self.throttle.try_address(caller).await?;
        self.db.request_reset(&email, now).await.map_err(unavailable)
    }

    /// Sets the password of the user to whom `token` was sent, and revokes all of their sessions.
    ///
    /// # Errors
    /// [`ApiError::InvalidGrant`] when the token was used, has expired, or was issued for an earlier password or
    /// address; [`ApiError::InvalidFields`] when the password is not acceptable, and the token can be used again;
    /// [`ApiError::Unavailable`] when the change cannot be confirmed: the password may have been changed, and the
    /// sessions may still be live.
    pub async fn reset_password(
        &self,
        token: &str,
        new: SecretString,
        now: UnixSeconds,
    ) -> Result<Revocation, ApiError> {
        let token = mail_token::verify(&self.ring().keys, token).ok_or_else(ApiError::dead_mail_token)?;
        let found = self.db.mail_token(token, now).await.map_err(unavailable)?;
        let found = found.filter(|found| found.purpose.allows_reset()).and_then(|found| {
            let (user_id, version) = found.user?;
            Some((found.email, user_id, version))
        });
        let (email, user_id, version) = found.ok_or_else(ApiError::dead_mail_token)?;
        // Checked again by the change itself; here, so that a void token costs no hashing.
        let user = self.db.find_user_by_id(user_id).await.map_err(unavailable)?;
        let is_good = |user: &User| user.password_version == version && user.email == email;
        if !user.is_some_and(|user| is_good(&user) && user.disabled_at.is_none()) {
            return Err(ApiError::dead_mail_token());
        }
        password::validate_new_password(&new, &email)?;
        let hash = self.passwords.hash(Share::of_user(user_id), new).await?;
        let db = self.db.clone();
        let recording =
            async move { db.change_user(user_id, Change::ResetPassword { token, hash }, None, now).await };
        let revocation = self.revoke(Whose::User { user_id, except: None }, recording).await;
        let revocation = revocation.map_err(dead_if_not_found)?;
        info!(user.id = %user_id, "user {user_id} reset the password");
        Ok(revocation)
    }
}

/// The token does not apply (any more).
pub(super) fn dead_if_not_found(error: ApiError) -> ApiError {
    match error {
        ApiError::NotFound => ApiError::dead_mail_token(),
        other => other,
    }
}
