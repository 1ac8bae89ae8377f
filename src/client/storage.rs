//! The store of the access token: `localStorage`, so that all tabs share it. The only file that names
//! gloo-storage.
//!
//! Scripts on the page can read the token there (the OWASP Session Management Cheat Sheet warns of exactly
//! that). The damage is limited: the token lives five minutes at most, it is dead on every instance once its
//! session is revoked, and the refresh token, which could obtain more of them, is in an HttpOnly cookie that
//! no script can read. The Content-Security-Policy keeps foreign scripts out.

use std::cell::RefCell;

#[expect(clippy::disallowed_types, reason = "the one place that keeps the token")]
use gloo_storage::LocalStorage;
use gloo_storage::{Storage, errors::StorageError};
use js_sys::Reflect;
use leptos::{logging::warn, prelude::window};
use serde::{Deserialize, Serialize};
use wasm_bindgen::JsValue;

use super::cookie;
use crate::api::{
    logout_pending_cookie,
    types::{AccessToken, TokenResponse},
};

const KEY: &str = "hallpass-session";
const LAST_WORDS: &str = "hallpass-last-words";
const LANGUAGE_OF_DATES: &str = "hallpass-dates";
const DISMISSED_VERSION: &str = "hallpass-dismissed-version";

/// A token is renewed when less than this share of its life is left.
const RENEW_BELOW: f64 = 0.2;

/// An access token, with what is needed to compute its age even if this device's clock is wrong.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredToken {
    pub access_token: AccessToken,
    /// When the token expires, in Unix seconds by the server's clock.
    pub expires_at: f64,
    /// The lifetime of the token when it was issued, in seconds.
    pub lifetime: f64,
    /// The server's clock minus this device's, in seconds.
    pub clock_offset: f64,
    /// The id of the session; empty if an earlier version has stored the token.
    #[serde(default)]
    pub session_id: String,
}

impl StoredToken {
    /// The token of a response that arrived at `device_now` (Unix seconds).
    pub fn new(response: TokenResponse, device_now: f64) -> Self {
        let (server_now, lifetime) = (response.server_time as f64, response.expires_in as f64);
        Self {
            access_token: response.access_token,
            expires_at: server_now + lifetime,
            lifetime,
            clock_offset: server_now - device_now,
            session_id: response.session_id,
        }
    }

    /// Whether the token is due for renewal, because too little of its life is left.
    pub fn is_due(&self, device_now: f64) -> bool {
        self.seconds_to_refresh(device_now) < 0.0
    }

    /// Seconds until the token is due for renewal; negative afterwards.
    pub fn seconds_to_refresh(&self, device_now: f64) -> f64 {
        self.seconds_left(device_now) - self.lifetime * RENEW_BELOW
    }

    /// Seconds until the token expires, when this device's clock shows `device_now`.
    pub fn seconds_left(&self, device_now: f64) -> f64 {
        self.expires_at - (device_now + self.clock_offset)
    }
}

#[expect(clippy::disallowed_types, reason = "the one place that keeps the token")]
type Kept = LocalStorage;

/// Whether there is a `localStorage`: where cookies are blocked, even access to it can fail.
fn is_available() -> bool {
    window().local_storage().is_ok_and(|storage| storage.is_some())
}

fn text(key: &str) -> Option<String> {
    if is_available() { Kept::raw().get_item(key).ok()? } else { None }
}

/// Stores a text for other tabs. Without storage it is dropped, because no other tab could read it.
fn set_text(key: &str, value: &str) {
    if is_available() {
        let _ = Kept::raw().set_item(key, value);
    }
}

fn delete(key: &str) {
    if is_available() {
        Kept::delete(key);
    }
}

thread_local! {
    /// The token of a browser whose storage is off or full: only this tab has it, until it is closed.
    static UNSTORED: RefCell<Option<StoredToken>> = const { RefCell::new(None) };
    /// The last token of the session that this tab has seen, for a logout after the storage has lost the
    /// token.
    static LAST_SEEN: RefCell<Option<AccessToken>> = const { RefCell::new(None) };
}

/// The token of this browser. `None` if there is none, or if the stored one cannot be read. A token of another
/// session than that of the cookies counts as expired.
pub fn load() -> Option<StoredToken> {
    let stored = match is_available().then(|| Kept::get(KEY)) {
        Some(Ok(token)) => Some(token),
        Some(Err(StorageError::KeyNotFound(_))) | None => None,
        Some(Err(_)) => {
            warn!("The stored value of {KEY} cannot be read: a new token is requested.");
            None
        }
    };
    let mut token = stored.or_else(|| UNSTORED.with_borrow(Clone::clone));
    // A session that was begun without this code, by a plain form or in a program, has replaced that of the token.
    if let Some(token) = &mut token
        && !token.session_id.is_empty()
        && cookie::session_id().is_some_and(|current| current != token.session_id)
    {
        token.expires_at = 0.0;
    }
    if let Some(token) = &token {
        LAST_SEEN.set(Some(token.access_token.clone()));
    }
    token
}

