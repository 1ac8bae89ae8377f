//! The conversion of errors into responses. No other file sets the status of an error.

use axum::{
    Json,
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use server_fn::error::{FromServerFnError, SERVER_FN_ERROR_HEADER};

use crate::api::error::ApiError;

/// How much of an error's body is read: more than any error of a server function has.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// The `Retry-After` of a 503, in seconds.
const RETRY_AFTER: u64 = 1;

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::InvalidRequest(_) => StatusCode::BAD_REQUEST,
            Self::MissingToken | Self::InvalidToken | Self::InvalidGrant(_) => StatusCode::UNAUTHORIZED,
            Self::CrossSite | Self::InsufficientScope | Self::ReauthenticationRequired => {
                StatusCode::FORBIDDEN
            }
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::EmailTaken => StatusCode::CONFLICT,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::InvalidFields(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyRequests(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal | Self::Transport => StatusCode::INTERNAL_SERVER_ERROR,
        };
        // RFC 6750, 3: a challenge with every 401, with an error code only if there was a token.
        let challenge = match (status, &self) {
            (_, Self::InvalidToken) => Some(HeaderValue::from_static("Bearer error=\"invalid_token\"")),
            (_, Self::InsufficientScope) => {
                Some(HeaderValue::from_static("Bearer error=\"insufficient_scope\""))
            }
            (_, Self::ReauthenticationRequired) => {
                Some(HeaderValue::from_static("Bearer error=\"insufficient_user_authentication\""))
            }
            (StatusCode::UNAUTHORIZED, _) => Some(HeaderValue::from_static("Bearer")),
            _ => None,
        };
        let retry_after = match &self {
            Self::TooManyRequests(seconds) => Some(*seconds),
            Self::Unavailable => Some(RETRY_AFTER),
            _ => None,
        };
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        if let Some(challenge) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// Middleware that gives errors under `/api` their status and their JSON. Server functions answer 500 for
/// every error, and axum and its layers answer in plain text; here each is converted to its [`ApiError`]. A
/// plain form post, which is redirected back to its page, is not changed.
pub async fn api_errors(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    if response.headers().contains_key(SERVER_FN_ERROR_HEADER) {
        let (parts, body) = response.into_parts();
        let error = match to_bytes(body, MAX_ERROR_BYTES).await {
            Ok(body) => ApiError::de(body),
            Err(_) => ApiError::Internal,
        };
        let mut response = error.into_response();
        // The handler may have set cookies, such as one that deletes the refresh token.
        for cookie in parts.headers.get_all(header::SET_COOKIE) {
            response.headers_mut().append(header::SET_COOKIE, cookie.clone());
        }
        return response;
    }
    let error = match status {
        StatusCode::NOT_FOUND => ApiError::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => ApiError::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::PayloadTooLarge,
        StatusCode::SERVICE_UNAVAILABLE => ApiError::Unavailable,
        StatusCode::INTERNAL_SERVER_ERROR => ApiError::Internal,
        _ => return response,
    };
    let allow = response.headers().get(header::ALLOW).cloned();
    let mut response = error.into_response();
    if let Some(allow) = allow {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

/// The response of a handler that has panicked. The panic itself is logged.
pub fn panicked(_: Box<dyn std::any::Any + Send>) -> Response<Body> {
    ApiError::Internal.into_response()
}
