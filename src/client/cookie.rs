//! Cookies that scripts set for the server to read before it renders a page. None holds a secret.

use leptos::prelude::{document, window};
use wasm_bindgen::JsCast;
use web_sys::HtmlDocument;

use crate::api::SERVICES_ATTRIBUTE;

const ONE_YEAR: u32 = 31_536_000;

/// Sets the cookie for a year; `None` deletes it.
pub fn set(name: &str, value: Option<&str>) {
    let (value, max_age) = value.map_or(("", 0), |value| (value, ONE_YEAR));
    let secure = if is_https() { "; Secure" } else { "" };
    let _ = ours().set_cookie(&format!("{name}={value}; Path=/; Max-Age={max_age}; SameSite=Lax{secure}"));
}

pub fn is_set(name: &str) -> bool {
    let all = ours().cookie().unwrap_or_default();
    all.split("; ").any(|cookie| cookie.split_once('=').is_some_and(|(found, _)| found == name))
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
