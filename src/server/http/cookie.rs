//! The cookies: the one that carries a browser's refresh token, and the one that shows it to be known to
//! an account. Both are out of reach of scripts (HttpOnly), never sent by another site
//! (SameSite=Strict), and by https bound to this host alone (`__Host-`). And one that scripts set: a log-out
//! waits to be confirmed.
//!
//! Browsers send the cookies of everything else on the host with ours: whatever bytes these have, ours are
//! found among them. What an HMAC of another service has made under an earlier name is left alone.

use axum::http::{HeaderMap, HeaderValue, header};
use cookie::{Cookie, SameSite, time::Duration};

use crate::{
    api::{
        cookie_name,
        error::ApiError,
        logout_pending_cookie,
        types::{Presence, RefreshToken},
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

/// How long a browser stays known to an account: 180 days after its last log-in.
const DEVICE_SECONDS: i64 = 180 * 86_400;

/// Sessions that are looked at for one request. No browser has more, and each may cost a question to SQL.
const MAX_SESSIONS: usize = 8;

/// The refresh tokens that a browser sent.
pub struct RefreshCookies {
    /// Those of our making first, and of each session the latest; then what is no token at all.
    pub tokens: Vec<RefreshToken>,
    names: Vec<String>,
}

impl RefreshCookies {
    pub fn of(headers: &HeaderMap, state: &AppState) -> Self {
        let mut ours: Vec<(SessionId, i64, RefreshToken)> = Vec::new();
        let (mut junk, mut names) = (Vec::new(), Vec::new());
        for service in services(&state.auth) {
            let name = cookie_name(REFRESH, state.config.server.https, service);
            for value in values(headers, &name) {
                let token = RefreshToken::new(value.to_owned());
                match state.auth.read_refresh_token(&token) {
                    Some((session, counter)) => match ours.iter_mut().find(|(id, ..)| *id == session) {
                        // An older one of the same session would be taken for stolen.
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

    /// `Set-Cookie` for each, to make the browser forget them.
    pub fn clear(&self, https: bool) -> impl Iterator<Item = HeaderValue> {
        self.names.iter().filter_map(move |name| header_value(name, "", 0, https))
    }

    /// The same but for the one that a new token takes the place of.
    pub fn clear_others(&self, state: &AppState) -> impl Iterator<Item = HeaderValue> {
        let (https, current) = (state.config.server.https, current_name(REFRESH, state));
        let others = self.names.iter().filter(move |name| **name != current);
        others.filter_map(move |name| header_value(name, "", 0, https))
    }

    /// What the browser is to see, and the token that it is seen by: of several, that of a session that holds.
    /// None without any.
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

/// `Set-Cookie` for a refresh token that is good for `seconds`.
pub fn set(token: &RefreshToken, seconds: i64, state: &AppState) -> Option<HeaderValue> {
    header_value(&current_name(REFRESH, state), token.expose(), seconds, state.config.server.https)
}

/// `Set-Cookie` that makes the browser forget the refresh token, whether it has sent one or not.
pub fn clear(state: &AppState) -> Option<HeaderValue> {
    header_value(&current_name(REFRESH, state), "", 0, state.config.server.https)
}

/// What shows the browser to be known to accounts (`auth/device.rs`), under all the names it may have.
pub fn read_device(headers: &HeaderMap, state: &AppState) -> Option<String> {
    let names = services(&state.auth).map(|service| cookie_name(DEVICE, state.config.server.https, service));
    let found: Vec<_> =
        names.flat_map(|name| values(headers, &name).map(str::to_owned).collect::<Vec<_>>()).collect();
    (!found.is_empty()).then(|| found.join(&device_cookie::SEPARATOR.to_string()))
}

/// `Set-Cookie` for what shows the browser to be known to an account.
pub fn set_device(token: &str, state: &AppState) -> Option<HeaderValue> {
    header_value(&current_name(DEVICE, state), token, DEVICE_SECONDS, state.config.server.https)
}

/// Whether a log-out in this browser waits to be confirmed.
pub fn is_logout_pending(headers: &HeaderMap, state: &AppState) -> bool {
    pending_names(headers, state).next().is_some()
}

/// `Set-Cookie` for when it no longer does. A script has set it, so it is no HttpOnly cookie.
pub fn clear_logout_pending(headers: &HeaderMap, state: &AppState) -> impl Iterator<Item = HeaderValue> {
    pending_names(headers, state).filter_map(|(name, https)| {
        let cookie = Cookie::build((name, ""))
            .path("/")
            .same_site(SameSite::Lax)
            .secure(https)
            .max_age(Duration::ZERO);
        HeaderValue::try_from(cookie.to_string()).ok()
    })
}

/// The names under which the browser has sent that cookie, and whether that is one for https: a script names
/// it by how the page came, which need not be what the settings say.
fn pending_names(headers: &HeaderMap, state: &AppState) -> impl Iterator<Item = (String, bool)> {
    let names = services(&state.auth)
        .flat_map(|service| [true, false].map(|https| (logout_pending_cookie(https, service), https)));
    names.filter(|(name, _)| values(headers, name).next().is_some())
}

/// The names of this service in its cookies, the one for new cookies first. A name is the id of a key whose
/// tokens are accepted: instances behind one proxy share it, another service has another, and a cookie under the
/// previous key's name is found for as long as that key is. The last, no name, is what earlier versions had.
pub fn services(auth: &Auth) -> impl Iterator<Item = &str> {
    auth.key_ids().chain([""])
}

fn current_name(kind: &str, state: &AppState) -> String {
    cookie_name(kind, state.config.server.https, state.auth.key_ids().next().unwrap_or_default())
}

/// What the browser sent under that name, each time it did: the same name can be set for several paths and for
/// a parent domain.
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
    let cookie = Cookie::build((name, value))
        .path("/")
        .http_only(true)
        .same_site(SameSite::Strict)
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
