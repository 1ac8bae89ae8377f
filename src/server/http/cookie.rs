//! The cookies: one with the refresh token of a browser, and one that shows that the browser is known to an
//! account. Both are HttpOnly, so that scripts cannot read them, SameSite=Strict, so that other sites cannot
//! send them, and with https bound to this host (`__Host-`). Beside the refresh token goes one with the id of the
//! session, which scripts can read, and which browsers also send when a link in another site is followed
//! (SameSite=Lax): by it a page is drawn as signed in, and no call accepts it. Another one is set by scripts: it shows
//! that a logout waits for confirmation. The last one shows, for a minute, that a logout without scripts was confirmed.
//!
//! Browsers also send the cookies of all other services on the host. Whatever bytes these contain, the
//! cookies of Hallpass are found among them. Refresh tokens of another service under the name of earlier
//! versions are left alone.

use axum::http::{HeaderMap, HeaderValue, header};
use cookie::{Cookie, SameSite, time::Duration};

use crate::{
    api::{
        cookie_name,
        error::ApiError,
        logout_pending_cookie, session_id_cookie, signed_out_cookie,
        types::{ConfirmedLogout, Presence, RefreshToken, Revocation},
    },
    server::{
        AppState,
        auth::{Auth, device_cookie, refresh_token},
        clock::UnixSeconds,
        ids::SessionId,
    },
};

const REFRESH: &str = "hallpass-refresh";
const DEVICE: &str = "hallpass-device";

/// How long a browser stays known to an account, in seconds: 180 days after its last login.
const DEVICE_SECONDS: i64 = 180 * 86_400;

/// How long the pages show that a logout was confirmed, in seconds.
const SIGNED_OUT_SECONDS: i64 = 60;

/// The number of sessions that are checked for one request. No browser has more, and each may cost an SQL
/// query.
const MAX_SESSIONS: usize = 8;

/// The refresh tokens in the cookies of a request.
pub struct RefreshCookies {
    /// The tokens that this service has issued come first, only the latest of each session; then values that
    /// are no such token.
    pub tokens: Vec<RefreshToken>,
    names: Vec<String>,
}

impl RefreshCookies {
    pub fn of(headers: &HeaderMap, state: &AppState) -> Self {
        let mut ours: Vec<(SessionId, i64, RefreshToken)> = Vec::new();
        let (mut junk, mut names) = (Vec::new(), Vec::new());
        for service in services(&state.auth) {
            let name = cookie_name(REFRESH, state.config.server.https, &service);
            for value in values(headers, &name) {
                let token = RefreshToken::new(value.to_owned());
                match state.auth.read_refresh_token(&token) {
                    Some((session, counter)) => match ours.iter_mut().find(|(id, ..)| *id == session) {
                        // An older token of the same session would count as reuse.
                        Some(known) => {
                            if known.1 < counter {
                                *known = (session, counter, token);
                            }
                        }
                        None => ours.push((session, counter, token)),
                    },
                    None if service.is_empty() && refresh_token::is_well_formed(&token) => continue,
                    None => junk.push(token),
                }
                if !names.contains(&name) {
                    names.push(name.clone());
                }
            }
        }
        ours.truncate(MAX_SESSIONS);
        let tokens = ours.into_iter().map(|(_, _, token)| token).chain(junk).collect();
        Self { tokens, names }
    }

    /// The `Set-Cookie` headers that delete these cookies.
    pub fn clear(&self, https: bool) -> impl Iterator<Item = HeaderValue> {
        self.names.iter().flat_map(move |name| delete(name, https))
    }

    /// The `Set-Cookie` headers that delete these cookies, except the one that a new token replaces.
    pub fn clear_others(&self, state: &AppState) -> impl Iterator<Item = HeaderValue> {
        let (https, current) = (state.config.server.https, current_name(REFRESH, state));
        let others = self.names.iter().filter(move |name| **name != current);
        others.flat_map(move |name| delete(name, https))
    }

    /// Whether the browser is signed in, with the token that shows it: of several, that of a live session.
    /// `None` if there is no token.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`].
    pub async fn presence(
        self,
        auth: &Auth,
        now: UnixSeconds,
    ) -> Result<Option<(RefreshToken, Presence)>, ApiError> {
        let mut best: Option<Result<(RefreshToken, Presence), ApiError>> = None;
        for token in self.tokens {
            match (auth.presence(&token, now).await, &best) {
                (Ok(Presence::SignedIn), _) => return Ok(Some((token, Presence::SignedIn))),
                (Err(error), _) => best = Some(Err(error)),
                (Ok(presence), None) => best = Some(Ok((token, presence))),
                (Ok(_), Some(_)) => {}
            }
        }
        best.transpose()
    }
}

