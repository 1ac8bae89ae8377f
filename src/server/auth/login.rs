//! Register and log in: check the password, start a session, issue its first pair of tokens.

use std::collections::BTreeMap;

use hallpass_allowlist::TokenRecord;
use secrecy::{ExposeSecret, SecretString};
use tracing::{error, info};

use super::{
    Auth, TokenPair, allowlist,
    authenticate::Authenticated,
    device_cookie::{self, KnownDevice},
    jwt::Subject,
    passkeys::Passkeys,
    recovery_code, refresh_token, totp, unavailable,
};
use crate::{
    api::{error::ApiError, types::Role},
    server::{
        auth::{
            password::{self, PasswordCheck, Share},
            throttle::Charge,
        },
        client_info::ClientInfo,
        clock::UnixSeconds,
        db::{
            factors::Proof,
            sessions::{NewSession, SignIn, Started},
            sign_ins::NotStarted,
            users::{Added, Email, User},
        },
        ids::{DeviceId, SessionId, TokenId, UserId},
        sign_in_method::SignInMethod,
    },
};

/// The longest password that can be right (128 characters of 4 bytes). A longer one is rejected without
/// hashing.
pub(super) const MAX_PASSWORD_BYTES: usize = 512;

impl Auth {
    /// Creates a user and starts their first session, both or neither. If users have to confirm their address first, it
    /// sends a mail instead, and the answer does not show whether there was an account.
    ///
    /// # Errors
    /// [`ApiError::InvalidFields`], [`ApiError::EmailTaken`], [`ApiError::TooManyRequests`],
    /// [`ApiError::VerificationRequired`], [`ApiError::Unavailable`].
    pub async fn register(
        &self,
        email: &str,
        password: SecretString,
        caller: &ClientInfo,
        now: UnixSeconds,
    ) -> Result<TokenPair, ApiError> {
        // Never refunded: a client that can create one account could create thousands.
        let _ = self.throttle.try_address(caller).await?;
        let email = match (Email::parse(email), password::validate_new_password(&password, email)) {
            (Ok(email), Ok(())) => email,
            (email, password) => return Err(invalid_fields([email.err(), password.err()])),
        };
        let share = Share::of(caller.rate_limit_prefix(), &email);
        let hash = self.passwords.hash(share, password).await?;
        if self.requires_verified {
            self.db.request_registration(&email, hash, now).await.map_err(unavailable)?;
            return Err(ApiError::VerificationRequired);
        }
        let new = new_session(UserId::random(), SignInMethod::Password, caller);
        let adding = self.db.add_user(new.user_id, &email, &hash, Some((new, &self.config)), now);
        let (entry, now) = match adding.await.map_err(unavailable)? {
            Added::Done(Some(started)) => started,
            Added::Done(None) => return Err(ApiError::Internal),
            Added::EmailTaken => return Err(ApiError::EmailTaken),
        };
        let (user, session) = (entry.user_id, entry.session_id);
        info!(user.id = %user, session.id = %session, "user {user} registered, session {session}");
        let sign_in = SignIn { at: now, method: SignInMethod::Password };
        let subject = Subject { email: email.as_str(), role: Role::User, sign_in: Some(sign_in) };
        let pair = self.issue_pair(&entry, subject, 0, self.idle_at(now), now).await?;
        let device = KnownDevice { id: DeviceId::random(), password_version: now };
        Ok(TokenPair { device_token: Some(device_cookie::sign(&self.ring().keys, &email, device)), ..pair })
    }

