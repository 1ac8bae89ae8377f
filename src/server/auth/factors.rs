//! The ways in which a user signs in: authenticator app, recovery codes, passkeys. Adding or removing one ends all other
//! sessions of the user, like a new password: who had only what counted before has to sign in again.

use hallpass_allowlist::Whose;
use secrecy::SecretString;
use tracing::info;

use super::{
    Auth, TokenPair,
    account::wrong,
    allowlist,
    authenticate::Authenticated,
    not_changed,
    passkeys::{self, Adds},
    recovery_code, totp, unavailable,
};
use crate::{
    api::{
        error::ApiError,
        types::{Assurance, MethodList, PasskeyCeremony, PasskeyInfo, RecoveryCodes, Revocation, TotpSecret},
    },
    server::{
        client_info::ClientInfo,
        clock::UnixSeconds,
        db::{
            factors::{MAX_PASSKEYS, NewPasskey, PasskeyRow},
            user_changes::{Change, Factor},
        },
        ids::{PasskeyId, UserId},
    },
};

/// The longest name of a passkey, in characters.
const MAX_NAME: usize = 64;

impl Auth {
    /// The ways in which the bearer's user can sign in.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`].
    pub async fn sign_in_methods(
        &self,
        authenticated: &Authenticated,
        now: UnixSeconds,
    ) -> Result<MethodList, ApiError> {
        let user_id = authenticated.user_id();
        let totp = self.db.totp_of(user_id).await.map_err(unavailable)?;
        let passkeys = self.db.passkeys_of(user_id).await.map_err(unavailable)?;
        let recovery_codes = self.db.count_recovery_codes(user_id).await.map_err(unavailable)?;
        let sign_in = self.db.sign_in_of(authenticated.session_id()).await.map_err(unavailable)?;
        Ok(MethodList {
            now: self.allowlist.shared_time(now),
            totp_added_at: totp.and_then(|(_, added_at)| added_at),
            recovery_codes,
            passkeys: passkeys.into_iter().map(info_of).collect(),
            acr: sign_in.map_or(Assurance::Aal1, |sign_in| sign_in.method.assurance()),
        })
    }

    /// Makes a secret for an authenticator app, which is not in use yet. The caller has checked that the request comes from
    /// the user ([`Auth::require_recent`]).
    ///
    /// # Errors
    /// [`ApiError::Conflict`] when there is an app in use; [`ApiError::TooManyRequests`]; [`ApiError::Unavailable`], also while an instance is running
    /// that does not ask for codes.
    pub async fn begin_totp(
        &self,
        authenticated: &Authenticated,
        now: UnixSeconds,
    ) -> Result<TotpSecret, ApiError> {
        self.require_factors_known()?;
        let (user_id, by) = (authenticated.user_id(), authenticated.session_id());
        let _ = self.throttle.try_session(by).await?;
        let made = totp::new_secret(authenticated.email(), &self.site_name)?;
        match self.db.begin_totp(user_id, &made.secret, by, now).await.map_err(not_changed)? {
            true => Ok(made),
            false => Err(has_totp()),
        }
    }

    /// Takes the authenticator app into use, of which `code` is. Returns the recovery codes.
    ///
    /// # Errors
    /// [`ApiError::InvalidFields`] for a wrong code; [`ApiError::Conflict`] when there is an app in use, or another secret
    /// was made concurrently; [`ApiError::InvalidToken`] when the bearer's session has been revoked concurrently;
    /// [`ApiError::TooManyRequests`]; [`ApiError::Unavailable`] when the change cannot be confirmed.
    pub async fn add_totp(
        &self,
        authenticated: &Authenticated,
        code: &str,
        now: UnixSeconds,
    ) -> Result<RecoveryCodes, ApiError> {
        self.require_factors_known()?;
        let charge = self.throttle.try_session(authenticated.session_id()).await?;
        let user_id = authenticated.user_id();
        let now = self.allowlist.shared_time(now);
        let secret = self.new_totp_secret(user_id).await;
        let checked =
            secret.and_then(|secret| match totp::verify(&secret, &totp::without_spaces(code), now) {
                Some(step) => Ok((secret, step)),
                None => Err(ApiError::invalid_field(
                    "code",
                    "The code is wrong. Enter the six digits that the app shows now.",
                )),
            });
        if !matches!(checked, Err(ApiError::InvalidFields(_))) {
            self.throttle.refund(charge).await;
        }
        let (secret, step) = checked?;
        let (codes, hashes) = recovery_code::new_codes(user_id)?;
        let change = Factor::AddTotp { secret: secret.into(), step, recovery_codes: hashes };
        let added = self.change_factor(authenticated, change, now).await;
        let revocation =
            added.map_err(|error| if error == ApiError::NotFound { no_new_secret() } else { error })?;
        Ok(RecoveryCodes { codes, revocation: Some(revocation) })
    }

