//! The handlers. Each takes from the request what a call needs, calls [`auth`](crate::server::auth), and adds
//! to the response what the answer needs. Only `api/` calls them.

use axum::http::HeaderMap;

use crate::{
    api::{
        error::ApiError,
        types::{
            Accepted, AccessToken, Account, AccountExport, ClientList, Confirmation, Delivery, EndReason,
            MethodList, PasskeyCeremony, RecoveryCodes, RefreshToken, Revocation, Role, SecurityEvents,
            SessionList, StatelessCheck, TokenResponse, TotpSecret, UserList, UserProfile,
        },
    },
    server::{
        auth::{TokenPair, authenticate::Authenticated, device_cookie},
        client_info::ClientInfo,
        clock,
        db::users::Email,
        http::{
            cookie::{self, RefreshCookies},
            request_context::RequestContext,
        },
    },
};

pub async fn register(
    email: String,
    password: String,
    delivery: Delivery,
) -> Result<TokenResponse, ApiError> {
    let context = RequestContext::current()?;
    let now = clock::now();
    let pair = context.state.auth.register(&email, password.into(), &context.caller(), now).await?;
    Ok(context.begin(pair, delivery).await)
}

pub async fn login(
    email: String,
    password: String,
    code: String,
    delivery: Delivery,
) -> Result<TokenResponse, ApiError> {
    let context = RequestContext::current()?;
    let (auth, devices, now) = (&context.state.auth, context.devices(), clock::now());
    let proof = (password.into(), code.as_str());
    let pair = auth.login(&email, proof, &context.caller(), devices.as_deref(), now).await?;
    Ok(context.begin(pair, delivery).await)
}

pub async fn begin_passkey_login() -> Result<PasskeyCeremony, ApiError> {
    RequestContext::current()?.state.auth.begin_passkey_login(clock::now())
}

pub async fn login_with_passkey(
    ceremony: String,
    credential: String,
    delivery: Delivery,
) -> Result<TokenResponse, ApiError> {
    let context = RequestContext::current()?;
    let (auth, devices, now) = (&context.state.auth, context.devices(), clock::now());
    let answer = (ceremony.as_str(), credential.as_str());
    let pair = auth.login_with_passkey(answer, &context.caller(), devices.as_deref(), now).await?;
    Ok(context.begin(pair, delivery).await)
}

