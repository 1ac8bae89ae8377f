//! Light, dark, or as the system has it. The choice is in a cookie, so that the server draws the page
//! in the right colours from the first byte.

use leptos::prelude::*;
use serde::{Deserialize, Serialize};
use wasm_bindgen::JsCast;
use web_sys::HtmlDocument;

/// The name of the cookie. It holds no secret, and scripts write it.
pub const COOKIE: &str = "hallpass-theme";

const ONE_YEAR: u32 = 31_536_000;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Theme {
    /// As the system has it.
    #[default]
    System,
    Light,
    Dark,
}

impl Theme {
    /// By the value of the cookie.
    pub fn from_cookie(value: &str) -> Self {
        match value {
            "light" => Self::Light,
            "dark" => Self::Dark,
            _ => Self::System,
        }
    }

    /// The value of the cookie, and of `data-theme` on `<html>`; none for the system's.
    pub fn attribute(self) -> Option<&'static str> {
        match self {
            Self::System => None,
            Self::Light => Some("light"),
            Self::Dark => Some("dark"),
        }
    }

    fn apply(self) {
        let document = document();
        let Some(root) = document.document_element() else { return };
        let (value, max_age) = match self.attribute() {
            Some(name) => (name, ONE_YEAR),
            None => ("", 0),
        };
        let _ = match self.attribute() {
            Some(name) => root.set_attribute("data-theme", name),
            None => root.remove_attribute("data-theme"),
        };
        let document: HtmlDocument = document.unchecked_into();
        let _ = document.set_cookie(&format!("{COOKIE}={value}; Path=/; Max-Age={max_age}; SameSite=Lax"));
    }
}

/// The switch.
#[component]
pub fn ThemeSwitch() -> impl IntoView {
    let drawn = SharedValue::new(|| use_context::<Theme>().unwrap_or_default()).into_inner();
    let chosen = RwSignal::new(drawn);
    let choice = move |theme: Theme, word: &'static str| {
        let choose = move |_| {
            chosen.set(theme);
            theme.apply();
        };
        view! {
            <button type="button" aria-pressed=move || (chosen.get() == theme).to_string() on:click=choose>{word}</button>
        }
    };
    view! {
        <div class="switch" role="group" aria-label="Colours">
            {choice(Theme::System, "System")} {choice(Theme::Light, "Light")} {choice(Theme::Dark, "Dark")}
        </div>
    }
}
