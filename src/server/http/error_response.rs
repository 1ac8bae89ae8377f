//! The conversion of errors into responses. No other file sets the status of an error.

use axum::{
    Json,
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::api::{error::ApiError, types::StepUp};

/// The `Retry-After` of a 503, in seconds.
const RETRY_AFTER: u64 = 1;

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::InvalidRequest(_) => StatusCode::BAD_REQUEST,
            Self::MissingToken | Self::InvalidToken | Self::InvalidGrant(_) | Self::InvalidClient => {
                StatusCode::UNAUTHORIZED
            }
            Self::UnauthorizedClient
            | Self::CrossSite
            | Self::InsufficientScope
            | Self::ReauthenticationRequired(_)
            | Self::SecondFactorRequired
            | Self::VerificationRequired => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::EmailTaken | Self::Conflict(_) => StatusCode::CONFLICT,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::InvalidFields(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyRequests(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal | Self::Transport => StatusCode::INTERNAL_SERVER_ERROR,
        };
        // RFC 6750, 3: a challenge with every 401, with an error code only if there was a token.
        let challenge = match (status, &self) {
            (_, Self::InvalidClient) => Some(HeaderValue::from_static("Basic realm=\"Hallpass\"")),
            (_, Self::InvalidToken) => Some(HeaderValue::from_static("Bearer error=\"invalid_token\"")),
            (_, Self::InsufficientScope) => {
                Some(HeaderValue::from_static("Bearer error=\"insufficient_scope\""))
            }
            // RFC 9470, 3.
            (_, Self::ReauthenticationRequired(StepUp { acr, max_age })) => HeaderValue::try_from(format!(
                "Bearer error=\"insufficient_user_authentication\", acr_values=\"{}\", max_age=\"{max_age}\"",
                acr.as_str()
            ))
            .ok(),
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

/// Gives an error that axum or one of its layers answers, in plain text, the JSON of its [`ApiError`]. Other
/// responses are returned as they are.
pub fn with_json(response: Response) -> Response {
    let error = match response.status() {
        StatusCode::NOT_FOUND => ApiError::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => ApiError::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::PayloadTooLarge,
        StatusCode::SERVICE_UNAVAILABLE => ApiError::Unavailable,
        StatusCode::INTERNAL_SERVER_ERROR => ApiError::Internal,
        _ => return response,
    };
    if response.headers().get(header::CONTENT_TYPE).is_some_and(|value| value == "application/json") {
        return response;
    }
    let allow = response.headers().get(header::ALLOW).cloned();
    let mut response = error.into_response();
    response.headers_mut().extend(allow.map(|allow| (header::ALLOW, allow)));
    response
}

/// The response of a handler that has panicked. The panic itself is logged.
pub fn panicked(_: Box<dyn std::any::Any + Send>) -> Response<Body> {
    ApiError::Internal.into_response()
}
