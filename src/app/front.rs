//! The front: the pages that anyone sees first. Each is a document of its own, without a router, so that the
//! first load is light. Links lead from one to the other, and into the app, as they do without scripts.

use leptos::prelude::*;

use super::{
    dom::mark_hydrated,
    frame::{Foot, SkipLink},
    home::HomePage,
    login::LoginPage,
    nav::Nav,
    register::RegisterPage,
    theme::ThemeSwitch,
};
use crate::client::session::Session;

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

    /// Of its document; empty for the site's own.
    pub fn title(self) -> &'static str {
        match self {
            Self::Home => "",
            Self::Login => "Sign in",
            Self::Register => "Create an account",
        }
    }

    /// Whether it is of no use to those who are signed in.
    pub fn is_for_guests(self) -> bool {
        self != Self::Home
    }

    pub fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|page| page.path() == path)
    }
}

/// The page, and what is around it.
#[component]
pub fn Front(page: FrontPage) -> impl IntoView {
    let session = Session::provide();
    // The others are left as soon as it begins.
    if !page.is_for_guests() {
        session.follow();
    }
    mark_hydrated();
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
