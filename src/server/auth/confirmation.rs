//! The confirmation of e-mail addresses by links in mails: of a new account, of an account that there is, and of a
//! change of the address, which the owner of the former address can undo.

use hallpass_allowlist::Whose;
use secrecy::{ExposeSecret, SecretString};
use tracing::info;

use super::{
    Auth,
    authenticate::Authenticated,
    login::MAX_PASSWORD_BYTES,
    mail_token,
    password::{PasswordCheck, Share},
    recovery::dead_if_not_found,
    unavailable,
};
use crate::{
    api::{
        error::ApiError,
        types::{Confirmation, Confirmed},
    },
    server::{
        client_info::ClientInfo,
        clock::UnixSeconds,
        db::{ChangeError, mail_tokens::Purpose, user_changes::Change, users::Email},
        ids::{MailTokenId, UserId},
    },
};

impl Auth {
    /// Does what the token of a mail is for.
    ///
    /// Where only confirmed addresses are let in, this also takes the password of the account: its owner may open the mail
    /// that another person's registration has caused, and must not let that person in.
    ///
    /// # Errors
    /// [`ApiError::InvalidGrant`] when the token was used, has expired or does not apply any more, or the address is
    /// taken by now; [`ApiError::InvalidFields`] when the password is needed, and is missing or wrong;
    /// [`ApiError::TooManyRequests`]; [`ApiError::Unavailable`] when it cannot be confirmed that the user's sessions have
    /// ended.
    pub async fn verify_email(
        &self,
        token: &str,
        password: SecretString,
        caller: &ClientInfo,
        now: UnixSeconds,
    ) -> Result<Confirmation, ApiError> {
        let id = mail_token::verify(&self.ring().keys, token).ok_or_else(ApiError::dead_mail_token)?;
        let found = self.db.mail_token(id, now).await.map_err(unavailable)?;
        let found = found.ok_or_else(ApiError::dead_mail_token)?;
        let user_id = found.user.map(|(user_id, _)| user_id);
        if found.purpose == Purpose::Register || (found.purpose == Purpose::Verify && self.requires_verified)
        {
            let hash = match (found.password_hash, user_id) {
                (Some(hash), _) => Some(hash),
                (None, Some(user_id)) => {
                    let user = self.db.find_user_by_id(user_id).await.map_err(unavailable)?;
                    user.map(|user| user.password_hash)
                }
                (None, None) => None,
            };
            let hash = hash.ok_or_else(ApiError::dead_mail_token)?;
            let email = Email::parse(&found.email)?;
            self.require_password(password, hash, &email, caller).await?;
        }
        match (found.purpose, user_id) {
            (Purpose::Verify, _) => {
                let is_verified = self.db.verify_email(id, now).await.map_err(unavailable)?;
                done(is_verified, Confirmed::Verified)
            }
            (Purpose::Register, _) => {
                let user_id = self.db.register_verified(id, now).await.map_err(unavailable)?;
                if let Some(user_id) = user_id {
                    info!(user.id = %user_id, "user {user_id} registered");
                }
                done(user_id.is_some(), Confirmed::Registered)
            }
            (Purpose::ChangeEmail, Some(user_id)) => {
                self.confirm_email(user_id, Change::Email { token: id }, Confirmed::EmailChanged, now).await
            }
            (Purpose::RestoreEmail, Some(user_id)) => {
                let change = Change::RestoreEmail { token: id };
                self.confirm_email(user_id, change, Confirmed::EmailRestored, now).await
            }
            _ => Err(ApiError::dead_mail_token()),
        }
    }

