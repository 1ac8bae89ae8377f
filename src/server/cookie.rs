//! The cookies: the one that carries a browser's refresh token, and the one that shows it to be known to
//! an account. Both are out of reach of scripts (HttpOnly), never sent by another site
//! (SameSite=Strict), and by https bound to this host alone (`__Host-`). And one that scripts set: a log-out
//! waits to be confirmed.

use axum::http::{HeaderMap, HeaderValue, header};
use cookie::{Cookie, SameSite, time::Duration};

use crate::api::{logout_pending_cookie, types::RefreshToken};

/// How long a browser stays known to an account: 180 days after its last log-in.
const DEVICE_SECONDS: i64 = 180 * 86_400;

/// The name of the cookie with the refresh token.
pub fn refresh_name(https: bool) -> &'static str {
    if https { "__Host-hallpass-refresh" } else { "hallpass-refresh" }
}

fn device_name(https: bool) -> &'static str {
    if https { "__Host-hallpass-device" } else { "hallpass-device" }
}

/// The refresh token that the browser sent.
pub fn read(headers: &HeaderMap, https: bool) -> Option<RefreshToken> {
    value(headers, refresh_name(https)).map(RefreshToken::new)
}

/// What shows the browser to be known to accounts (`auth/device.rs`).
pub fn read_device(headers: &HeaderMap, https: bool) -> Option<String> {
    value(headers, device_name(https))
}

/// What the browser sent under that name.
pub fn value(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(Cookie::split_parse)
        .filter_map(Result::ok)
        .find(|cookie| cookie.name() == name)
        .map(|cookie| cookie.value().to_owned())
}

/// `Set-Cookie` for a refresh token that is good for `seconds`.
pub fn set(token: &RefreshToken, seconds: i64, https: bool) -> Option<HeaderValue> {
    header_value(refresh_name(https), token.expose(), seconds, https)
}

/// `Set-Cookie` that makes the browser forget the refresh token.
pub fn clear(https: bool) -> Option<HeaderValue> {
    header_value(refresh_name(https), "", 0, https)
}

/// `Set-Cookie` for what shows the browser to be known to accounts.
pub fn set_device(token: &str, https: bool) -> Option<HeaderValue> {
    header_value(device_name(https), token, DEVICE_SECONDS, https)
}

/// Whether a log-out in this browser waits to be confirmed.
pub fn is_logout_pending(headers: &HeaderMap, https: bool) -> bool {
    value(headers, logout_pending_cookie(https)).is_some()
}

/// `Set-Cookie` for when it no longer does. A script has set it, so it is no HttpOnly cookie.
pub fn clear_logout_pending(https: bool) -> Option<HeaderValue> {
    let cookie = Cookie::build((logout_pending_cookie(https), ""))
        .path("/")
        .same_site(SameSite::Lax)
        .secure(https)
        .max_age(Duration::ZERO);
    HeaderValue::try_from(cookie.to_string()).ok()
}

fn header_value(name: &str, value: &str, seconds: i64, https: bool) -> Option<HeaderValue> {
    let cookie = Cookie::build((name, value))
        .path("/")
        .http_only(true)
        .same_site(SameSite::Strict)
        .secure(https)
        .max_age(Duration::seconds(seconds));
    HeaderValue::try_from(cookie.to_string()).ok()
}