    /// The secret of the app that a user is about to add.
    async fn new_totp_secret(&self, user_id: UserId) -> Result<String, ApiError> {
        match self.db.totp_of(user_id).await.map_err(unavailable)? {
            Some((secret, None)) => Ok(secret),
            Some((_, Some(_))) => Err(has_totp()),
            None => Err(no_new_secret()),
        }
    }

    /// Removes the authenticator app and the recovery codes. The caller has checked that the request comes from the user.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] when there is none; [`ApiError::InvalidToken`] when the bearer's session has been revoked
    /// concurrently; [`ApiError::Unavailable`] when the change cannot be confirmed.
    pub async fn remove_totp(
        &self,
        authenticated: &Authenticated,
        now: UnixSeconds,
    ) -> Result<Revocation, ApiError> {
        self.change_factor(authenticated, Factor::RemoveTotp, now).await
    }

    /// Replaces the recovery codes. The caller has checked that the request comes from the user.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] without an authenticator app; [`ApiError::InvalidToken`] when the bearer's session has been
    /// revoked concurrently; [`ApiError::Unavailable`].
    pub async fn renew_recovery_codes(
        &self,
        authenticated: &Authenticated,
        now: UnixSeconds,
    ) -> Result<RecoveryCodes, ApiError> {
        let user_id = authenticated.user_id();
        self.throttle.charge_factor_change(user_id).await?;
        let (codes, hashes) = recovery_code::new_codes(user_id)?;
        let renewed = self.db.renew_recovery_codes(user_id, hashes, authenticated.session_id(), now).await;
        renewed.map_err(not_changed)?;
        info!(user.id = %user_id, "user {user_id} renewed the recovery codes");
        Ok(RecoveryCodes { codes, revocation: None })
    }

    /// Begins to add a passkey. The caller has checked that the request comes from the user.
    ///
    /// # Errors
    /// [`ApiError::Conflict`] when the user has too many; [`ApiError::Unavailable`], also if the site has no name.
    pub async fn begin_passkey(
        &self,
        authenticated: &Authenticated,
        now: UnixSeconds,
    ) -> Result<PasskeyCeremony, ApiError> {
        self.require_factors_known()?;
        let user = self.own_user(authenticated).await?;
        let known = self.db.passkeys_of(user.id).await.map_err(unavailable)?;
        if i64::try_from(known.len()).is_ok_and(|count| count >= MAX_PASSKEYS) {
            return Err(ApiError::Conflict(format!(
                "{MAX_PASSKEYS} passkeys are the most. Remove one first."
            )));
        }
        let adds = Adds { session: authenticated.session_id(), password_version: user.password_version };
        let user = (user.id, user.email.as_str(), adds);
        self.passkeys.begin_registration(&self.ring().keys, user, &known, self.allowlist.shared_time(now))
    }

    /// Adds the passkey that the browser has made in this ceremony, which is one of the bearer's session.
    ///
    /// # Errors
    /// [`ApiError::InvalidFields`] for the name, and when the answer is not accepted; [`ApiError::Conflict`] when the
    /// ceremony was completed before, the passkey is known, or there are too many; [`ApiError::InvalidToken`] when the
    /// bearer's session has been revoked concurrently; [`ApiError::Unavailable`] when the change cannot be confirmed.
    pub async fn add_passkey(
        &self,
        authenticated: &Authenticated,
        answer: (&str, &str),
        name: &str,
        now: UnixSeconds,
    ) -> Result<Revocation, ApiError> {
        self.require_factors_known()?;
        let name = name_of(name)?;
        let shared = self.allowlist.shared_time(now);
        let session_id = authenticated.session_id();
        let made = self.passkeys.finish_registration(&self.ring().keys, answer, session_id, shared);
        let made = made.map_err(as_field("credential"))?;
        let change = Factor::AddPasskey(NewPasskey {
            ceremony: made.ceremony,
            credential_id: made.credential_id,
            name,
            credential: made.credential,
            signatures: made.signatures,
            password_version: made.password_version,
        });
        self.change_factor(authenticated, change, now).await.map_err(|error| match error {
            ApiError::NotFound => ApiError::Conflict(
                "This passkey was added before, or the account has changed meanwhile. Try again.".into(),
            ),
            other => other,
        })
    }

    /// Gives a passkey of the bearer's user another name.
    ///
    /// # Errors
    /// [`ApiError::InvalidFields`] for the name; [`ApiError::NotFound`], [`ApiError::Unavailable`].
    pub async fn rename_passkey(
        &self,
        authenticated: &Authenticated,
        passkey_id: &str,
        name: &str,
    ) -> Result<(), ApiError> {
        let name = name_of(name)?;
        let id: PasskeyId = passkey_id.parse().map_err(|_| ApiError::NotFound)?;
        let renamed = self.db.rename_passkey(authenticated.user_id(), id, &name).await;
        if renamed.map_err(unavailable)? { Ok(()) } else { Err(ApiError::NotFound) }
    }