pub async fn refresh(in_body: Option<RefreshToken>) -> Result<TokenResponse, ApiError> {
    let context = RequestContext::current()?;
    if let Some(token) = in_body {
        let pair = context.state.auth.refresh(&token, &context.caller(), clock::now).await?;
        return Ok(context.deliver(pair, Delivery::Body));
    }
    let cookies = context.cookies();
    let mut refusal = None;
    for token in &cookies.tokens {
        match context.state.auth.refresh(token, &context.caller(), clock::now).await {
            Ok(pair) => return Ok(context.deliver(pair, Delivery::Cookie)),
            // Another token may be accepted. The first one was issued here, if any was, so its error is
            // returned.
            Err(error @ ApiError::InvalidGrant(_)) => refusal = refusal.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    let Some(refusal) = refusal else { return Err(ApiError::no_refresh_token()) };
    // When another tab has signed in again, the cookies of the new session have the same names, and must stay.
    if refusal != ApiError::InvalidGrant(EndReason::Replaced.words().into()) {
        context.forget(&cookies);
        context.settle_logout();
    }
    Err(refusal)
}

pub async fn logout(in_body: Option<RefreshToken>) -> Result<Revocation, ApiError> {
    let context = RequestContext::current()?;
    let cookies = context.cookies();
    let tokens: Vec<_> = in_body.into_iter().chain(cookies.tokens.iter().cloned()).collect();
    let (auth, reason) = (&context.state.auth, EndReason::SignedOut);
    let answer = auth.logout(context.headers(), &tokens, reason, clock::now()).await;
    match &answer {
        Ok(revocation) => {
            context.clear_cookie();
            if context.is_form {
                context.append_cookie(cookie::set_signed_out(revocation, &context.state));
            }
        }
        // The cookies contain no token that was issued here.
        Err(ApiError::InvalidToken | ApiError::MissingToken) => context.forget(&cookies),
        Err(_) => {}
    }
    answer
}

pub async fn forgot_password(email: String) -> Result<Accepted, ApiError> {
    let context = RequestContext::current()?;
    context.state.auth.forgot_password(&email, &context.caller(), clock::now()).await?;
    Ok(Accepted {})
}

pub async fn reset_password(token: String, password: String) -> Result<Revocation, ApiError> {
    let context = RequestContext::current()?;
    context.state.auth.reset_password(&token, password.into(), clock::now()).await
}

pub async fn verify_email(token: String, password: String) -> Result<Confirmation, ApiError> {
    let context = RequestContext::current()?;
    context.state.auth.verify_email(&token, password.into(), &context.caller(), clock::now()).await
}

pub async fn me() -> Result<Account, ApiError> {
    let context = RequestContext::current()?;
    Ok(context.authenticate().await?.account())
}

pub async fn sessions() -> Result<SessionList, ApiError> {
    let context = RequestContext::current()?;
    context.state.auth.sessions(&context.authenticate().await?, clock::now()).await
}

pub async fn events() -> Result<SecurityEvents, ApiError> {
    let context = RequestContext::current()?;
    context.state.auth.security_events(&context.authenticate().await?, clock::now()).await
}

pub async fn revoke_session(session_id: String) -> Result<Revocation, ApiError> {
    let context = RequestContext::current()?;
    let authenticated = context.authenticate().await?;
    let revocation = context.state.auth.revoke_session(&authenticated, &session_id, clock::now()).await?;
    if session_id == authenticated.session_id().to_string() {
        context.clear_cookie();
    }
    Ok(revocation)
}

pub async fn logout_everywhere(keep_current: bool, password: String) -> Result<Revocation, ApiError> {
    let (context, authenticated) = RequestContext::require_recent(password).await?;
    let auth = &context.state.auth;
    let revocation = auth.logout_everywhere(&authenticated, keep_current, clock::now()).await?;
    if !keep_current {
        context.clear_cookie();
    }
    Ok(revocation)
}

pub async fn change_password(current: String, new: String) -> Result<Revocation, ApiError> {
    let context = RequestContext::current()?;
    let authenticated = context.authenticate().await?;
    let auth = &context.state.auth;
    let revocation = auth.change_password(&authenticated, current.into(), new.into(), clock::now()).await?;
    context.renew_device_token(&authenticated).await;
    Ok(revocation)
}

pub async fn profile() -> Result<UserProfile, ApiError> {
    let context = RequestContext::current()?;
    context.state.auth.profile(&context.authenticate().await?).await
}

pub async fn send_verification() -> Result<Accepted, ApiError> {
    let context = RequestContext::current()?;
    let authenticated = context.authenticate().await?;
    context.state.auth.send_verification(&authenticated, &context.caller(), clock::now()).await?;
    Ok(Accepted {})
}

pub async fn change_email(email: String, password: String) -> Result<Accepted, ApiError> {
    let context = RequestContext::current()?;
    let authenticated = context.authenticate().await?;
    let (auth, now) = (&context.state.auth, clock::now());
    let email = Email::parse(&email)?;
    auth.require_recent(&authenticated, password.into(), now).await?;
    auth.change_email(&authenticated, &email, &context.caller(), now).await?;
    Ok(Accepted {})
}

pub async fn delete_account(password: String) -> Result<Revocation, ApiError> {
    let (context, authenticated) = RequestContext::require_recent(password).await?;
    let revocation = context.state.auth.delete_account(&authenticated, clock::now()).await?;
    context.clear_cookie();
    Ok(revocation)
}

pub async fn export() -> Result<AccountExport, ApiError> {
    let context = RequestContext::current()?;
    context.state.auth.export(&context.authenticate().await?, clock::now()).await
}

pub async fn sign_in_methods() -> Result<MethodList, ApiError> {
    let context = RequestContext::current()?;
    context.state.auth.sign_in_methods(&context.authenticate().await?, clock::now()).await
}

pub async fn begin_totp(password: String) -> Result<TotpSecret, ApiError> {
    let (context, authenticated) = RequestContext::require_recent(password).await?;
    context.state.auth.begin_totp(&authenticated, clock::now()).await
}

pub async fn add_totp(code: String, password: String) -> Result<RecoveryCodes, ApiError> {
    let (context, authenticated) = RequestContext::require_recent(password).await?;
    let codes = context.state.auth.add_totp(&authenticated, &code, clock::now()).await?;
    context.renew_device_token(&authenticated).await;
    Ok(codes)
}

pub async fn remove_totp(password: String) -> Result<Revocation, ApiError> {
    let (context, authenticated) = RequestContext::require_recent(password).await?;
    let revocation = context.state.auth.remove_totp(&authenticated, clock::now()).await?;
    context.renew_device_token(&authenticated).await;
    Ok(revocation)
}

pub async fn renew_recovery_codes(password: String) -> Result<RecoveryCodes, ApiError> {
    let (context, authenticated) = RequestContext::require_recent(password).await?;
    context.state.auth.renew_recovery_codes(&authenticated, clock::now()).await
}

pub async fn begin_passkey(password: String) -> Result<PasskeyCeremony, ApiError> {
    let (context, authenticated) = RequestContext::require_recent(password).await?;
    context.state.auth.begin_passkey(&authenticated, clock::now()).await
}

pub async fn add_passkey(ceremony: String, credential: String, name: String) -> Result<Revocation, ApiError> {
    let context = RequestContext::current()?;
    // The ceremony shows that the user has signed in recently: it is of this session, and lasts five minutes.
    let authenticated = context.authenticate().await?;
    let answer = (ceremony.as_str(), credential.as_str());
    let revocation = context.state.auth.add_passkey(&authenticated, answer, &name, clock::now()).await?;
    context.renew_device_token(&authenticated).await;
    Ok(revocation)
}

pub async fn rename_passkey(passkey_id: String, name: String) -> Result<Accepted, ApiError> {
    let context = RequestContext::current()?;
    let authenticated = context.authenticate().await?;
    context.state.auth.rename_passkey(&authenticated, &passkey_id, &name).await?;
    Ok(Accepted {})
}

pub async fn remove_passkey(passkey_id: String, password: String) -> Result<Revocation, ApiError> {
    let (context, authenticated) = RequestContext::require_recent(password).await?;
    let revocation = context.state.auth.remove_passkey(&authenticated, &passkey_id, clock::now()).await?;
    context.renew_device_token(&authenticated).await;
    Ok(revocation)
}

pub async fn reauthenticate(
    password: String,
    code: String,
    delivery: Delivery,
) -> Result<TokenResponse, ApiError> {
    let context = RequestContext::current()?;
    let authenticated = context.authenticate().await?;
    let (auth, devices, now) = (&context.state.auth, context.devices(), clock::now());
    let (caller, proof) = (context.caller(), (password.into(), code.as_str()));
    let pair = auth.reauthenticate(&authenticated, proof, &caller, devices.as_deref(), now).await?;
    Ok(context.begin_in_place_of(&authenticated, pair, delivery).await)
}

pub async fn reauthenticate_with_passkey(
    ceremony: String,
    credential: String,
    delivery: Delivery,
) -> Result<TokenResponse, ApiError> {
    let context = RequestContext::current()?;
    let authenticated = context.authenticate().await?;
    let (auth, devices, now) = (&context.state.auth, context.devices(), clock::now());
    let (caller, answer) = (context.caller(), (ceremony.as_str(), credential.as_str()));
    let pair =
        auth.reauthenticate_with_passkey(&authenticated, answer, &caller, devices.as_deref(), now).await?;
    Ok(context.begin_in_place_of(&authenticated, pair, delivery).await)
}

pub async fn users(search: String, after: String) -> Result<UserList, ApiError> {
    let (context, administrator) = RequestContext::require_admin().await?;
    for (name, text) in [("search", &search), ("after", &after)] {
        // No address contains U+0000, and PostgreSQL does not accept it.
        if text.contains('\0') {
            return Err(ApiError::invalid_field(name, "Leave the character U+0000 out."));
        }
    }
    context.state.auth.users(&administrator, &search, &after, clock::now()).await
}

pub async fn sessions_of_user(user_id: String) -> Result<SessionList, ApiError> {
    let (context, administrator) = RequestContext::require_admin().await?;
    context.state.auth.sessions_of_user(&administrator, &user_id, clock::now()).await
}

pub async fn clients() -> Result<ClientList, ApiError> {
    let (context, administrator) = RequestContext::require_admin().await?;
    context.state.auth.clients(&administrator, clock::now()).await
}

pub async fn disable_user(user_id: String) -> Result<Revocation, ApiError> {
    let (context, administrator) = RequestContext::require_confirmed_admin().await?;
    context.state.auth.disable_user(&administrator, &user_id, clock::now()).await
}

pub async fn enable_user(user_id: String) -> Result<(), ApiError> {
    let (context, administrator) = RequestContext::require_confirmed_admin().await?;
    context.state.auth.enable_user(&administrator, &user_id, clock::now()).await
}

pub async fn set_role(user_id: String, role: Option<Role>) -> Result<Revocation, ApiError> {
    let (context, administrator) = RequestContext::require_confirmed_admin().await?;
    let role = role.ok_or_else(|| ApiError::invalid_field("role", "Choose user or admin."))?;
    context.state.auth.set_role(&administrator, &user_id, role, clock::now()).await
}

pub async fn end_users_session(session_id: String) -> Result<Revocation, ApiError> {
    let (context, administrator) = RequestContext::require_confirmed_admin().await?;
    context.state.auth.end_users_session(&administrator, &session_id, clock::now()).await
}

pub async fn end_users_sessions(user_id: String) -> Result<Revocation, ApiError> {
    let (context, administrator) = RequestContext::require_confirmed_admin().await?;
    context.state.auth.end_users_sessions(&administrator, &user_id, clock::now()).await
}

pub async fn end_all_sessions() -> Result<Revocation, ApiError> {
    let (context, administrator) = RequestContext::require_confirmed_admin().await?;
    context.state.auth.end_all_sessions(&administrator, clock::now()).await
}

pub fn check_statelessly(token: &AccessToken) -> Result<StatelessCheck, ApiError> {
    Ok(RequestContext::current()?.state.auth.check_statelessly(token, clock::now()))
}

impl RequestContext {
    fn caller(&self) -> ClientInfo {
        ClientInfo::of(&self.parts, &self.state.config.server.trusted_proxies)
    }

    fn cookies(&self) -> RefreshCookies {
        RefreshCookies::of(self.headers(), &self.state)
    }

    /// Delivers the first pair of a session and the device cookie. Ends the previous session of the browser.
    async fn begin(&self, mut pair: TokenPair, delivery: Delivery) -> TokenResponse {
        self.end_previous_session().await;
        let device_token = pair.device_token.take();
        let response = self.deliver(pair, delivery);
        if delivery == Delivery::Cookie {
            self.remember_device(device_token);
            self.settle_logout();
            cookie::clear_signed_out(self.headers(), &self.state)
                .for_each(|header| self.append_cookie(Some(header)));
        }
        response
    }

    /// The same, and ends the bearer's session, which need not be that of a cookie.
    async fn begin_in_place_of(
        &self,
        authenticated: &Authenticated,
        pair: TokenPair,
        delivery: Delivery,
    ) -> TokenResponse {
        // If it fails, the session lasts until it expires.
        let _ = self.state.auth.replace_session(authenticated, clock::now()).await;
        self.begin(pair, delivery).await
    }

    /// The cookie with the tokens of this browser as a known device.
    fn devices(&self) -> Option<String> {
        cookie::read_device(self.headers(), &self.state)
    }

    /// Keeps this browser a known device after what the user signs in with was changed in it.
    async fn renew_device_token(&self, authenticated: &Authenticated) {
        if let Some(devices) = self.devices() {
            self.remember_device(self.state.auth.renew_device_token(authenticated, &devices).await);
        }
    }

    fn remember_device(&self, token: Option<String>) {
        let devices = self.devices();
        let devices = token.map(|token| device_cookie::remember(devices.as_deref(), &token));
        self.append_cookie(devices.and_then(|devices| cookie::set_device(&devices, &self.state)));
    }

    /// Revokes the session whose cookie is replaced by the new one. Afterwards nobody could, because the
    /// browser no longer has its token (ASVS 5.0, 7.2.4). If the revocation fails, the session lasts until it
    /// expires.
    async fn end_previous_session(&self) {
        let tokens = self.cookies().tokens;
        if !tokens.is_empty() {
            let (nothing_else, reason) = (HeaderMap::new(), EndReason::Replaced);
            let _ = self.state.auth.logout(&nothing_else, &tokens, reason, clock::now()).await;
        }
    }

    fn clear_cookie(&self) {
        cookie::clear(&self.state).for_each(|header| self.append_cookie(Some(header)));
        self.cookies().clear_others(&self.state).for_each(|header| self.append_cookie(Some(header)));
        self.settle_logout();
    }

    /// Deletes the cookies that the browser has sent.
    fn forget(&self, cookies: &RefreshCookies) {
        cookies.clear(self.state.config.server.https).for_each(|header| self.append_cookie(Some(header)));
    }

    /// Deletes the cookie of a pending logout: the logout is confirmed, or its session has ended or was
    /// replaced.
    fn settle_logout(&self) {
        cookie::clear_logout_pending(self.headers(), &self.state)
            .for_each(|header| self.append_cookie(Some(header)));
    }

    fn deliver(&self, pair: TokenPair, delivery: Delivery) -> TokenResponse {
        let now = pair.issued_at;
        let refresh_token = match delivery {
            Delivery::Body => Some(pair.refresh_token),
            Delivery::Cookie => {
                let seconds = pair.refresh_expires_at - now;
                cookie::set(&pair.refresh_token, pair.session_id, seconds, &self.state)
                    .for_each(|header| self.append_cookie(Some(header)));
                self.cookies().clear_others(&self.state).for_each(|header| self.append_cookie(Some(header)));
                None
            }
        };
        TokenResponse {
            access_token: pair.access_token,
            token_type: "Bearer".into(),
            expires_in: pair.expires_at - now,
            server_time: clock::now(),
            session_id: pair.session_id.to_string(),
            refresh_token,
        }
    }
}
