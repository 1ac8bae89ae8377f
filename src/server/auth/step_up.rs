//! Step-up: which calls need that the user has signed in recently, and with a second factor (RFC 9470; ASVS 5.0, 7.5).
//!
//! A session begins with one sign-in and keeps what that has shown. To show more, the user signs in again, which begins
//! a new session and ends the one before (ASVS 5.0, 7.2.4). What a session has shown is read from SQL, not from the token:
//! these calls change something there in any case.

use secrecy::{ExposeSecret, SecretString};

use super::{
    Auth,
    authenticate::{Administrator, Authenticated},
    unavailable,
};
use crate::{
    api::{
        error::ApiError,
        types::{Assurance, Role, StepUp},
    },
    server::{
        clock::UnixSeconds,
        ids::{SessionId, UserId},
    },
};

/// How long after signing in users may change their own account without doing so again, in seconds.
const OWN_ACCOUNT: i64 = 300;

/// How long after signing in administrators may change others, in seconds.
const OTHERS: i64 = 900;

/// The proof that an administrator may change others: they have signed in with a second factor, not long ago, unless the
/// settings ask for none.
#[derive(Debug, Clone)]
pub struct ConfirmedAdministrator(Administrator);

impl ConfirmedAdministrator {
    pub fn user_id(&self) -> UserId {
        self.0.user_id()
    }

    pub fn session_id(&self) -> SessionId {
        self.0.session_id()
    }
}

impl Auth {
    /// Checks that the request comes from the user and not from somebody else at their device (ASVS 5.0, 7.5.1 and
    /// 7.5.2): their session began at most five minutes ago, with two factors if they have an authenticator app, or are an
    /// administrator with a passkey; or the password is right, and they are neither.
    ///
    /// # Errors
    /// [`ApiError::ReauthenticationRequired`]; [`ApiError::InvalidFields`] for a wrong password;
    /// [`ApiError::InvalidToken`] when the account has been deleted concurrently; [`ApiError::TooManyRequests`],
    /// [`ApiError::Unavailable`].
    pub async fn require_recent(
        &self,
        authenticated: &Authenticated,
        password: SecretString,
        now: UnixSeconds,
    ) -> Result<(), ApiError> {
        let user = self.own_user(authenticated).await?;
        // An administrator's passkey must not be worth as little as the password, which could otherwise add another one.
        let needs_both = user.totp.is_some() || user.role == Role::Admin && user.has_passkey;
        if !needs_both && !password.expose_secret().is_empty() {
            return self.verify_password(authenticated, password, "password").await.map(drop);
        }
        let acr = if needs_both { Assurance::Aal2 } else { Assurance::Aal1 };
        self.require_sign_in(authenticated.session_id(), StepUp { acr, max_age: OWN_ACCOUNT }, now).await
    }

    /// Checks that the administrator may change others (ASVS 5.0, 7.5.3): the session began at most 15 minutes ago, with
    /// two factors. If the settings say so, being an administrator is enough.
    ///
    /// # Errors
    /// [`ApiError::ReauthenticationRequired`], [`ApiError::Unavailable`].
    pub async fn confirm(
        &self,
        administrator: Administrator,
        now: UnixSeconds,
    ) -> Result<ConfirmedAdministrator, ApiError> {
        if self.requires_admin_factor {
            let step_up = StepUp { acr: Assurance::Aal2, max_age: OTHERS };
            self.require_sign_in(administrator.session_id(), step_up, now).await?;
        }
        Ok(ConfirmedAdministrator(administrator))
    }

    async fn require_sign_in(
        &self,
        session_id: SessionId,
        needed: StepUp,
        now: UnixSeconds,
    ) -> Result<(), ApiError> {
        let now = self.allowlist.shared_time(now);
        let sign_in = self.db.sign_in_of(session_id).await.map_err(unavailable)?;
        let is_enough = sign_in.is_some_and(|sign_in| {
            sign_in.method.assurance() >= needed.acr && now - sign_in.at <= needed.max_age
        });
        if is_enough { Ok(()) } else { Err(ApiError::ReauthenticationRequired(needed)) }
    }
}
