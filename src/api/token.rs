//! What a token is worth to others: the call behind the token page, which shows what revocation is
//! good for. A product can do without.

use leptos::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    error::ApiError,
    protocol::FormOrJson,
    types::{AccessToken, StatelessCheck},
};
use crate::ToSchema;

/// What a check of signature, issuer, audience and times says about an access token: what is called
/// validation (RFC 7519, 7.2) wherever nobody asks whether the token has been revoked. Never a
/// reason to let a request pass.
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
