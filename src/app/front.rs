//! The front: the pages that visitors see first. Each is a document of its own, without a router, so that the
//! first load is small. Links between them and into the app load a document, as they do without scripts.

use leptos::prelude::*;

use super::{
    frame::{Foot, SkipLink},
    home::HomePage,
    login::LoginPage,
    nav::Nav,
    register::RegisterPage,
    theme::ThemeSwitch,
};
use crate::client::{session::Session, sse};

/// A page of the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrontPage {
    Home,
    Login,
    Register,
}

impl FrontPage {
    pub const ALL: [Self; 3] = [Self::Home, Self::Login, Self::Register];

    pub fn path(self) -> &'static str {
        match self {
            Self::Home => "/",
            Self::Login => "/login",
            Self::Register => "/register",
        }
    }

    /// The title of the document; empty for the site's own.
    pub fn title(self) -> &'static str {
        match self {
            Self::Home => "",
            Self::Login => "Sign in",
            Self::Register => "Create an account",
        }
    }

    /// Whether the page is of no use to signed-in users.
    pub fn is_for_guests(self) -> bool {
        self != Self::Home
    }

    pub fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|page| page.path() == path)
    }
}

/// A page of the front, with the parts that surround it.
#[component]
pub fn Front(page: FrontPage) -> impl IntoView {
    let session = Session::provide();
    // The pages for guests are left as soon as a session begins.
    if !page.is_for_guests() {
        sse::follow(session);
    }
    view! {
        <SkipLink />
        <Nav path=Signal::stored(page.path().to_owned()) />
        <main id="main" tabindex="-1">
            {match page {
                FrontPage::Home => view! { <HomePage /> }.into_any(),
                FrontPage::Login => view! { <LoginPage /> }.into_any(),
                FrontPage::Register => view! { <RegisterPage /> }.into_any(),
            }}
        </main>
        <Foot><ThemeSwitch /></Foot>
    }
}
