//! Why a request is refused, and the response that says so.

use http::{HeaderMap, HeaderValue, StatusCode, header};

/// The `Retry-After` of a 503, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// The reason why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The request cannot be read: 400.
    InvalidRequest(&'static str),
    /// The request has no token but needs one: 401.
    MissingToken,
    /// The token is malformed, expired or revoked, known to be dead: 401.
    InvalidToken,
    /// The token is live, but its user may not do this: 403.
    InsufficientScope,
    /// Whether the token is live is not known now: 503. The client keeps its session and tries again.
    Unavailable,
    /// The service itself is wrong: 500.
    Internal,
}

impl Refusal {
    /// The status of the response.
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest(_) => StatusCode::BAD_REQUEST,
            Self::MissingToken | Self::InvalidToken => StatusCode::UNAUTHORIZED,
            Self::InsufficientScope => StatusCode::FORBIDDEN,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The code for programs (RFC 6749, 5.2; RFC 6750, 3.1).
    pub fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest(_) => "invalid_request",
            Self::MissingToken => "missing_token",
            Self::InvalidToken => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
            Self::Unavailable => "temporarily_unavailable",
            Self::Internal => "server_error",
        }
    }

    /// The text for people.
    pub fn message(self) -> &'static str {
        match self {
            Self::InvalidRequest(message) => message,
            Self::MissingToken => "Sign in first.",
            Self::InvalidToken => "You are signed out. Sign in again.",
            Self::InsufficientScope => "You may not do this.",
            Self::Unavailable => "The service is temporarily unavailable. Try again in a moment.",
            Self::Internal => "Something went wrong on our side. Try again later.",
        }
    }

    /// The response, with the headers and the JSON of Hallpass: a challenge with every 401 (RFC 6750, 3), with an error
    /// code only if there was a token.
    pub fn response(self) -> http::Response<String> {
        let body = format!(r#"{{"error":"{}","message":"{}"}}"#, self.code(), self.message());
        let mut response = http::Response::new(body);
        *response.status_mut() = self.status();
        *response.headers_mut() = self.headers();
        response
    }

    fn headers(self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let challenge = match self {
            Self::MissingToken => Some("Bearer"),
            Self::InvalidToken => Some("Bearer error=\"invalid_token\""),
            Self::InsufficientScope => Some("Bearer error=\"insufficient_scope\""),
            _ => None,
        };
        if let Some(challenge) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if self == Self::Unavailable {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        headers
    }
}

#[cfg(feature = "axum")]
impl axum_core::response::IntoResponse for Refusal {
    fn into_response(self) -> axum_core::response::Response {
        self.response().map(Into::into)
    }
}