/// The name of the cookie with the refresh token.
pub fn refresh_name(state: &AppState) -> String {
    current_name(REFRESH, state)
}

/// The `Set-Cookie` headers for the refresh token of a session, which is valid for `seconds`.
pub fn set(
    token: &RefreshToken,
    session_id: SessionId,
    seconds: i64,
    state: &AppState,
) -> impl Iterator<Item = HeaderValue> {
    let (name, https) = (current_name(REFRESH, state), state.config.server.https);
    let session_id = readable(&session_id_name(&name), &session_id.to_string(), seconds, https);
    header_value(&name, token.expose(), seconds, https).into_iter().chain(session_id)
}

/// The `Set-Cookie` headers that delete the refresh token, whether the browser has sent one or not.
pub fn clear(state: &AppState) -> impl Iterator<Item = HeaderValue> {
    delete(&current_name(REFRESH, state), state.config.server.https)
}

/// The `Set-Cookie` headers that delete the refresh token of that name, and what goes with it.
fn delete(name: &str, https: bool) -> impl Iterator<Item = HeaderValue> + use<> {
    let session_id = readable(&session_id_name(name), "", 0, https);
    header_value(name, "", 0, https).into_iter().chain(session_id)
}

/// The id of the session in the cookies, which proves nothing.
pub fn session_id(headers: &HeaderMap, state: &AppState) -> Option<SessionId> {
    let mut names =
        services(&state.auth).map(|service| session_id_cookie(state.config.server.https, &service));
    names.find_map(|name| values(headers, &name).find_map(|value| value.parse().ok()))
}

/// The name of the cookie with the session's id that goes with the refresh token of that name.
fn session_id_name(name: &str) -> String {
    name.replacen(REFRESH, &session_id_cookie(false, ""), 1)
}

/// The device cookie (`auth/device_cookie.rs`), joined from all names under which the browser may have sent
/// it.
pub fn read_device(headers: &HeaderMap, state: &AppState) -> Option<String> {
    let names = services(&state.auth).map(|service| cookie_name(DEVICE, state.config.server.https, &service));
    let found: Vec<_> =
        names.flat_map(|name| values(headers, &name).map(str::to_owned).collect::<Vec<_>>()).collect();
    (!found.is_empty()).then(|| found.join(&device_cookie::SEPARATOR.to_string()))
}

/// The `Set-Cookie` header for the device cookie.
pub fn set_device(token: &str, state: &AppState) -> Option<HeaderValue> {
    header_value(&current_name(DEVICE, state), token, DEVICE_SECONDS, state.config.server.https)
}

/// Whether a logout in this browser waits for confirmation.
pub fn is_logout_pending(headers: &HeaderMap, state: &AppState) -> bool {
    sent_names(headers, state, logout_pending_cookie).next().is_some()
}

/// The `Set-Cookie` headers that delete the cookie of a pending logout. A script has set it, so it is not
/// HttpOnly.
pub fn clear_logout_pending(headers: &HeaderMap, state: &AppState) -> impl Iterator<Item = HeaderValue> {
    delete_sent(headers, state, logout_pending_cookie)
}

/// The confirmed logout that a plain form of this browser has made within the last minute.
pub fn signed_out(headers: &HeaderMap, state: &AppState) -> Option<ConfirmedLogout> {
    let name = sent_names(headers, state, signed_out_cookie).next()?.0;
    values(headers, &name).find_map(|value| value.parse().ok())
}

/// The `Set-Cookie` header that shows a confirmed logout.
pub fn set_signed_out(revocation: &Revocation, state: &AppState) -> Option<HeaderValue> {
    let &Revocation { instances, elapsed_ms, .. } = revocation;
    let https = state.config.server.https;
    let name = signed_out_cookie(https, &services(&state.auth).next().unwrap_or_default());
    readable(&name, &ConfirmedLogout { instances, elapsed_ms }.to_string(), SIGNED_OUT_SECONDS, https)
}

/// The `Set-Cookie` headers that delete the cookie of a confirmed logout.
pub fn clear_signed_out(headers: &HeaderMap, state: &AppState) -> impl Iterator<Item = HeaderValue> {
    delete_sent(headers, state, signed_out_cookie)
}

