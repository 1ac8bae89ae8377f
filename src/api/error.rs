//! The error type of all calls, with a variant for each thing that a client can do about it.
//!
//! On the wire it is `{"error": code, "message": text}` with the codes of RFC 6749 5.2 and
//! RFC 6750 3.1. The status that goes with a variant is set in `server/http/error_response.rs` alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use server_fn::{
    codec::JsonEncoding,
    error::{FromServerFnError, ServerFnErrorErr},
};
use thiserror::Error;

use super::types::{Assurance, StepUp};
use crate::ToSchema;

/// The reason why a call failed. The text is for the user. It contains no token and no password, and does not
/// reveal which part of a token is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(into = "ErrorBody", from = "ErrorBody")]
pub enum ApiError {
    /// The request cannot be read.
    #[error("{0}")]
    InvalidRequest(String),
    /// The request has no token but needs one.
    #[error("Sign in first.")]
    MissingToken,
    /// The token is malformed, expired or revoked: known to be dead.
    #[error("You are signed out. Sign in again.")]
    InvalidToken,
    /// The e-mail address or the password is wrong, or the refresh token is not accepted.
    #[error("{0}")]
    InvalidGrant(String),
    /// The id or the secret of a client is wrong, or there is none (RFC 6749, 5.2).
    #[error("The client is unknown, or its secret is wrong.")]
    InvalidClient,
    /// The client was not given the permission for this (RFC 6749, 5.2, for the code).
    #[error("This client may not do this.")]
    UnauthorizedClient,
    /// The request came from a page of another origin.
    #[error("This request came from another site and was refused.")]
    CrossSite,
    /// The token is live, but its user may not do this (RFC 6750, 3.1).
    #[error("Only an administrator may do this.")]
    InsufficientScope,
    /// The user has to sign in again, perhaps with a second factor (RFC 9470, 3). The status is not 401 as there,
    /// because no live token is ever answered with 401.
    #[error("{}", match .0.acr {
        Assurance::Aal1 => "Sign in again to continue.",
        Assurance::Aal2 => "Sign in again with your second factor to continue.",
    })]
    ReauthenticationRequired(StepUp),
    /// The password is right, and the account has a second factor.
    #[error("Enter the code from your authenticator app, or a recovery code.")]
    SecondFactorRequired,
    /// The user has not opened the link in the mail that confirms the address.
    #[error("Confirm your e-mail address first: open the link in the mail that we have sent to you.")]
    VerificationRequired,
    #[error("Not found.")]
    NotFound,
    #[error("This address does not accept this method.")]
    MethodNotAllowed,
    #[error("An account with this e-mail address already exists. Sign in instead.")]
    EmailTaken,
    /// What is asked for cannot be beside what is there.
    #[error("{0}")]
    Conflict(String),
    #[error("The request is too large.")]
    PayloadTooLarge,
    #[error("Send application/json or application/x-www-form-urlencoded.")]
    UnsupportedMediaType,
    /// Some fields are not accepted: the name of each, and what to change.
    #[error("Some fields need your attention.")]
    InvalidFields(BTreeMap<String, String>),
    /// The rate limit is exceeded. With the seconds until the next attempt is allowed.
    #[error("Too many requests. Wait {0} second{s}, then try again.", s = if *.0 == 1 { "" } else { "s" })]
    TooManyRequests(u64),
    /// An internal error of the server.
    #[error("Something went wrong on our side. Try again later.")]
    Internal,
    /// The answer cannot be determined now, and a change may have been made or not. The client keeps its
    /// session and tries again.
    #[error("The service is temporarily unavailable. Try again in a moment.")]
    Unavailable,
    /// The browser received no response, or one that Hallpass did not send. Created in the browser only.
    #[error("The server could not be reached. Check your connection and try again.")]
    Transport,
}

impl ApiError {
    /// The error for wrong credentials: the same text whether the user is unknown or disabled, or the
    /// password is wrong.
    pub fn wrong_credentials() -> Self {
        Self::InvalidGrant("The e-mail address or the password is wrong.".into())
    }

    /// The error for a code of an authenticator app, or a recovery code, that is wrong or was used.
    pub fn wrong_code() -> Self {
        Self::InvalidGrant("The code is wrong, or was used before. Wait for the next one.".into())
    }

    /// The error for a passkey that is not known here, or whose answer cannot be accepted.
    pub fn wrong_passkey() -> Self {
        Self::InvalidGrant("This passkey was not accepted. Try again, or sign in in another way.".into())
    }

    /// The error for a refresh token that is forged, or whose session was deleted.
    pub fn dead_refresh_token() -> Self {
        Self::InvalidGrant("This session has ended. Sign in again.".into())
    }

    /// The error for the token of a mail that was used, has expired, or is of an earlier password or address.
    pub fn dead_mail_token() -> Self {
        Self::InvalidGrant("This link was used before, or is too old. Ask for a new one.".into())
    }

    /// The error for a browser that was signed in and sends no refresh token.
    pub fn no_refresh_token() -> Self {
        Self::InvalidGrant(
            "Your browser did not keep the cookie of this site. Allow cookies for this site, then sign in again."
                .into(),
        )
    }

    /// The same, for a page that was loaded by http although the site keeps its cookies over https only.
    pub fn needs_https() -> Self {
        Self::InvalidGrant(
            "This site can only keep you signed in over https. Change http:// to https:// in the address, then sign in again."
                .into(),
        )
    }

    /// The error for one field.
    pub fn invalid_field(name: &str, advice: impl Into<String>) -> Self {
        Self::InvalidFields(BTreeMap::from([(name.to_owned(), advice.into())]))
    }

