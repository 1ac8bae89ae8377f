//! The bodies of the server functions: take from the request what a call needs, call
//! [`auth`](super::auth), put into the response what the answer needs. `api/` calls this, and
//! nothing else does.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::{
    extract::ConnectInfo,
    http::{HeaderMap, header::SET_COOKIE, request::Parts},
};
use leptos::context::use_context;
use leptos_axum::ResponseOptions;

use super::{
    AppState,
    auth::{TokenPair, verify::Authenticated},
    clock, cookie,
};
use crate::api::{
    error::AuthError,
    types::{Account, Delivery, RefreshToken, Revocation, TokenResponse},
};

pub async fn register(
    email: String,
    password: String,
    delivery: Delivery,
) -> Result<TokenResponse, AuthError> {
    let door = Door::open()?;
    let now = clock::now();
    let pair = door.state.auth.register(&email, password.into(), door.address(), now).await?;
    door.end_previous_session().await;
    Ok(door.deliver(pair, delivery))
}

pub async fn login(email: String, password: String, delivery: Delivery) -> Result<TokenResponse, AuthError> {
    let door = Door::open()?;
    let now = clock::now();
    let pair = door.state.auth.login(&email, password.into(), door.address(), now).await?;
    door.end_previous_session().await;
    Ok(door.deliver(pair, delivery))
}

pub async fn refresh(in_body: Option<RefreshToken>) -> Result<TokenResponse, AuthError> {
    let door = Door::open()?;
    let delivery = if in_body.is_some() { Delivery::Body } else { Delivery::Cookie };
    let token = in_body.or_else(|| door.cookie()).ok_or_else(AuthError::dead_refresh_token)?;
    match door.state.auth.refresh(&token, clock::now).await {
        Ok(pair) => Ok(door.deliver(pair, delivery)),
        Err(error) => {
            if delivery == Delivery::Cookie && matches!(error, AuthError::InvalidGrant(_)) {
                door.clear_cookie();
            }
            Err(error)
        }
    }
}

pub async fn logout(in_body: Option<RefreshToken>) -> Result<Revocation, AuthError> {
    let door = Door::open()?;
    let tokens: Vec<_> = in_body.into_iter().chain(door.cookie()).collect();
    let revocation = door.state.auth.logout(door.headers(), &tokens, clock::now()).await?;
    door.clear_cookie();
    Ok(revocation)
}

pub async fn me() -> Result<Account, AuthError> {
    let door = Door::open()?;
    Ok(door.authenticate().await?.account())
}

pub async fn logout_everywhere(keep_current: bool) -> Result<Revocation, AuthError> {
    let door = Door::open()?;
    let authenticated = door.authenticate().await?;
    let revocation = door.state.auth.logout_everywhere(&authenticated, keep_current, clock::now()).await?;
    if !keep_current {
        door.clear_cookie();
    }
    Ok(revocation)
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

    fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    async fn authenticate(&self) -> Result<Authenticated, AuthError> {
        self.state.auth.authenticate(self.headers(), clock::now()).await
    }

    /// Who is calling: the peer of the connection. What a header claims is not asked.
    fn address(&self) -> IpAddr {
        let peer = self.parts.extensions.get::<ConnectInfo<SocketAddr>>();
        peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(address)| address.ip())
    }

    fn https(&self) -> bool {
        self.state.config.server.https
    }

    fn cookie(&self) -> Option<RefreshToken> {
        cookie::read(self.headers(), self.https())
    }

    /// Ends the session whose cookie the new one replaces: nobody could end it afterwards, for the
    /// browser has forgotten it (ASVS 5.0, 7.2.4). If that fails now, time will end it.
    async fn end_previous_session(&self) {
        if let Some(token) = self.cookie() {
            let _ = self.state.auth.logout(&HeaderMap::new(), &[token], clock::now()).await;
        }
    }

    fn clear_cookie(&self) {
        if let Some(header) = cookie::clear(self.https()) {
            self.response.append_header(SET_COOKIE, header);
        }
    }

    fn deliver(&self, pair: TokenPair, delivery: Delivery) -> TokenResponse {
        let now = clock::now();
        let refresh_token = match delivery {
            Delivery::Body => Some(pair.refresh_token),
            Delivery::Cookie => {
                let header = cookie::set(&pair.refresh_token, pair.session_expires_at - now, self.https());
                if let Some(header) = header {
                    self.response.append_header(SET_COOKIE, header);
                }
                None
            }
        };
        TokenResponse {
            access_token: pair.access_token,
            token_type: "Bearer".into(),
            expires_in: pair.expires_at - now,
            server_time: now,
            session_id: pair.session_id.to_string(),
            refresh_token,
        }
    }
}
