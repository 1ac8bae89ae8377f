//! The calls that need a live access token.

use leptos::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    error::ApiError,
    protocol::FormOrJson,
    types::{Accepted, Account, AccountExport, Revocation, SecurityEvents, SessionList, UserProfile},
};
use crate::{ToSchema, client::refresh::RefreshingClient};

/// Returns the claims of the bearer's access token. Normally answered from memory, without a database or
/// network call.
///
/// # Errors
/// 401 without a token, or when it is malformed, expired or revoked; 503 when this cannot be determined.
#[server(
    prefix = "/api", endpoint = "account/me", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn me() -> Result<Account, ApiError> {
    crate::server::http::handlers::me().await
}

/// Lists the live sessions of the bearer's user.
///
/// # Errors
/// 401 without a live token; 503 when the sessions cannot be read.
#[server(
    prefix = "/api", endpoint = "account/sessions", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn sessions() -> Result<SessionList, ApiError> {
    crate::server::http::handlers::sessions().await
}

/// Lists the recent events of the account, newest first: logins, ends of sessions and changes, with their
/// devices.
///
/// # Errors
/// 401 without a live token; 503 when the events cannot be read.
#[server(
    prefix = "/api", endpoint = "account/events", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn events() -> Result<SecurityEvents, ApiError> {
    crate::server::http::handlers::events().await
}

/// Revokes one session of the bearer's user. When this succeeds, no instance accepts any token of the
/// session.
///
/// # Errors
/// 401 without a live token; 404 when the user has no such session; 503 when the revocation cannot be
/// confirmed.
#[server(
    prefix = "/api", endpoint = "account/revoke_session", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn revoke_session(
    /// The id of a session from `/api/account/sessions`.
    #[server(default)]
    session_id: String,
) -> Result<Revocation, ApiError> {
    crate::server::http::handlers::revoke_session(session_id).await
}

/// Revokes all sessions of the bearer's user or, with `keep_current`, all but the bearer's own. The password
/// is needed if the bearer's session began more than five minutes ago (ASVS 5.0, 7.5.2).
///
/// When this succeeds, no instance accepts any token of these sessions.
///
/// # Errors
/// 401 without a live token; 403 `insufficient_user_authentication` when the password is missing; 422 when it
/// is wrong; 429 after too many attempts; 503 when the revocation cannot be confirmed: assume that the
/// sessions are live.
#[server(
    prefix = "/api", endpoint = "account/logout_everywhere", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn logout_everywhere(
    /// Keep the session that makes the request.
    #[server(default)]
    keep_current: bool,
    /// The password of the user. Not needed within five minutes of the login.
    #[server(default)]
    password: String,
) -> Result<Revocation, ApiError> {
    crate::server::http::handlers::logout_everywhere(keep_current, password).await
}

/// Changes the password of the bearer's user, and revokes all of their other sessions.
///
/// # Errors
/// 401 without a live token; 403 `insufficient_user_authentication` for a user with an authenticator app, later than five
/// minutes after signing in with it; 422 with the fields when the current password is wrong or the new one is not
/// accepted; 429 after too many attempts; 503 when it cannot be confirmed that the other sessions are
/// revoked.
#[server(
    prefix = "/api", endpoint = "account/change_password", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn change_password(
    /// The current password.
    #[server(default)]
    current: String,
    /// The new password.
    #[server(default)]
    new: String,
) -> Result<Revocation, ApiError> {
    crate::server::http::handlers::change_password(current, new).await
}

/// Returns the account of the bearer's user.
///
/// # Errors
/// 401 without a live token; 503 when it cannot be read.
#[server(
    prefix = "/api", endpoint = "account/profile", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn profile() -> Result<UserProfile, ApiError> {
    crate::server::http::handlers::profile().await
}

/// Sends the bearer's user another link to confirm their address, unless they have confirmed it. An address gets at most
/// three in a day.
///
/// # Errors
/// 401 without a live token; 429 after too many requests.
#[server(
    prefix = "/api", endpoint = "account/send_verification", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn send_verification() -> Result<Accepted, ApiError> {
    crate::server::http::handlers::send_verification().await
}

/// Sends a link to the new address, which makes it that of the account (`auth/verify_email`). The present address is then
/// told, with a link that undoes it for 72 hours. If another account has the address, the mail says so, and this answer
/// does not.
///
/// # Errors
/// 401 without a live token; 403 `insufficient_user_authentication` without the password, later than five minutes after
/// the login; 422 when the address is malformed or the present one, or the password is wrong; 429 after too many
/// requests.
#[server(
    prefix = "/api", endpoint = "account/change_email", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn change_email(
    /// The new address.
    #[server(default)]
    email: String,
    /// The password of the user. Not needed within five minutes of the login.
    #[server(default)]
    password: String,
) -> Result<Accepted, ApiError> {
    crate::server::http::handlers::change_email(email, password).await
}

/// Revokes all sessions of the bearer's user and deletes the account. What remains for as long as a token could still be
/// presented: random ids and times.
///
/// # Errors
/// 401 without a live token; 403 `insufficient_user_authentication` without the password, later than five minutes after
/// the login; 409 for the only administrator; 422 when the password is wrong; 429 after too many attempts; 503 when it
/// cannot be confirmed that the sessions are revoked: the account may have been deleted.
#[server(
    prefix = "/api", endpoint = "account/delete", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn delete(
    /// The password of the user. Not needed within five minutes of the login.
    #[server(default)]
    password: String,
) -> Result<Revocation, ApiError> {
    crate::server::http::handlers::delete_account(password).await
}

/// Returns what is kept about the bearer's user, except for the hash of the password and links that were sent and not used.
/// Of more than 100,000 sessions, the latest.
///
/// # Errors
/// 401 without a live token; 429 after too many exports; 503 when it cannot be read.
#[server(
    prefix = "/api", endpoint = "account/export", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn export() -> Result<AccountExport, ApiError> {
    crate::server::http::handlers::export().await
}
