//! The cookies that scripts can read: those that they set for the server to read before it renders a page, and
//! one that the server sets beside the refresh token, with the id of the session. None holds a secret.

use leptos::prelude::{document, window};
use wasm_bindgen::JsCast;
use web_sys::HtmlDocument;

use crate::api::{
    HTTPS_ATTRIBUTE, SERVICES_ATTRIBUTE, session_id_cookie, signed_out_cookie, types::ConfirmedLogout,
};

const ONE_YEAR: u32 = 31_536_000;

/// Sets the cookie for a year; `None` deletes it.
pub fn set(name: &str, value: Option<&str>) {
    let (value, max_age) = value.map_or(("", 0), |value| (value, ONE_YEAR));
    let secure = if is_https() { "; Secure" } else { "" };
    let _ = ours().set_cookie(&format!("{name}={value}; Path=/; Max-Age={max_age}; SameSite=Lax{secure}"));
}

pub fn is_set(name: &str) -> bool {
    value(name).is_some()
}

fn value(name: &str) -> Option<String> {
    let all = ours().cookie().unwrap_or_default();
    // By a character: the search for a text would be part of the wasm of the front.
    let cookies = all.split(';').map(|cookie| cookie.trim_start_matches(' '));
    let mut cookies = cookies.filter_map(|cookie| cookie.split_once('='));
    cookies.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
}

/// The id of the session that the cookies of this browser belong to; `None` if there is none, or if it is not
/// known: the server's keys, and with them the names, may have changed since this page was loaded.
pub fn session_id() -> Option<String> {
    of_server(session_id_cookie)
}

/// The confirmed logout that a plain form of this browser has made within the last minute, if no session has
/// begun since.
pub fn signed_out() -> Option<ConfirmedLogout> {
    let confirmed = of_server(signed_out_cookie)?.parse().ok()?;
    session_id().is_none().then_some(confirmed)
}

/// The value of a cookie that the server sets. It chooses the name by its settings, which may differ from how
/// this page was loaded.
fn of_server(name: fn(bool, &str) -> String) -> Option<String> {
    let names = services().into_iter().flat_map(|service| [true, false].map(|https| name(https, &service)));
    names.into_iter().find_map(|name| value(&name))
}

/// Whether the server keeps its cookies over https only, and this page was loaded by http.
pub fn needs_https() -> bool {
    let root = document().document_element();
    !is_https() && root.is_some_and(|root| root.has_attribute(HTTPS_ATTRIBUTE))
}

/// The names that this service uses in its cookies: the one for new cookies first, the empty one of earlier
/// versions last.
pub fn services() -> Vec<String> {
    let names = document().document_element().and_then(|root| root.get_attribute(SERVICES_ATTRIBUTE));
    names.unwrap_or_default().split(' ').map(str::to_owned).collect()
}

/// Whether this page was loaded over https, where cookies can be bound to its host (`__Host-`).
pub fn is_https() -> bool {
    window().location().protocol().is_ok_and(|protocol| protocol == "https:")
}

fn ours() -> HtmlDocument {
    document().unchecked_into()
}
