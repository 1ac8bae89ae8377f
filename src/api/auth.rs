//! Register, log in, refresh, log out: the calls that are open to anyone.
//!
//! The words for tokens are OAuth's, yet the entry is called `login` and not a token endpoint
//! with `grant_type=password`: RFC 9700, 2.4, rules that grant out, and a first-party log-in is
//! not a delegation.

use leptos::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    error::ApiError,
    protocol::FormOrJson,
    types::{Delivery, RefreshToken, Revocation, TokenResponse},
};
use crate::{ToSchema, client::bearer::BearerClient};

/// Creates an account and signs it in.
///
/// # Errors
/// 409 when the address is taken; 422 with the fields when the address or the password cannot be
/// accepted; 429 when tried too often.
#[server(
    prefix = "/api", endpoint = "auth/register", protocol = FormOrJson,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn register(
    email: String,
    /// 8 to 128 characters of any kind, and none of the commonest passwords.
    password: String,
    #[server(default)] delivery: Delivery,
) -> Result<TokenResponse, ApiError> {
    crate::server::http::handlers::register(email, password, delivery).await
}

/// Exchanges an e-mail address and a password for a pair of tokens, in a new session.
///
/// # Errors
/// 401 `invalid_grant`, the same for an unknown user and a wrong password; 429 when tried too
/// often.
#[server(
    prefix = "/api", endpoint = "auth/login", protocol = FormOrJson,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn login(
    email: String,
    password: String,
    #[server(default)] delivery: Delivery,
) -> Result<TokenResponse, ApiError> {
    crate::server::http::handlers::login(email, password, delivery).await
}

/// Exchanges the session's refresh token, from the cookie or the body, for the next pair. The
/// answer brings the next refresh token the way this one came.
///
/// # Errors
/// 401 `invalid_grant` when it is forged, used up, or its session has ended.
#[server(
    prefix = "/api", endpoint = "auth/refresh", protocol = FormOrJson,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn refresh(
    /// Without it, the cookie counts.
    #[server(default)]
    refresh_token: Option<RefreshToken>,
) -> Result<TokenResponse, ApiError> {
    crate::server::http::handlers::refresh(refresh_token).await
}

/// Ends the session of every token that came with the request: the bearer (an expired one will
/// do), the cookie, the refresh token in the body. Succeeds again when the session has ended
/// already (RFC 7009, 2.2).
///
/// When this answers, no instance accepts any token of the session.
///
/// # Errors
/// 401 when no token came or none was ever ours; 503 when the revocation cannot be made certain:
/// assume that the session is alive (RFC 7009, 2.2.1).
#[server(
    prefix = "/api", endpoint = "auth/logout", protocol = FormOrJson, client = BearerClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn logout(#[server(default)] refresh_token: Option<RefreshToken>) -> Result<Revocation, ApiError> {
    crate::server::http::handlers::logout(refresh_token).await
}
