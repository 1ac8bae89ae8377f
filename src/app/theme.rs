//! The color theme: light, dark, or the system's. The choice is in a cookie, so that the server renders the
//! page in the right colors from the first byte.

use std::{
    convert::Infallible,
    fmt::{self, Display, Formatter},
    str::FromStr,
};

use leptos::prelude::*;

use crate::client::cookie;

/// The name of the cookie that holds the theme. It holds no secret, and scripts write it.
pub const COOKIE: &str = "hallpass-theme";

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Theme {
    /// The setting of the system.
    #[default]
    System,
    Light,
    Dark,
}

impl Theme {
    /// The value of `data-theme` on `<html>`; `None` for the system's setting.
    pub fn attribute(self) -> Option<&'static str> {
        match self {
            Self::System => None,
            Self::Light => Some("light"),
            Self::Dark => Some("dark"),
        }
    }

    fn apply(self) {
        let Some(root) = document().document_element() else { return };
        let _ = match self.attribute() {
            Some(name) => root.set_attribute("data-theme", name),
            None => root.remove_attribute("data-theme"),
        };
        cookie::set(COOKIE, self.attribute());
    }
}

impl Display for Theme {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.attribute().unwrap_or("system"))
    }
}

impl FromStr for Theme {
    type Err = Infallible;

    fn from_str(value: &str) -> Result<Self, Infallible> {
        Ok(match value {
            "light" => Self::Light,
            "dark" => Self::Dark,
            _ => Self::System,
        })
    }
}

/// The theme switcher.
#[component]
pub fn ThemeSwitch() -> impl IntoView {
    let drawn = SharedValue::new_str(|| use_context::<Theme>().unwrap_or_default()).into_inner();
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
        <div class="switch" role="group" aria-label="Colors">
            {choice(Theme::System, "System")} {choice(Theme::Light, "Light")} {choice(Theme::Dark, "Dark")}
        </div>
    }
}