/// The last token that this tab has loaded or saved, until [`forget_last_seen`].
pub fn last_seen() -> Option<AccessToken> {
    LAST_SEEN.with_borrow(Clone::clone)
}

/// Makes the token the last that was seen, without storing it.
pub fn see(token: AccessToken) {
    LAST_SEEN.set(Some(token));
}

/// Deletes the last seen token, because the session has ended.
pub fn forget_last_seen() {
    LAST_SEEN.take();
}

/// Whether this browser stores a token, even one that cannot be read.
pub fn holds_a_token() -> bool {
    text(KEY).is_some() || UNSTORED.with_borrow(Option::is_some)
}

/// Whether this browser blocks the cookies of this site, without which there is no session.
pub fn blocks_cookies() -> bool {
    let enabled = Reflect::get(&window().navigator(), &"cookieEnabled".into());
    enabled.is_ok_and(|enabled| enabled == JsValue::FALSE)
}

/// The limitation that the browser's settings impose, as a note for the user: the most severe one.
pub fn browser_limitation() -> Option<&'static str> {
    let keeps_nothing = UNSTORED.with_borrow(Option::is_some) || !is_available();
    if blocks_cookies() {
        Some("This browser blocks the cookies of this site. You can sign in once you allow them.")
    } else if keeps_nothing {
        Some(
            "This browser stores nothing for this site, so other tabs notice a sign-out only when you look at them.",
        )
    } else {
        None
    }
}

/// Stores the token: in this tab's memory if there is no storage.
pub fn save(token: &StoredToken) {
    let refused = !is_available() || Kept::set(KEY, token).is_err();
    UNSTORED.set(refused.then(|| token.clone()));
    LAST_SEEN.set(Some(token.access_token.clone()));
}

/// Marks the token as due for renewal. It is not removed, because other tabs would treat that as a logout.
pub fn expire() {
    if let Some(token) = load() {
        save(&StoredToken { expires_at: 0.0, ..token });
    }
}

pub fn clear() {
    delete(KEY);
    UNSTORED.take();
}

/// Whether a logout in this browser still has to be confirmed by the server.
pub fn is_logout_pending() -> bool {
    logout_pending_names().any(|name| cookie::is_set(&name))
}

/// Records, across pages, whether a logout still has to be confirmed by the server. Has no effect where
/// cookies are blocked, where there is no session either.
pub fn set_logout_pending(pending: bool) {
    if pending {
        let mut names = logout_pending_names();
        names.next().into_iter().for_each(|name| cookie::set(&name, Some("true")));
    } else {
        logout_pending_names().filter(|name| cookie::is_set(name)).for_each(|name| cookie::set(&name, None));
    }
}

/// All names that the cookie of a pending logout may have, the one to set first: the service's keys may have
/// changed since it was set.
fn logout_pending_names() -> impl Iterator<Item = String> {
    let https = cookie::is_https();
    cookie::services().into_iter().map(move |service| logout_pending_cookie(https, &service))
}

/// The reason why the last session in this browser ended, as stored by the tab that noticed it first.
pub fn last_words() -> Option<String> {
    text(LAST_WORDS)
}

/// Stores the reason for the other tabs. To be called before the token is removed.
pub fn set_last_words(words: Option<&str>) {
    match words {
        Some(words) => set_text(LAST_WORDS, words),
        None => delete(LAST_WORDS),
    }
}

/// The new version of the site that the user does not want to be notified of, if any.
pub fn dismissed_version() -> Option<String> {
    text(DISMISSED_VERSION)
}

pub fn set_dismissed_version(hash: &str) {
    set_text(DISMISSED_VERSION, hash);
}

/// The tag of the language in which the user wants to read dates; `None` for that of the browser.
pub fn language_of_dates() -> Option<String> {
    text(LANGUAGE_OF_DATES)
}

pub fn set_language_of_dates(tag: Option<&str>) {
    match tag {
        Some(tag) => set_text(LANGUAGE_OF_DATES, tag),
        None => delete(LANGUAGE_OF_DATES),
    }
}

/// Whether a `storage` event of the browser concerns the token.
pub fn is_about_the_token(key: Option<&str>) -> bool {
    // `None`: another tab cleared the whole storage.
    key.is_none_or(|key| key == KEY)
}

/// This device's clock, in Unix seconds. It may be wrong: compare it only with itself.
pub fn device_now() -> f64 {
    js_sys::Date::now() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life_is_measured_by_the_servers_clock() {
        let response = TokenResponse {
            access_token: AccessToken::new("a.b.c".into()),
            token_type: "Bearer".into(),
            expires_in: 300,
            server_time: 1_000_000,
            session_id: "s".into(),
            refresh_token: None,
        };
        for wrong_by in [-3600.0, 0.0, 3600.0] {
            let device_now = 1_000_000.0 + wrong_by;
            let token = StoredToken::new(response.clone(), device_now);
            assert_eq!(token.seconds_left(device_now), 300.0);
            assert_eq!(token.seconds_left(device_now + 290.0), 10.0);
        }
    }
}
