//! The endpoints of OAuth for other services: introspection (RFC 7662), revocation (RFC 7009) and global token revocation
//! (draft-parecki-oauth-global-token-revocation). A service proves who it is by the id and secret of a client, by HTTP
//! Basic or, where the request is a form, in it (RFC 6749, 2.3.1).

use axum::{
    Form, Json, Router,
    extract::{
        FromRequestParts, State,
        rejection::{FormRejection, JsonRejection},
    },
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{any, post},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    api::{error::ApiError, types::Revocation},
    server::{
        AppState,
        auth::{clients::AuthenticatedClient, subject::SubjectIdentifier},
        clock,
    },
};

pub const INTROSPECT: &str = "/oauth/introspect";
pub const REVOKE: &str = "/oauth/revoke";
pub const REVOKE_USER: &str = "/oauth/global-token-revocation";

pub fn routes() -> Router<AppState> {
    Router::new()
        .route(INTROSPECT, post(introspect))
        .route(REVOKE, post(revoke))
        .route(REVOKE_USER, post(revoke_user))
        .route("/oauth/{*path}", any(ApiError::NotFound))
}

/// The parameters of a request, in order.
type Fields = Result<Form<Vec<(String, String)>>, FormRejection>;

async fn introspect(
    State(state): State<AppState>,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, ApiError> {
    let token = presented(&state, &headers, fields).await?;
    let answer = state.auth.introspect(&token, clock::now()).await?;
    Ok(Json(answer).into_response())
}

/// Revokes the session of the token. The response is sent when no instance accepts any of its tokens any more; the
/// body says what a logout says.
async fn revoke(
    State(state): State<AppState>,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Json<Revocation>, ApiError> {
    let token = presented(&state, &headers, fields).await?;
    let revoked = state.auth.revoke_token(&token, clock::now()).await?;
    // RFC 7009, 2.2: an unknown token needs no revocation.
    let nothing = Revocation { instances: 0, acknowledged: 0, elapsed_ms: 0 };
    Ok(Json(revoked.unwrap_or(nothing)))
}

/// The body of a request for global token revocation.
#[derive(Deserialize, ToSchema)]
pub struct UserToRevoke {
    /// The user.
    sub_id: SubjectIdentifier,
}

/// Revokes all sessions of a user. The draft lets a server answer when it has begun, and leave access tokens alone; this
/// answer is sent when no instance accepts any of the user's tokens any more.
async fn revoke_user(
    State(state): State<AppState>,
    client: AuthenticatedClient,
    body: Result<Json<UserToRevoke>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let Json(UserToRevoke { sub_id }) = body.map_err(|rejection| match rejection {
        JsonRejection::JsonDataError(_) => {
            invalid("Send sub_id, a subject identifier of the format email, iss_sub or opaque (RFC 9493).")
        }
        other => refused(other.status()),
    })?;
    state.auth.revoke_user(&client, &sub_id, clock::now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl FromRequestParts<AppState> for AuthenticatedClient {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let (id, secret) = basic(&parts.headers)?.ok_or(ApiError::InvalidClient)?;
        state.auth.authenticate_client(&id, &secret).await
    }
}

/// The token that the request presents, once the client is known.
async fn presented(state: &AppState, headers: &HeaderMap, fields: Fields) -> Result<String, ApiError> {
    let Form(fields) = fields.map_err(|rejection| refused(rejection.status()))?;
    let field = |name| one(&fields, name);
    let (id, secret) = match (basic(headers)?, field("client_id")?, field("client_secret")?) {
        (Some(_), _, Some(_)) => return Err(invalid("Send the client's secret in one way.")),
        (Some((id, _)), Some(other), None) if id != other => {
            return Err(invalid("Send the id of one client."));
        }
        (Some(of_header), _, None) => of_header,
        (None, Some(id), Some(secret)) => (id.to_owned(), secret.to_owned().into()),
        (None, _, _) => return Err(ApiError::InvalidClient),
    };
    state.auth.authenticate_client(&id, &secret).await?;
    let token = field("token")?.ok_or_else(unreadable)?;
    Ok(token.to_owned())
}

/// The one value of a parameter (RFC 6749, 3.1: none is sent twice, and an empty one counts as absent).
fn one<'a>(fields: &'a [(String, String)], name: &str) -> Result<Option<&'a str>, ApiError> {
    let mut values = fields.iter().filter(|(key, value)| key == name && !value.is_empty());
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(invalid(&format!("Send the parameter {name} once."))),
        (first, None) => Ok(first.map(|(_, value)| value.as_str())),
    }
}

/// The id and the secret in the `Authorization` header. Neither has characters that form encoding changes.
fn basic(headers: &HeaderMap) -> Result<Option<(String, SecretString)>, ApiError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        let has_none = !headers.contains_key(header::AUTHORIZATION);
        return if has_none { Ok(None) } else { Err(invalid("Send one Authorization header.")) };
    };
    let (scheme, encoded) = value.to_str().ok().and_then(|value| value.split_once(' ')).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(ApiError::InvalidClient);
    }
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let (id, secret) =
        decoded.as_deref().and_then(|text| text.split_once(':')).ok_or(ApiError::InvalidClient)?;
    Ok(Some((id.to_owned(), secret.to_owned().into())))
}

fn invalid(text: &str) -> ApiError {
    ApiError::InvalidRequest(text.to_owned())
}

pub fn unreadable() -> ApiError {
    invalid("The request's fields cannot be read.")
}

/// The error for a body that axum rejects with this status.
pub fn refused(status: StatusCode) -> ApiError {
    match status {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ApiError::UnsupportedMediaType,
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::PayloadTooLarge,
        _ => unreadable(),
    }
}
