//! The bodies of the server functions: take from the request what a call needs, call
//! [`auth`](super::auth), put into the response what the answer needs. `api/` calls this, and
//! nothing else does.

use axum::http::{HeaderMap, HeaderValue, header::SET_COOKIE, request::Parts};
use leptos::context::use_context;
use leptos_axum::ResponseOptions;

use super::{
    AppState,
    auth::{
        TokenPair, device,
        verify::{Administrator, Authenticated},
    },
    caller::Caller,
    clock,
    cookie::{self, RefreshCookies},
};
use crate::api::{
    error::AuthError,
    types::{
        AccessToken, Account, Delivery, EndReason, RefreshToken, Revocation, Role, SecurityEvents,
        SessionList, StatelessCheck, TokenResponse, UserList,
    },
};

pub async fn register(
    email: String,
    password: String,
    delivery: Delivery,
) -> Result<TokenResponse, AuthError> {
    let door = Door::open()?;
    let now = clock::now();
    let pair = door.state.auth.register(&email, password.into(), &door.caller(), now).await?;
    Ok(door.begin(pair, delivery).await)
}

pub async fn login(email: String, password: String, delivery: Delivery) -> Result<TokenResponse, AuthError> {
    let door = Door::open()?;
    let now = clock::now();
    let devices = cookie::read_device(door.headers(), &door.state);
    let auth = &door.state.auth;
    let pair = auth.login(&email, password.into(), &door.caller(), devices.as_deref(), now).await?;
    Ok(door.begin(pair, delivery).await)
}

