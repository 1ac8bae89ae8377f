//! The calls about the ways in which the bearer's user can sign in: passkeys, an authenticator app, recovery codes.
//! To add or remove one, the user has to have signed in within the last five minutes, with two factors if they have an
//! authenticator app or are an administrator with a passkey. All other sessions of the user are then revoked.

use leptos::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    error::ApiError,
    protocol::FormOrJson,
    types::{
        Accepted, Delivery, MethodList, PasskeyCeremony, RecoveryCodes, Revocation, TokenResponse, TotpSecret,
    },
};
use crate::{ToSchema, client::refresh::RefreshingClient};

/// Returns the passkeys of the bearer's user, and whether they have an authenticator app.
///
/// # Errors
/// 401 without a live token; 503 when it cannot be read.
#[server(
    prefix = "/api", endpoint = "account/sign_in_methods", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn sign_in_methods() -> Result<MethodList, ApiError> {
    crate::server::http::handlers::sign_in_methods().await
}

/// Makes a secret for an authenticator app (RFC 6238: SHA-1, six digits, 30 seconds). It is in use once a code of it was sent
/// to `account/add_totp`.
///
/// # Errors
/// 401 without a live token; 403 `insufficient_user_authentication` without the password, later than five minutes after
/// signing in, or without the second factor of the account; 409 when there is an authenticator app already; 503 while an
/// older version of Hallpass, which does not ask for codes, is still running.
#[server(
    prefix = "/api", endpoint = "account/begin_totp", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn begin_totp(
    /// The password of the user. Not needed within five minutes of signing in, and not enough for a user with an
    /// authenticator app.
    #[server(default)]
    password: String,
) -> Result<TotpSecret, ApiError> {
    crate::server::http::handlers::begin_totp(password).await
}

/// Takes the authenticator app into use, and revokes all other sessions of the bearer's user. Returns recovery codes, which
/// cannot be shown again.
///
/// # Errors
/// 401 without a live token; 403 `insufficient_user_authentication`, as `account/begin_totp`, which has to come first; 409
/// when there is an authenticator app already; 422 when the code is wrong; 429 after too many attempts; 503 when it cannot
/// be confirmed that the sessions are revoked: the app may be in use.
#[server(
    prefix = "/api", endpoint = "account/add_totp", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn add_totp(
    /// The code that the app shows.
    #[server(default)]
    code: String,
    /// The password of the user. Not needed within five minutes of signing in, and not enough for a user with an
    /// authenticator app.
    #[server(default)]
    password: String,
) -> Result<RecoveryCodes, ApiError> {
    crate::server::http::handlers::add_totp(code, password).await
}

/// Removes the authenticator app and the recovery codes, and revokes all other sessions of the bearer's user.
///
/// # Errors
/// 401 without a live token; 403 `insufficient_user_authentication` without the password, later than five minutes after
/// signing in, or without the second factor of the account; 404 when there is none; 503 when it cannot be confirmed that
/// the sessions are revoked: the app may have been removed.
#[server(
    prefix = "/api", endpoint = "account/remove_totp", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn remove_totp(
    /// The password of the user. Not needed within five minutes of signing in, and not enough for a user with an
    /// authenticator app.
    #[server(default)]
    password: String,
) -> Result<Revocation, ApiError> {
    crate::server::http::handlers::remove_totp(password).await
}

/// Replaces the recovery codes by ten new ones.
///
/// # Errors
/// 401 without a live token; 403 `insufficient_user_authentication` without the password, later than five minutes after
/// signing in, or without the second factor of the account; 404 when there is no authenticator app; 503.
#[server(
    prefix = "/api", endpoint = "account/renew_recovery_codes", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn renew_recovery_codes(
    /// The password of the user. Not needed within five minutes of signing in, and not enough for a user with an
    /// authenticator app.
    #[server(default)]
    password: String,
) -> Result<RecoveryCodes, ApiError> {
    crate::server::http::handlers::renew_recovery_codes(password).await
}

/// Begins to add a passkey.
///
/// # Errors
/// 401 without a live token; 403 `insufficient_user_authentication` without the password, later than five minutes after
/// signing in, or without the second factor of the account; 409 when there are too many; 503 when this site has no name
/// that passkeys could be for.
#[server(
    prefix = "/api", endpoint = "account/begin_passkey", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn begin_passkey(
    /// The password of the user. Not needed within five minutes of signing in, and not enough for a user with an
    /// authenticator app.
    #[server(default)]
    password: String,
) -> Result<PasskeyCeremony, ApiError> {
    crate::server::http::handlers::begin_passkey(password).await
}