    /// The same error, with the name of its field replaced.
    pub fn with_field_name(self, name: &str) -> Self {
        match self {
            Self::InvalidFields(fields) => {
                Self::InvalidFields(fields.into_values().map(|advice| (name.to_owned(), advice)).collect())
            }
            other => other,
        }
    }

    /// The code of the error in responses.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidRequest(_) => "invalid_request",
            Self::MissingToken => "missing_token",
            Self::InvalidToken => "invalid_token",
            Self::InvalidGrant(_) => "invalid_grant",
            Self::InvalidClient => "invalid_client",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::CrossSite => "cross_site",
            Self::InsufficientScope => "insufficient_scope",
            Self::ReauthenticationRequired(_) => "insufficient_user_authentication",
            Self::SecondFactorRequired => "second_factor_required",
            Self::VerificationRequired => "verification_required",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::EmailTaken => "email_taken",
            Self::Conflict(_) => "conflict",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::InvalidFields(_) => "invalid_fields",
            Self::TooManyRequests(_) => "too_many_requests",
            Self::Internal => "server_error",
            Self::Unavailable => "temporarily_unavailable",
            Self::Transport => "transport",
        }
    }
}

/// The reason why a call failed.
#[derive(Default, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The code, for programs.
    error: String,
    /// The message, for the user.
    message: String,
    /// Only with `invalid_fields`: what to change in each field.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    fields: BTreeMap<String, String>,
    /// Only with `too_many_requests`: the seconds until the next attempt is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    /// Only with `insufficient_user_authentication`: how the user has to sign in (RFC 9470, 3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    acr_values: Option<Assurance>,
    /// Only with `insufficient_user_authentication`: how many seconds ago at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_age: Option<i64>,
}

impl From<ApiError> for ErrorBody {
    fn from(error: ApiError) -> Self {
        let step_up = match &error {
            ApiError::ReauthenticationRequired(step_up) => Some(*step_up),
            _ => None,
        };
        Self {
            error: error.code().to_owned(),
            message: error.to_string(),
            acr_values: step_up.map(|step_up| step_up.acr),
            max_age: step_up.map(|step_up| step_up.max_age),
            retry_after: match error {
                ApiError::TooManyRequests(seconds) => Some(seconds),
                _ => None,
            },
            fields: match error {
                ApiError::InvalidFields(fields) => fields,
                _ => BTreeMap::new(),
            },
        }
    }
}

impl From<ErrorBody> for ApiError {
    fn from(body: ErrorBody) -> Self {
        match body.error.as_str() {
            "invalid_request" => Self::InvalidRequest(body.message),
            "missing_token" => Self::MissingToken,
            "invalid_token" => Self::InvalidToken,
            "invalid_grant" => Self::InvalidGrant(body.message),
            "invalid_client" => Self::InvalidClient,
            "unauthorized_client" => Self::UnauthorizedClient,
            "cross_site" => Self::CrossSite,
            "insufficient_scope" => Self::InsufficientScope,
            "insufficient_user_authentication" => Self::ReauthenticationRequired(StepUp {
                acr: body.acr_values.unwrap_or_default(),
                max_age: body.max_age.unwrap_or_default(),
            }),
            "second_factor_required" => Self::SecondFactorRequired,
            "verification_required" => Self::VerificationRequired,
            "not_found" => Self::NotFound,
            "method_not_allowed" => Self::MethodNotAllowed,
            "email_taken" => Self::EmailTaken,
            "conflict" => Self::Conflict(body.message),
            "payload_too_large" => Self::PayloadTooLarge,
            "unsupported_media_type" => Self::UnsupportedMediaType,
            "invalid_fields" => Self::InvalidFields(body.fields),
            "too_many_requests" => Self::TooManyRequests(body.retry_after.unwrap_or(1)),
            "server_error" => Self::Internal,
            "temporarily_unavailable" => Self::Unavailable,
            _ => Self::Transport,
        }
    }
}

impl FromServerFnError for ApiError {
    type Encoder = JsonEncoding;

    fn from_server_fn_error(error: ServerFnErrorErr) -> Self {
        match error {
            ServerFnErrorErr::Args(_) | ServerFnErrorErr::MissingArg(_) => {
                Self::InvalidRequest("The request's fields cannot be read.".into())
            }
            // The browser's half of server_fn returns these when fetch fails or Hallpass did not send the
            // response.
            ServerFnErrorErr::Request(_)
            | ServerFnErrorErr::Response(_)
            | ServerFnErrorErr::Deserialization(_) => Self::Transport,
            _ => Self::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_survives_the_wire() {
        let errors = [
            ApiError::InvalidRequest("what".into()),
            ApiError::MissingToken,
            ApiError::InvalidToken,
            ApiError::wrong_credentials(),
            ApiError::InvalidClient,
            ApiError::UnauthorizedClient,
            ApiError::CrossSite,
            ApiError::InsufficientScope,
            ApiError::ReauthenticationRequired(StepUp { acr: Assurance::Aal2, max_age: 300 }),
            ApiError::SecondFactorRequired,
            ApiError::VerificationRequired,
            ApiError::NotFound,
            ApiError::MethodNotAllowed,
            ApiError::EmailTaken,
            ApiError::Conflict("which".into()),
            ApiError::PayloadTooLarge,
            ApiError::UnsupportedMediaType,
            ApiError::invalid_field("email", "shorter"),
            ApiError::TooManyRequests(7),
            ApiError::Internal,
            ApiError::Unavailable,
            ApiError::Transport,
        ];
        for error in errors {
            assert_eq!(ApiError::de(error.ser()), error);
        }
    }
}
