//! The calls that need a live access token.

use leptos::prelude::*;

use super::{error::AuthError, protocol::FormOrJson, types::Account};
use crate::client::renew::RenewingClient;

/// What the bearer's own token says. Answered from memory: no database, no network.
///
/// # Errors
/// 401 without a token, or when it is malformed, expired or revoked.
#[server(prefix = "/api", endpoint = "account/me", protocol = FormOrJson, client = RenewingClient)]
pub async fn me() -> Result<Account, AuthError> {
    crate::server::doors::me().await
}