fn delete_sent(
    headers: &HeaderMap,
    state: &AppState,
    name: fn(bool, &str) -> String,
) -> impl Iterator<Item = HeaderValue> {
    sent_names(headers, state, name).filter_map(|(name, https)| readable(&name, "", 0, https))
}

/// The names under which the browser has sent that cookie, and whether each is one for https: a script chooses
/// the name by the scheme of the page, which may differ from the settings.
fn sent_names(
    headers: &HeaderMap,
    state: &AppState,
    name: fn(bool, &str) -> String,
) -> impl Iterator<Item = (String, bool)> {
    let names = services(&state.auth)
        .flat_map(move |service| [true, false].map(|https| (name(https, &service), https)));
    names.filter(|(name, _)| values(headers, name).next().is_some())
}

/// The names of this service in its cookies, the one for new cookies first. A name is the id of a key whose
/// tokens are accepted: instances behind one proxy share it, and another service has another. Cookies under
/// the name of the previous key are found for as long as that key is accepted. The last name is empty, as in
/// earlier versions.
pub fn services(auth: &Auth) -> impl Iterator<Item = String> {
    auth.key_ids().into_iter().chain([String::new()])
}

fn current_name(kind: &str, state: &AppState) -> String {
    cookie_name(kind, state.config.server.https, &services(&state.auth).next().unwrap_or_default())
}

/// All values that the browser has sent under that name: the same name can be set for several paths and for a
/// parent domain.
pub fn values<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let cookies =
        headers.get_all(header::COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    cookies.filter_map(move |cookie| {
        let separator = cookie.iter().position(|byte| *byte == b'=')?;
        let (found, value) = (cookie[..separator].trim_ascii(), cookie[separator + 1..].trim_ascii());
        let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        (found == name.as_bytes()).then_some(str::from_utf8(value).ok()?)
    })
}

fn header_value(name: &str, value: &str, seconds: i64, https: bool) -> Option<HeaderValue> {
    set_cookie(name, value, seconds, https, true)
}

/// The header for a cookie that scripts can read. It holds no secret, so it may come with a link in another site.
fn readable(name: &str, value: &str, seconds: i64, https: bool) -> Option<HeaderValue> {
    set_cookie(name, value, seconds, https, false)
}

fn set_cookie(name: &str, value: &str, seconds: i64, https: bool, http_only: bool) -> Option<HeaderValue> {
    let cookie = Cookie::build((name, value))
        .path("/")
        .http_only(http_only)
        .same_site(if http_only { SameSite::Strict } else { SameSite::Lax })
        .secure(https)
        .max_age(Duration::seconds(seconds));
    HeaderValue::try_from(cookie.to_string()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(headers: &[&[u8]]) -> Vec<String> {
        let mut map = HeaderMap::new();
        for value in headers {
            map.append(header::COOKIE, HeaderValue::from_bytes(value).unwrap());
        }
        values(&map, "ours").map(str::to_owned).collect()
    }

    #[test]
    fn foreign_cookies_do_not_hide_ours() {
        let many = [b"x=1; ".repeat(1000), b"ours=1; ".to_vec(), b"y=2; ".repeat(1000)].concat();
        for header in [
            &b"ours=1"[..],
            b"who=Ren\xc3\xa9e; ours=1",
            b"ours=1; who=\xff\xfe\x80",
            b"\xff\xfe=\x80; ours=1; \xc0",
            b"=; ;; =x; noequals; ours=1;",
            b"  ours = 1 ;x",
            b"a=b=c; ours=\"1\"; d={\"e\":\"f\"}",
            b"a=\"unclosed; ours=1",
            b"notours=2; ours2=3; Ours=4; ours=1",
            b"$Version=1; ours=1",
            b"a=%zz%; ours=1",
            b"a=1,2;ours=1",
            &many,
        ] {
            assert_eq!(found(&[header]), ["1"], "{}", String::from_utf8_lossy(header));
            assert_eq!(found(&[b"other=\xe9", header, b"more=1"]), ["1"]);
        }
        assert_eq!(found(&[b"ours=1; ours=\xff; ours=2", b"ours=; ours=3=4"]), ["1", "2", "", "3=4"]);
        assert!(found(&[b"ours", b"xours=1", b"a=ours=1"]).is_empty());
    }
}