    /// Starts a session for the holder of the password and, if the user has an authenticator app, of a code of it or a
    /// recovery code. `devices` is the cookie with the tokens that earlier logins gave to this browser
    /// ([`device_cookie`]).
    ///
    /// # Errors
    /// [`ApiError::InvalidGrant`], the same and after the same time for an unknown user, a disabled one and
    /// a wrong password, and for a wrong or used code; for a right password [`ApiError::SecondFactorRequired`] without
    /// the code, and [`ApiError::VerificationRequired`] if the address has to be confirmed first;
    /// [`ApiError::InvalidFields`] for a malformed e-mail address or an empty password;
    /// [`ApiError::TooManyRequests`], [`ApiError::Unavailable`].
    pub async fn login(
        &self,
        email: &str,
        (password, code): (SecretString, &str),
        caller: &ClientInfo,
        devices: Option<&str>,
        now: UnixSeconds,
    ) -> Result<TokenPair, ApiError> {
        let email = Email::parse(email)?;
        if password.expose_secret().is_empty() {
            return Err(ApiError::invalid_field("password", "Enter your password."));
        }
        let device = devices.and_then(|devices| device_cookie::verify(&self.ring().keys, &email, devices));
        let known_device = match device {
            Some(device) => self.still_known(&email, device).await?,
            None => None,
        };
        let charge = self.throttle.try_login(&email, caller, known_device).await?;
        let browser = Browser { device, is_known: known_device.is_some() };
        let begun = self.login_with_password(&email, (password, code), caller, browser, now).await;
        self.refund_unless_refused(charge, &begun).await;
        begun
    }

    /// Charges wrong passwords, codes and passkeys, and right ones beyond their own limit, but not those that could not be
    /// checked.
    pub(super) async fn refund_unless_refused(&self, charge: Charge, begun: &Result<TokenPair, ApiError>) {
        if !matches!(begun, Err(ApiError::InvalidGrant(_) | ApiError::TooManyRequests(_))) {
            self.throttle.refund(charge).await;
        }
    }

    /// The device, unless the password has been changed since the user signed in there.
    async fn still_known(&self, email: &Email, device: KnownDevice) -> Result<Option<DeviceId>, ApiError> {
        let user = self.db.find_user(email).await.map_err(unavailable)?;
        let is_known = user.is_some_and(|user| user.password_version == device.password_version);
        Ok(is_known.then_some(device.id))
    }

    /// Starts a session for the holder of a passkey.
    ///
    /// # Errors
    /// [`ApiError::InvalidGrant`] when the answer is not accepted, or the user may not sign in;
    /// [`ApiError::VerificationRequired`] if the address has to be confirmed first; [`ApiError::TooManyRequests`],
    /// [`ApiError::Unavailable`].
    pub async fn login_with_passkey(
        &self,
        answer: (&str, &str),
        caller: &ClientInfo,
        devices: Option<&str>,
        now: UnixSeconds,
    ) -> Result<TokenPair, ApiError> {
        let charge = self.throttle.try_address(caller).await?;
        let begun = self.begin_with_passkey(answer, None, caller, devices, now).await;
        self.refund_unless_refused(charge, &begun).await;
        begun
    }

    /// With `only`, the passkey has to be one of this user.
    pub(super) async fn begin_with_passkey(
        &self,
        answer: (&str, &str),
        only: Option<UserId>,
        caller: &ClientInfo,
        devices: Option<&str>,
        now: UnixSeconds,
    ) -> Result<TokenPair, ApiError> {
        let credential_id = Passkeys::credential_id(answer.1)?;
        let found = self.db.find_passkey(&credential_id).await.map_err(unavailable)?;
        let (user_id, passkey) = found.ok_or_else(ApiError::wrong_passkey)?;
        if only.is_some_and(|only| only != user_id) {
            return Err(ApiError::wrong_passkey());
        }
        // Read before the passkey is checked: a session begins only if nothing has changed since.
        let user = self.db.find_user_by_id(user_id).await.map_err(unavailable)?;
        let user = user.ok_or_else(ApiError::wrong_passkey)?;
        let (ring, shared) = (self.ring(), self.allowlist.shared_time(now));
        let used = self.passkeys.finish_login(&ring.keys, answer, (user_id, &passkey), shared)?;
        self.throttle.charge_right_password(user.id).await?;
        self.require_verified(&user, now).await?;
        let email = Email::parse(&user.email)?;
        let device = devices.and_then(|devices| device_cookie::verify(&ring.keys, &email, devices));
        let is_known = device.is_some_and(|device| device.password_version == user.password_version);
        let browser = Browser { device, is_known };
        self.begin_session(&user, &email, Proof::Passkey(used), caller, browser, now).await.map_err(|error| {
            if error == ApiError::wrong_credentials() { ApiError::wrong_passkey() } else { error }
        })
    }

