//! The call behind the page Token, which demonstrates why tokens have to be revocable. A product can do
//! without it.

use leptos::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    error::ApiError,
    protocol::FormOrJson,
    types::{AccessToken, StatelessCheck},
};
use crate::ToSchema;

/// Checks the signature, issuer, audience and times of an access token, but not whether it is revoked.
/// Without revocation, this is all that validation means (RFC 7519, 7.2). The result must never authorize a
/// request.
///
/// # Errors
/// 400 when the field is missing.
#[server(
    prefix = "/api", endpoint = "token/check_statelessly", protocol = FormOrJson,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn check_statelessly(access_token: AccessToken) -> Result<StatelessCheck, ApiError> {
    crate::server::http::handlers::check_statelessly(&access_token)
}
