//! Cookies that scripts write for the server to know before it draws a page. None holds a secret.

use leptos::prelude::document;
use wasm_bindgen::JsCast;
use web_sys::HtmlDocument;

const ONE_YEAR: u32 = 31_536_000;

/// Keeps the value for a year; without one, the cookie is forgotten.
pub fn set(name: &str, value: Option<&str>) {
    let (value, max_age) = value.map_or(("", 0), |value| (value, ONE_YEAR));
    let _ = ours().set_cookie(&format!("{name}={value}; Path=/; Max-Age={max_age}; SameSite=Lax"));
}

pub fn is_set(name: &str) -> bool {
    let all = ours().cookie().unwrap_or_default();
    all.split("; ").any(|cookie| cookie.split_once('=').is_some_and(|(found, _)| found == name))
}

fn ours() -> HtmlDocument {
    document().unchecked_into()
}
