//! The cookie that carries a browser's refresh token: out of reach of scripts (HttpOnly), never
//! sent by another site (SameSite=Strict), and by https bound to this host alone (`__Host-`).

use axum::http::{HeaderMap, HeaderValue, header};
use cookie::{Cookie, SameSite, time::Duration};

use crate::api::types::RefreshToken;

fn name(https: bool) -> &'static str {
    if https { "__Host-hallpass-refresh" } else { "hallpass-refresh" }
}

/// The refresh token that the browser sent.
pub fn read(headers: &HeaderMap, https: bool) -> Option<RefreshToken> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(Cookie::split_parse)
        .filter_map(Result::ok)
        .find(|cookie| cookie.name() == name(https))
        .map(|cookie| RefreshToken::new(cookie.value().to_owned()))
}

/// `Set-Cookie` for a token that is good for `seconds`.
pub fn set(token: &RefreshToken, seconds: i64, https: bool) -> Option<HeaderValue> {
    header_value(token.expose(), seconds, https)
}

/// `Set-Cookie` that makes the browser forget the token.
pub fn clear(https: bool) -> Option<HeaderValue> {
    header_value("", 0, https)
}

fn header_value(value: &str, seconds: i64, https: bool) -> Option<HeaderValue> {
    let cookie = Cookie::build((name(https), value))
        .path("/")
        .http_only(true)
        .same_site(SameSite::Strict)
        .secure(https)
        .max_age(Duration::seconds(seconds));
    HeaderValue::try_from(cookie.to_string()).ok()
}