pub async fn refresh(in_body: Option<RefreshToken>) -> Result<TokenResponse, AuthError> {
    let door = Door::open()?;
    if let Some(token) = in_body {
        let pair = door.state.auth.refresh(&token, &door.caller(), clock::now).await?;
        return Ok(door.deliver(pair, Delivery::Body));
    }
    let cookies = door.cookies();
    let mut refusal = None;
    for token in &cookies.tokens {
        match door.state.auth.refresh(token, &door.caller(), clock::now).await {
            Ok(pair) => return Ok(door.deliver(pair, Delivery::Cookie)),
            // Another one may be good. The first is ours, if any is, so its reason is the one to tell.
            Err(error @ AuthError::InvalidGrant(_)) => refusal = refusal.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    let Some(refusal) = refusal else { return Err(AuthError::no_refresh_token()) };
    door.forget(&cookies);
    door.settle_logout();
    Err(refusal)
}

pub async fn logout(in_body: Option<RefreshToken>) -> Result<Revocation, AuthError> {
    let door = Door::open()?;
    let cookies = door.cookies();
    let tokens: Vec<_> = in_body.into_iter().chain(cookies.tokens.iter().cloned()).collect();
    let (auth, reason) = (&door.state.auth, EndReason::SignedOut);
    let answer = auth.logout(door.headers(), &tokens, reason, clock::now()).await;
    match &answer {
        Ok(_) => door.clear_cookie(),
        // What is in the cookies is no token of ours.
        Err(AuthError::InvalidToken | AuthError::MissingToken) => door.forget(&cookies),
        Err(_) => {}
    }
    answer
}

pub async fn me() -> Result<Account, AuthError> {
    let door = Door::open()?;
    Ok(door.authenticate().await?.account())
}

pub async fn sessions() -> Result<SessionList, AuthError> {
    let door = Door::open()?;
    door.state.auth.sessions(&door.authenticate().await?, clock::now()).await
}

pub async fn events() -> Result<SecurityEvents, AuthError> {
    let door = Door::open()?;
    door.state.auth.security_events(&door.authenticate().await?, clock::now()).await
}

pub async fn revoke_session(session_id: String) -> Result<Revocation, AuthError> {
    let door = Door::open()?;
    let authenticated = door.authenticate().await?;
    let revocation = door.state.auth.revoke_session(&authenticated, &session_id, clock::now()).await?;
    if session_id == authenticated.session_id().to_string() {
        door.clear_cookie();
    }
    Ok(revocation)
}

pub async fn logout_everywhere(keep_current: bool, password: String) -> Result<Revocation, AuthError> {
    let door = Door::open()?;
    let authenticated = door.authenticate().await?;
    let (auth, now) = (&door.state.auth, clock::now());
    auth.reauthenticate(&authenticated, password.into(), now).await?;
    let revocation = auth.logout_everywhere(&authenticated, keep_current, now).await?;
    if !keep_current {
        door.clear_cookie();
    }
    Ok(revocation)
}

pub async fn change_password(current: String, new: String) -> Result<Revocation, AuthError> {
    let door = Door::open()?;
    let authenticated = door.authenticate().await?;
    let auth = &door.state.auth;
    let revocation = auth.change_password(&authenticated, current.into(), new.into(), clock::now()).await?;
    if let Some(devices) = cookie::read_device(door.headers(), &door.state) {
        door.remember_device(auth.renew_device_token(&authenticated, &devices).await);
    }
    Ok(revocation)
}

pub async fn users(search: String, after: String) -> Result<UserList, AuthError> {
    let (door, administrator) = Door::open_for_administrator().await?;
    for (name, text) in [("search", &search), ("after", &after)] {
        // No address has one, and PostgreSQL takes none.
        if text.contains('\0') {
            return Err(AuthError::invalid_field(name, "Leave the character U+0000 out."));
        }
    }
    door.state.auth.users(&administrator, &search, &after, clock::now()).await
}

pub async fn sessions_of_user(user_id: String) -> Result<SessionList, AuthError> {
    let (door, administrator) = Door::open_for_administrator().await?;
    door.state.auth.sessions_of_user(&administrator, &user_id, clock::now()).await
}

pub async fn disable_user(user_id: String) -> Result<Revocation, AuthError> {
    let (door, administrator) = Door::open_for_administrator().await?;
    door.state.auth.disable_user(&administrator, &user_id, clock::now()).await
}

pub async fn enable_user(user_id: String) -> Result<(), AuthError> {
    let (door, administrator) = Door::open_for_administrator().await?;
    door.state.auth.enable_user(&administrator, &user_id, clock::now()).await
}

pub async fn set_role(user_id: String, role: Option<Role>) -> Result<Revocation, AuthError> {
    let (door, administrator) = Door::open_for_administrator().await?;
    let role = role.ok_or_else(|| AuthError::invalid_field("role", "Choose user or admin."))?;
    door.state.auth.set_role(&administrator, &user_id, role, clock::now()).await
}

pub async fn end_users_session(session_id: String) -> Result<Revocation, AuthError> {
    let (door, administrator) = Door::open_for_administrator().await?;
    door.state.auth.end_users_session(&administrator, &session_id, clock::now()).await
}

pub async fn end_users_sessions(user_id: String) -> Result<Revocation, AuthError> {
    let (door, administrator) = Door::open_for_administrator().await?;
    door.state.auth.end_users_sessions(&administrator, &user_id, clock::now()).await
}

pub async fn end_all_sessions() -> Result<Revocation, AuthError> {
    let (door, administrator) = Door::open_for_administrator().await?;
    door.state.auth.end_all_sessions(&administrator, clock::now()).await
}

pub fn check_statelessly(token: &AccessToken) -> Result<StatelessCheck, AuthError> {
    Ok(Door::open()?.state.auth.check_statelessly(token, clock::now()))
}

/// The request under way and the response it will get.
struct Door {
    state: AppState,
    parts: Parts,
    response: ResponseOptions,
}

impl Door {
    fn open() -> Result<Self, AuthError> {
        match (use_context(), use_context(), use_context()) {
            (Some(state), Some(parts), Some(response)) => Ok(Self { state, parts, response }),
            _ => Err(AuthError::Internal),
        }
    }

    async fn open_for_administrator() -> Result<(Self, Administrator), AuthError> {
        let door = Self::open()?;
        let administrator = door.authenticate().await?.administrator()?;
        Ok((door, administrator))
    }

    fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    async fn authenticate(&self) -> Result<Authenticated, AuthError> {
        self.state.auth.authenticate(self.headers(), clock::now()).await
    }

    fn caller(&self) -> Caller {
        Caller::of(&self.parts, &self.state.config.server.trusted_proxies)
    }

    fn cookies(&self) -> RefreshCookies {
        RefreshCookies::of(self.headers(), &self.state)
    }

    /// Hands out the first pair of a session, and what shows this browser to be known to the account.
    async fn begin(&self, mut pair: TokenPair, delivery: Delivery) -> TokenResponse {
        self.end_previous_session().await;
        let device_token = pair.device_token.take();
        let response = self.deliver(pair, delivery);
        if delivery == Delivery::Cookie {
            self.remember_device(device_token);
            self.settle_logout();
        }
        response
    }

    fn remember_device(&self, token: Option<String>) {
        let devices = cookie::read_device(self.headers(), &self.state);
        let devices = token.map(|token| device::remember(devices.as_deref(), &token));
        self.append_cookie(devices.and_then(|devices| cookie::set_device(&devices, &self.state)));
    }

    /// Ends the session whose cookie the new one replaces: nobody could end it afterwards, for the
    /// browser has forgotten it (ASVS 5.0, 7.2.4). If that fails now, time will end it.
    async fn end_previous_session(&self) {
        let tokens = self.cookies().tokens;
        if !tokens.is_empty() {
            let (nothing_else, reason) = (HeaderMap::new(), EndReason::Replaced);
            let _ = self.state.auth.logout(&nothing_else, &tokens, reason, clock::now()).await;
        }
    }

    fn clear_cookie(&self) {
        self.append_cookie(cookie::clear(&self.state));
        self.cookies().clear_others(&self.state).for_each(|header| self.append_cookie(Some(header)));
        self.settle_logout();
    }

    /// Makes the browser forget what it has sent.
    fn forget(&self, cookies: &RefreshCookies) {
        cookies.clear(self.state.config.server.https).for_each(|header| self.append_cookie(Some(header)));
    }

    /// A log-out that waited to be confirmed waits no more: it is, or its session has been replaced.
    fn settle_logout(&self) {
        cookie::clear_logout_pending(self.headers(), &self.state)
            .for_each(|header| self.append_cookie(Some(header)));
    }

    fn append_cookie(&self, header: Option<HeaderValue>) {
        if let Some(header) = header {
            self.response.append_header(SET_COOKIE, header);
        }
    }

    fn deliver(&self, pair: TokenPair, delivery: Delivery) -> TokenResponse {
        let now = pair.issued_at;
        let refresh_token = match delivery {
            Delivery::Body => Some(pair.refresh_token),
            Delivery::Cookie => {
                let seconds = pair.refresh_expires_at - now;
                self.append_cookie(cookie::set(&pair.refresh_token, seconds, &self.state));
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
