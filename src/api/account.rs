//! The calls that need a live access token.

use leptos::prelude::*;

use super::{
    error::AuthError,
    protocol::FormOrJson,
    types::{Account, Revocation},
};
use crate::client::renew::RenewingClient;

/// What the bearer's own token says. Answered from memory: no database, no network.
///
/// # Errors
/// 401 without a token, or when it is malformed, expired or revoked.
#[server(prefix = "/api", endpoint = "account/me", protocol = FormOrJson, client = RenewingClient)]
pub async fn me() -> Result<Account, AuthError> {
    crate::server::doors::me().await
}

/// Ends all sessions of the bearer's user; with `keep_current`, all but the bearer's own.
///
/// When this answers, no instance accepts any token of theirs.
///
/// # Errors
/// 401 without a live token; 503 when the revocation cannot be made certain: assume that the sessions
/// are alive.
#[server(prefix = "/api", endpoint = "account/logout_everywhere", protocol = FormOrJson, client = RenewingClient)]
pub async fn logout_everywhere(#[server(default)] keep_current: bool) -> Result<Revocation, AuthError> {
    crate::server::doors::logout_everywhere(keep_current).await
}