    /// Starts a session if the password is right, and the code if one is needed.
    async fn login_with_password(
        &self,
        email: &Email,
        (password, code): (SecretString, &str),
        caller: &ClientInfo,
        browser: Browser,
        now: UnixSeconds,
    ) -> Result<TokenPair, ApiError> {
        if password.expose_secret().len() > MAX_PASSWORD_BYTES {
            return Err(ApiError::wrong_credentials());
        }
        let user = self.db.find_user(email).await.map_err(unavailable)?;
        let stored = user.as_ref().map(|user| user.password_hash.clone());
        let verified =
            self.passwords.verify(Share::of(caller.rate_limit_prefix(), email), password, stored).await?;
        let (Some(user), PasswordCheck::Match { rehashed }) = (user, verified) else {
            return Err(ApiError::wrong_credentials());
        };
        self.throttle.charge_right_password(user.id).await?;
        self.require_verified(&user, now).await?;
        let proof = self.second_factor(&user, code, caller, now).await?;
        let pair = self.begin_session(&user, email, proof, caller, browser, now).await?;
        if let Some(hash) = rehashed {
            // The login succeeds either way; the next one will try again to store the new hash.
            let _ = self.db.rehash(&user, &hash).await.map_err(unavailable);
        }
        Ok(pair)
    }

    /// Sends a mail to a user who has to confirm the address first, if they are one.
    ///
    /// # Errors
    /// [`ApiError::VerificationRequired`] for such a user; [`ApiError::Unavailable`].
    async fn require_verified(&self, user: &User, now: UnixSeconds) -> Result<(), ApiError> {
        if self.requires_verified && user.email_verified_at.is_none() && user.disabled_at.is_none() {
            self.db.request_verification(user, now).await.map_err(unavailable)?;
            return Err(ApiError::VerificationRequired);
        }
        Ok(())
    }

    /// What a user with the right password has proved with this code.
    async fn second_factor(
        &self,
        user: &User,
        code: &str,
        caller: &ClientInfo,
        now: UnixSeconds,
    ) -> Result<Proof, ApiError> {
        let Some(totp) = &user.totp else { return Ok(Proof::Password) };
        let code = totp::without_spaces(code);
        if code.is_empty() {
            return Err(ApiError::SecondFactorRequired);
        }
        if !totp::is_code(&code) {
            return Ok(Proof::RecoveryCode { hash: recovery_code::hash(user.id, &code) });
        }
        match totp::verify(&totp.secret, &code, self.allowlist.shared_time(now)) {
            Some(step) if step > totp.last_step => Ok(Proof::Totp { step }),
            // It was right, so it is no attempt to guess one: a form that was sent twice, for example.
            Some(_) => Err(ApiError::wrong_code()),
            None => Err(self.wrong_code(user, caller, now).await),
        }
    }

    async fn wrong_code(&self, user: &User, caller: &ClientInfo, now: UnixSeconds) -> ApiError {
        match self.db.record_wrong_code(user, caller.device(), now).await {
            Ok(()) => ApiError::wrong_code(),
            // An attempt that is not counted must not tell whether the code was right.
            Err(error) => unavailable(error),
        }
    }