/// Adds the passkey that the browser has made, and revokes all other sessions of the bearer's user.
///
/// # Errors
/// 401 without a live token; 403 `insufficient_user_authentication`, as `account/begin_passkey`, which has to come first;
/// 409 when it was added before, or there are too many; 422 when the answer is not for this ceremony, or is too late; 503
/// when it cannot be confirmed that the sessions are revoked: the passkey may have been added.
#[server(
    prefix = "/api", endpoint = "account/add_passkey", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn add_passkey(
    /// The ceremony from `/api/account/begin_passkey`.
    #[server(default)]
    ceremony: String,
    /// The credential that the browser has made, as JSON text (`JSON.stringify`).
    #[server(default)]
    credential: String,
    /// A name, by which the user knows the passkey again: at most 64 characters.
    #[server(default)]
    name: String,
) -> Result<Revocation, ApiError> {
    crate::server::http::handlers::add_passkey(ceremony, credential, name).await
}

/// Gives a passkey another name.
///
/// # Errors
/// 401 without a live token; 404 when the user has no such passkey; 422 for the name; 503.
#[server(
    prefix = "/api", endpoint = "account/rename_passkey", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn rename_passkey(
    /// The id of a passkey from `/api/account/sign_in_methods`.
    #[server(default)]
    passkey_id: String,
    /// The new name: at most 64 characters.
    #[server(default)]
    name: String,
) -> Result<Accepted, ApiError> {
    crate::server::http::handlers::rename_passkey(passkey_id, name).await
}

/// Removes a passkey, and revokes all other sessions of the bearer's user.
///
/// # Errors
/// 401 without a live token; 403 `insufficient_user_authentication` without the password, later than five minutes after
/// signing in, or without the second factor of the account; 404 when the user has no such passkey; 503 when it cannot be
/// confirmed that the sessions are revoked: the passkey may have been removed.
#[server(
    prefix = "/api", endpoint = "account/remove_passkey", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn remove_passkey(
    /// The id of a passkey from `/api/account/sign_in_methods`.
    #[server(default)]
    passkey_id: String,
    /// The password of the user. Not needed within five minutes of signing in, and not enough for a user with an
    /// authenticator app.
    #[server(default)]
    password: String,
) -> Result<Revocation, ApiError> {
    crate::server::http::handlers::remove_passkey(passkey_id, password).await
}

/// Signs the bearer's user in again, when a call has answered 403 `insufficient_user_authentication`: a new session begins,
/// with tokens of its own, and the bearer's ends (ASVS 5.0, 7.2.4).
///
/// # Errors
/// 401 without a live token; 403 `second_factor_required` for the right password, if the code is missing; 422 when the
/// password or the code is wrong; 429 after too many attempts; 503.
#[server(
    prefix = "/api", endpoint = "account/reauthenticate", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn reauthenticate(
    /// The password of the user.
    #[server(default)]
    password: String,
    /// The six digits of the authenticator app, or a recovery code, if the account has one.
    #[server(default)]
    code: String,
    /// How the refresh token is delivered.
    #[server(default)]
    delivery: Delivery,
) -> Result<TokenResponse, ApiError> {
    crate::server::http::handlers::reauthenticate(password, code, delivery).await
}

/// The same with a passkey of the bearer's user, after `auth/begin_passkey_login`.
///
/// # Errors
/// 401 without a live token; 422 when the passkey is not accepted, or is of another user; 429 after too many attempts; 503.
#[server(
    prefix = "/api", endpoint = "account/reauthenticate_with_passkey", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn reauthenticate_with_passkey(
    /// The ceremony from `/api/auth/begin_passkey_login`.
    #[server(default)]
    ceremony: String,
    /// The credential that the browser has answered with, as JSON text (`JSON.stringify`).
    #[server(default)]
    credential: String,
    /// How the refresh token is delivered.
    #[server(default)]
    delivery: Delivery,
) -> Result<TokenResponse, ApiError> {
    crate::server::http::handlers::reauthenticate_with_passkey(ceremony, credential, delivery).await
}
