//! Where a request carries its access token.

use http::{HeaderMap, header::AUTHORIZATION};

use crate::refusal::Refusal;

/// The longest text that is read as a token: Hallpass's have about 500 bytes, more with a long e-mail address.
pub const MAX_TOKEN_BYTES: usize = 4096;

/// The bearer token in the `Authorization` header of a request (RFC 6750, 2.1, and no other place). The scheme is
/// case-insensitive (RFC 9110, 11.1).
///
/// # Errors
/// [`Refusal::MissingToken`]; [`Refusal::InvalidToken`] for an empty or a very long one; [`Refusal::InvalidRequest`] when
/// there is more than one such header.
pub fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Refusal::MissingToken)?;
    if values.next().is_some() {
        return Err(Refusal::InvalidRequest("Send one Authorization header."));
    }
    let value = value.to_str().map_err(|_| Refusal::InvalidToken)?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refusal::MissingToken);
    }
    let token = token.trim_start_matches(' ');
    if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
        return Err(Refusal::InvalidToken);
    }
    Ok(token)
}
