//! What the user sees: drawn by the server first, then live in the browser.
//!
//! Pages ask `client::session` who is signed in, and call the server through `api`. They name
//! neither where a token is kept nor how it gets into a request.

use leptos::prelude::*;
use leptos_meta::{MetaTags, Title, provide_meta_context};
use leptos_router::{
    SsrMode,
    components::{ProtectedRoute, Route, Router, Routes},
    hooks::use_location,
    path,
};
use wasm_bindgen::JsCast;
use web_sys::HtmlElement;

pub use self::still::still;
use self::{
    account::AccountPage,
    admin::AdminPage,
    cluster::ClusterPage,
    components::Toasts,
    home::HomePage,
    login::LoginPage,
    nav::Nav,
    next::next_page,
    not_found::NotFoundPage,
    password::PasswordPage,
    register::RegisterPage,
    replay::ReplayPage,
    sessions::SessionsPage,
    still::{Basics, Foot},
    theme::{Theme, ThemeSwitch},
};
use crate::client::{session::Session, token::kept_copy};

mod account;
mod admin;
mod ago;
mod answered;
mod cluster;
mod components;
mod form;
mod home;
mod login;
mod nav;
mod next;
mod not_found;
mod password;
mod register;
mod replay;
mod sessions;
mod still;
pub mod theme;
mod token;
mod walk;

/// Drawn to the end before the first byte goes out: a redirect needs the headers, and a page
/// without scripts needs all of its parts in their places. Nothing on these pages waits for data.
const WHOLE: SsrMode = SsrMode::Async;

/// The document around the app.
pub fn shell(options: &LeptosOptions) -> impl IntoView + use<> {
    let options = options.clone();
    let theme = use_context::<Theme>().unwrap_or_default();
    view! {
        <!DOCTYPE html>
        <html lang="en" data-theme=theme.attribute()>
            <head>
                <Basics options=options.clone() />
                <meta name="description" content="JWT login whose logout works at once, on every server." />
                <AutoReload options=options.clone() />
                <HydrationScripts options />
                <MetaTags />
            </head>
            <body>
                <App />
            </body>
        </html>
    }
}

/// The pages and what is around each of them.
#[component]
pub fn App() -> impl IntoView {
    provide_meta_context();
    let session = Session::provide();
    let toasts = Toasts::provide();
    Effect::new(mark_hydrated);
    view! {
        <Title formatter=|title: String| {
            if title.is_empty() { "Hallpass".to_owned() } else { format!("{title} · Hallpass") }
        } />
        <Router>
            <a class="skip" href="#main" rel="external">"Skip to the content"</a>
            <Nav />
            <FocusOnNavigation />
            <main id="main" tabindex="-1">
                <Routes fallback=NotFoundPage>
                    <Route path=path!("/") view=HomePage />
                    <Route path=path!("/replay") view=ReplayPage ssr=WHOLE />
                    <ProtectedRoute
                        path=path!("/login")
                        condition=move || Some(!session.is_signed_in())
                        redirect_path=next_page
                        view=LoginPage
                        ssr=WHOLE
                    />
                    <ProtectedRoute
                        path=path!("/register")
                        condition=move || Some(!session.is_signed_in())
                        redirect_path=next_page
                        view=RegisterPage
                        ssr=WHOLE
                    />
                    <ProtectedRoute
                        path=path!("/account")
                        condition=move || Some(session.is_signed_in())
                        redirect_path=|| if kept_copy().is_some() { "/replay" } else { "/login" }
                        view=AccountPage
                        ssr=WHOLE
                    />
                    <ProtectedRoute
                        path=path!("/sessions")
                        condition=move || Some(session.is_signed_in())
                        redirect_path=|| "/login?next=/sessions"
                        view=SessionsPage
                        ssr=WHOLE
                    />
                    <ProtectedRoute
                        path=path!("/password")
                        condition=move || Some(session.is_signed_in())
                        redirect_path=|| "/login?next=/password"
                        view=PasswordPage
                        ssr=WHOLE
                    />
                    <ProtectedRoute
                        path=path!("/admin")
                        condition=move || Some(session.is_signed_in())
                        redirect_path=|| "/login?next=/admin"
                        view=AdminPage
                        ssr=WHOLE
                    />
                    <ProtectedRoute
                        path=path!("/cluster")
                        condition=move || Some(session.is_signed_in())
                        redirect_path=|| "/login?next=/cluster"
                        view=ClusterPage
                        ssr=WHOLE
                    />
                </Routes>
            </main>
            {toasts.view()}
            <Foot><ThemeSwitch /></Foot>
        </Router>
    }
}

/// After a click on a link the keyboard goes on from the new page, as it would without scripts.
#[component]
fn FocusOnNavigation() -> impl IntoView {
    let path = use_location().pathname;
    Effect::new(move |before: Option<String>| {
        let now = path.get();
        if before.is_some_and(|before| before != now)
            && let Some(main) = document().get_element_by_id("main")
            && let Ok(main) = main.dyn_into::<HtmlElement>()
        {
            let _ = main.focus();
        }
        now
    });
}

/// From here on clicks are heard: `data-hydrated` on `<html>` says so.
fn mark_hydrated() {
    if let Some(root) = document().document_element() {
        let _ = root.set_attribute("data-hydrated", "");
    }
}
