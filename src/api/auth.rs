//! The calls that are open to anyone: register, log in, refresh, log out, and those with the token of a mail.
//!
//! The terms for tokens are those of OAuth, but the entry is called `login` and is not a token endpoint with
//! `grant_type=password`: RFC 9700, 2.4, forbids that grant, and a first-party login is not a delegation.

use leptos::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    error::ApiError,
    protocol::FormOrJson,
    types::{Accepted, Confirmation, Delivery, PasskeyCeremony, RefreshToken, Revocation, TokenResponse},
};
use crate::{ToSchema, client::bearer::BearerClient};

/// Creates an account and starts its first session.
///
/// # Errors
/// 409 when the address is taken; 403 `verification_required`, whether it is taken or not, if this site lets only
/// confirmed addresses in: the rest is in the mail that was sent; 422 with the fields when the address or the password is not accepted; 429
/// after too many attempts.
#[server(
    prefix = "/api", endpoint = "auth/register", protocol = FormOrJson,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn register(
    /// The e-mail address of the new user.
    email: String,
    /// 8 to 128 characters of any kind; not one of the most common passwords, and not the e-mail address.
    password: String,
    #[server(default)] delivery: Delivery,
) -> Result<TokenResponse, ApiError> {
    crate::server::http::handlers::register(email, password, delivery).await
}

/// Exchanges an e-mail address and a password for a pair of tokens, in a new session. If the account has an authenticator
/// app, also a code of it, or a recovery code.
///
/// # Errors
/// 401 `invalid_grant`, the same for an unknown user and a wrong password, and for a code that is wrong or was used; for
/// the right password 403 `second_factor_required`, if the code is missing, and `verification_required`, if the address
/// has to be confirmed first, by the mail that was sent; 422 with the fields when the address is malformed or the password
/// is empty; 429 after too many attempts.
#[server(
    prefix = "/api", endpoint = "auth/login", protocol = FormOrJson,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn login(
    /// The e-mail address of the user.
    email: String,
    /// The password of the user.
    password: String,
    /// The six digits of the authenticator app, or a recovery code.
    #[server(default)]
    code: String,
    #[server(default)] delivery: Delivery,
) -> Result<TokenResponse, ApiError> {
    crate::server::http::handlers::login(email, password, code, delivery).await
}

/// Begins a sign-in with a passkey, of whichever user the browser has one.
///
/// # Errors
/// 503 when this site has no name that passkeys could be for.
#[server(
    prefix = "/api", endpoint = "auth/begin_passkey_login", protocol = FormOrJson,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn begin_passkey_login() -> Result<PasskeyCeremony, ApiError> {
    crate::server::http::handlers::begin_passkey_login().await
}

/// Exchanges the answer of a passkey for a pair of tokens, in a new session.
///
/// # Errors
/// 401 `invalid_grant` when the passkey is unknown, or its answer is not for this ceremony, is too late, or was used;
/// 403 `verification_required`; 429 after too many attempts.
#[server(
    prefix = "/api", endpoint = "auth/login_with_passkey", protocol = FormOrJson,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn login_with_passkey(
    /// The ceremony from `/api/auth/begin_passkey_login`.
    ceremony: String,
    /// The credential that the browser has answered with, as JSON text (`JSON.stringify`).
    credential: String,
    #[server(default)] delivery: Delivery,
) -> Result<TokenResponse, ApiError> {
    crate::server::http::handlers::login_with_passkey(ceremony, credential, delivery).await
}

/// Exchanges the session's refresh token, from the cookie or the body, for the next pair. The next refresh
/// token is delivered in the same way as this one.
///
/// # Errors
/// 401 `invalid_grant` when the token is forged or was used before, or its session has ended; 429 after too
/// many refreshes.
#[server(
    prefix = "/api", endpoint = "auth/refresh", protocol = FormOrJson,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn refresh(
    /// The refresh token. Without it, the one in the cookie is used.
    #[server(default)]
    refresh_token: Option<RefreshToken>,
) -> Result<TokenResponse, ApiError> {
    crate::server::http::handlers::refresh(refresh_token).await
}

/// Revokes the session of every token in the request: the bearer (which may have expired), the cookie, the
/// refresh token in the body. Also succeeds when the session has ended already (RFC 7009, 2.2).
///
/// When this succeeds, no instance accepts any token of the session.
///
/// # Errors
/// 401 when the request has no token, or none that was issued here; 503 when the revocation cannot be
/// confirmed: assume that the session is live (RFC 7009, 2.2.1).
#[server(
    prefix = "/api", endpoint = "auth/logout", protocol = FormOrJson, client = BearerClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn logout(
    /// A refresh token of the session. Not needed with a bearer or the cookie.
    #[server(default)]
    refresh_token: Option<RefreshToken>,
) -> Result<Revocation, ApiError> {
    crate::server::http::handlers::logout(refresh_token).await
}

/// Sends a link to choose a new password to the address, if there is a user with it. The answer is the same whether there
/// is one or not, and no address gets more than three such mails in 20 minutes.
///
/// # Errors
/// 422 when the address is malformed; 429 after too many requests.
#[server(
    prefix = "/api", endpoint = "auth/forgot_password", protocol = FormOrJson,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn forgot_password(
    /// The e-mail address of the user.
    email: String,
) -> Result<Accepted, ApiError> {
    crate::server::http::handlers::forgot_password(email).await
}

/// Sets the password of the user to whom the token was sent, and revokes all of their sessions. When this succeeds, no
/// instance accepts any token of these sessions. It starts no session.
///
/// # Errors
/// 401 `invalid_grant` when the token was used, is older than 20 minutes, or the password or the address has changed since
/// it was sent; 422 when the password is not accepted: the token can be used again; 503 when it cannot be confirmed that
/// the sessions are revoked: the password may have been changed.
#[server(
    prefix = "/api", endpoint = "auth/reset_password", protocol = FormOrJson,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn reset_password(
    /// The token of the mail.
    token: String,
    /// The new password.
    #[server(default)]
    password: String,
) -> Result<Revocation, ApiError> {
    crate::server::http::handlers::reset_password(token, password).await
}

/// Does what the link of a mail is for: confirms the address of an account, makes the account that was registered, or
/// changes the address of an account, or undoes that. A change of the address revokes all sessions of the user.
///
/// # Errors
/// 401 `invalid_grant` when the token was used or has expired, or the address is taken by now; 422 when the password is
/// needed, and is missing or wrong: another person may have registered the address; 429 after too many attempts; 503 when it cannot be
/// confirmed that the sessions are revoked: the address may have been changed.
#[server(
    prefix = "/api", endpoint = "auth/verify_email", protocol = FormOrJson,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn verify_email(
    /// The token of the mail.
    token: String,
    /// The password of the account. Needed if this site lets only confirmed addresses in, for an account that is to be made or
    /// confirmed.
    #[server(default)]
    password: String,
) -> Result<Confirmation, ApiError> {
    crate::server::http::handlers::verify_email(token, password).await
}