    /// Starts a session for a user who has proved that they are the user, unless what they have shown was used before.
    async fn begin_session(
        &self,
        user: &User,
        email: &Email,
        proof: Proof,
        caller: &ClientInfo,
        browser: Browser,
        now: UnixSeconds,
    ) -> Result<TokenPair, ApiError> {
        let method = proof.method();
        let refused = match &proof {
            Proof::Passkey(_) => Some(ApiError::wrong_passkey()),
            // The code is right: another sign-in with it came first.
            Proof::Password | Proof::Totp { .. } => Some(ApiError::wrong_code()),
            Proof::RecoveryCode { .. } => None,
        };
        let (new, config) = (new_session(user.id, method, caller), &self.config);
        let started = self.db.start_session(new, user, proof, browser.is_known, config, now).await;
        let Started { entry, now, displaced } = match started {
            Ok(started) => started,
            Err(NotStarted::Db(error)) => return Err(unavailable(error)),
            Err(NotStarted::NotEntitled) => return Err(ApiError::wrong_credentials()),
            Err(NotStarted::ProofUsed) => {
                return Err(match refused {
                    Some(refused) => refused,
                    None => self.wrong_code(user, caller, now).await,
                });
            }
        };
        self.allowlist.propagate_later(displaced);
        let (user_id, session) = (entry.user_id, entry.session_id);
        info!(user.id = %user_id, session.id = %session, "user {user_id} logged in, session {session}");
        let sign_in = SignIn { at: now, method };
        let subject = Subject { email: &user.email, role: user.role, sign_in: Some(sign_in) };
        let pair = self.issue_pair(&entry, subject, 0, self.idle_at(now), now).await?;
        // A device keeps its id, and with it the attempts it has been charged for.
        let id = browser.device.map_or_else(DeviceId::random, |device| device.id);
        let device = KnownDevice { id, password_version: user.password_version };
        Ok(TokenPair { device_token: Some(device_cookie::sign(&self.ring().keys, email, device)), ..pair })
    }

    /// The token that replaces the one in `devices` after the password was changed in this browser, so that
    /// the browser stays a known device.
    pub async fn renew_device_token(&self, authenticated: &Authenticated, devices: &str) -> Option<String> {
        let email = Email::parse(authenticated.email()).ok()?;
        let KnownDevice { id, .. } = device_cookie::verify(&self.ring().keys, &email, devices)?;
        let user = self.db.find_user(&email).await.ok()??;
        let device = KnownDevice { id, password_version: user.password_version };
        Some(device_cookie::sign(&self.ring().keys, &email, device))
    }

    /// The time at which a session that starts now expires unless it is refreshed before.
    fn idle_at(&self, now: UnixSeconds) -> UnixSeconds {
        now + self.config.refresh_ttl_seconds.min(self.config.idle_ttl_seconds)
    }

    /// Adds a token that SQL has recorded to the allowlist, and makes the pair for the client.
    pub(super) async fn issue_pair(
        &self,
        entry: &TokenRecord,
        subject: Subject<'_>,
        counter: i64,
        refresh_expires_at: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<TokenPair, ApiError> {
        let is_understood = allowlist::all_know_factors(&self.allowlist);
        let subject = Subject { sign_in: subject.sign_in.filter(|_| is_understood), ..subject };
        let access_token = self.ring().jwt.sign(entry, &subject, now).map_err(|error| {
            error!(%error, "an access token could not be signed: {error}");
            ApiError::Internal
        })?;
        self.allowlist.allow(entry).await;
        Ok(TokenPair {
            access_token,
            refresh_token: refresh_token::sign(&self.ring().keys, entry.session_id, counter),
            session_id: entry.session_id,
            issued_at: now,
            expires_at: entry.expires_at,
            refresh_expires_at,
            device_token: None,
        })
    }
}

/// What a browser has shown about earlier logins to the account.
struct Browser {
    device: Option<KnownDevice>,
    /// Whether that was with the present password.
    is_known: bool,
}

fn new_session(user_id: UserId, method: SignInMethod, caller: &ClientInfo) -> NewSession {
    NewSession {
        session_id: SessionId::random(),
        user_id,
        token_id: TokenId::random(),
        device: caller.device(),
        method,
    }
}

/// Merges the errors of all fields into one response.
pub(super) fn invalid_fields(errors: [Option<ApiError>; 2]) -> ApiError {
    let fields = errors.into_iter().flatten().flat_map(|error| match error {
        ApiError::InvalidFields(fields) => fields,
        _ => BTreeMap::new(),
    });
    ApiError::InvalidFields(fields.collect())
}