    /// Checks the password of the account that is to be made or confirmed.
    async fn require_password(
        &self,
        password: SecretString,
        hash: String,
        email: &Email,
        caller: &ClientInfo,
    ) -> Result<(), ApiError> {
        let refuse = |advice: &str| Err(ApiError::invalid_field("password", advice));
        if password.expose_secret().is_empty() {
            return refuse("Enter the password that you have chosen for this account.");
        }
        let charge = self.throttle.try_address(caller).await?;
        let is_possible = password.expose_secret().len() <= MAX_PASSWORD_BYTES;
        let share = Share::of(caller.rate_limit_prefix(), email);
        let right = is_possible
            && self.passwords.verify(share, password, Some(hash)).await? != PasswordCheck::Mismatch;
        if !right {
            return refuse(
                "This is not the password of this account. If you have not chosen one, another person has used your address: choose “Forgot your password?”, or create an account.",
            );
        }
        self.throttle.refund(charge).await;
        Ok(())
    }

    /// Changes the address of a user. Their tokens contain the former one, so all sessions end.
    async fn confirm_email(
        &self,
        user_id: UserId,
        change: Change,
        confirmed: Confirmed,
        now: UnixSeconds,
    ) -> Result<Confirmation, ApiError> {
        let db = self.db.clone();
        let recording = async move { db.change_user(user_id, change, None, now).await };
        let revocation = self.revoke(Whose::User { user_id, except: None }, recording).await;
        let revocation = revocation.map_err(dead_if_not_found)?;
        info!(user.id = %user_id, "the address of user {user_id} was changed");
        Ok(Confirmation { confirmed, revocation: Some(revocation) })
    }

    /// Sends the bearer's user another link to confirm their address, if they have not done so.
    ///
    /// # Errors
    /// [`ApiError::TooManyRequests`], [`ApiError::Unavailable`].
    pub async fn send_verification(
        &self,
        authenticated: &Authenticated,
        caller: &ClientInfo,
        now: UnixSeconds,
    ) -> Result<(), ApiError> {
        self.charge_mail(authenticated, caller).await?;
        let user = self.own_user(authenticated).await?;
        match user.email_verified_at {
            Some(_) => Ok(()),
            None => self.db.request_verification(&user, now).await.map_err(unavailable),
        }
    }

    /// Sends a link to the new address, which makes it that of the bearer's user. If another account has it, its owner
    /// gets a note instead, and the answer is the same. The caller has checked that the request comes from the user
    /// ([`Auth::require_recent`]).
    ///
    /// # Errors
    /// [`ApiError::InvalidFields`] for what is not an address, or is theirs already; [`ApiError::InvalidToken`] when the
    /// session has been revoked concurrently; [`ApiError::TooManyRequests`], [`ApiError::Unavailable`].
    pub async fn change_email(
        &self,
        authenticated: &Authenticated,
        new: &Email,
        caller: &ClientInfo,
        now: UnixSeconds,
    ) -> Result<(), ApiError> {
        self.charge_mail(authenticated, caller).await?;
        let user = self.own_user(authenticated).await?;
        if Email::parse(&user.email).is_ok_and(|email| email == *new) {
            return Err(ApiError::invalid_field("email", "This is your address already."));
        }
        let requested = self.db.request_email_change(&user, new, authenticated.session_id(), now).await;
        requested.map_err(|error| match error {
            ChangeError::SessionEnded | ChangeError::NotFound => ApiError::InvalidToken,
            ChangeError::Db(error) => unavailable(error),
        })
    }

    /// Charges a mail that a user has asked for. Never refunded.
    async fn charge_mail(&self, authenticated: &Authenticated, caller: &ClientInfo) -> Result<(), ApiError> {
        let _ = self.throttle.try_address(caller).await?;
        self.throttle.charge_mail(authenticated.user_id()).await
    }

    /// The text of the token with this id, for the mail that carries it.
    pub fn mail_token(&self, id: MailTokenId) -> String {
        mail_token::sign(&self.ring().keys, id)
    }
}

fn done(is_done: bool, confirmed: Confirmed) -> Result<Confirmation, ApiError> {
    match is_done {
        true => Ok(Confirmation { confirmed, revocation: None }),
        false => Err(ApiError::dead_mail_token()),
    }
}