    /// Removes a passkey. The caller has checked that the request comes from the user.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] when the user has no such passkey; [`ApiError::InvalidToken`] when the bearer's session has
    /// been revoked concurrently; [`ApiError::Unavailable`] when the change cannot be confirmed.
    pub async fn remove_passkey(
        &self,
        authenticated: &Authenticated,
        passkey_id: &str,
        now: UnixSeconds,
    ) -> Result<Revocation, ApiError> {
        let id: PasskeyId = passkey_id.parse().map_err(|_| ApiError::NotFound)?;
        self.change_factor(authenticated, Factor::RemovePasskey(id), now).await
    }

    /// What begins a sign-in with a passkey.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] if the site has no name.
    pub fn begin_passkey_login(&self, now: UnixSeconds) -> Result<PasskeyCeremony, ApiError> {
        self.passkeys.begin_login(&self.ring().keys, self.allowlist.shared_time(now))
    }

    /// Signs the bearer's user in again, with the password and, if needed, a code: a new session begins. The caller ends
    /// the bearer's.
    ///
    /// # Errors
    /// [`ApiError::InvalidFields`] for a wrong password or code; [`ApiError::SecondFactorRequired`] without the code;
    /// [`ApiError::TooManyRequests`], [`ApiError::Unavailable`].
    pub async fn reauthenticate(
        &self,
        authenticated: &Authenticated,
        proof: (SecretString, &str),
        caller: &ClientInfo,
        devices: Option<&str>,
        now: UnixSeconds,
    ) -> Result<TokenPair, ApiError> {
        let begun = self.login(authenticated.email(), proof, caller, devices, now).await;
        begun.map_err(|error| match error {
            error if error == ApiError::wrong_code() => as_field("code")(error),
            ApiError::InvalidGrant(_) => wrong("password"),
            other => other,
        })
    }

    /// The same with a passkey.
    ///
    /// # Errors
    /// [`ApiError::InvalidFields`] when it is not accepted, or of another user; [`ApiError::TooManyRequests`],
    /// [`ApiError::Unavailable`].
    pub async fn reauthenticate_with_passkey(
        &self,
        authenticated: &Authenticated,
        answer: (&str, &str),
        caller: &ClientInfo,
        devices: Option<&str>,
        now: UnixSeconds,
    ) -> Result<TokenPair, ApiError> {
        let charge = self.throttle.try_session(authenticated.session_id()).await?;
        let only = Some(authenticated.user_id());
        let begun = self.begin_with_passkey(answer, only, caller, devices, now).await;
        self.refund_unless_refused(charge, &begun).await;
        begun.map_err(as_field("credential"))
    }

    /// Adds or removes a factor of the bearer's user, and ends all of their other sessions.
    async fn change_factor(
        &self,
        authenticated: &Authenticated,
        change: Factor,
        now: UnixSeconds,
    ) -> Result<Revocation, ApiError> {
        let (user_id, except) = (authenticated.user_id(), authenticated.session_id());
        self.throttle.charge_factor_change(user_id).await?;
        let db = self.db.clone();
        let recording = async move {
            db.change_user(user_id, Change::Factor { change, except }, Some(except), now).await
        };
        let revocation = self.revoke(Whose::User { user_id, except: Some(except) }, recording).await?;
        info!(user.id = %user_id, "user {user_id} changed the ways to sign in");
        Ok(revocation)
    }

    /// Checks that no instance is running that would let the user in without the second factor.
    fn require_factors_known(&self) -> Result<(), ApiError> {
        if allowlist::all_know_factors(&self.allowlist) { Ok(()) } else { Err(ApiError::Unavailable) }
    }
}

fn has_totp() -> ApiError {
    ApiError::Conflict("There is an authenticator app already. Remove it first.".into())
}

fn no_new_secret() -> ApiError {
    ApiError::Conflict(
        "Ask for a secret for your app first: the last one is too old, or was replaced.".into(),
    )
}

fn info_of(row: PasskeyRow) -> PasskeyInfo {
    PasskeyInfo {
        is_backed_up: passkeys::is_backed_up(&row),
        passkey_id: row.id,
        name: row.name,
        created_at: row.created_at,
        last_used_at: row.last_used_at,
        signatures: row.signatures,
    }
}

fn name_of(text: &str) -> Result<String, ApiError> {
    let name = text.trim();
    let is_name = (1..=MAX_NAME).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if is_name {
        Ok(name.to_owned())
    } else {
        Err(ApiError::invalid_field("name", format!("Enter a name of at most {MAX_NAME} characters.")))
    }
}

/// A refusal as an error of a field: the bearer's token is live, so the status is not 401.
fn as_field(name: &'static str) -> impl Fn(ApiError) -> ApiError {
    move |error| match error {
        ApiError::InvalidGrant(words) => ApiError::invalid_field(name, words),
        other => other,
    }
}
