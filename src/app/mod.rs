//! The user interface: rendered by the server, then hydrated in the browser.
//!
//! Pages get the state of the session from `client::session`, and call the server through `api`. They depend
//! neither on where a token is stored nor on how it is attached to a request.
//!
//! There are two kinds of hydrated documents. The [`front`] has the pages that visitors see first, and little
//! wasm. [`App`] has the pages behind the login, with a router, in a part of the wasm that is fetched when it
//! is needed. A link from the app to the front has `rel="external"`, so that the router leaves it to the
//! browser.

use leptos::prelude::*;
use leptos_meta::{Title, provide_meta_context};
use leptos_router::{
    NavigateOptions, SsrMode,
    components::{FlatRoutes, Redirect, Route, Router},
    hooks::use_location,
    path,
};

use self::{
    account::AccountPage,
    admin::AdminPage,
    cluster::ClusterPage,
    components::Toasts,
    dom::focus_on_main,
    forgot::ForgotPage,
    frame::{Foot, SkipLink, titled},
    nav::Nav,
    new_version::NewVersionNotice,
    not_found::NotFoundPage,
    password::PasswordPage,
    reauthentication::Reauthentication,
    replay::ReplayPage,
    reset::ResetPage,
    return_to::redirect_to_sign_in,
    security::SecurityPage,
    sessions::SessionsPage,
    settings::SettingsPage,
    signed_out::SignedOut,
    theme::ThemeSwitch,
    user_menu::UserMenu,
    verify::VerifyPage,
};
use crate::client::{new_version::NewVersion, session::Session, sse, token::kept_copy};

mod account;
mod admin;
mod cluster;
mod components;
mod dates;
pub mod dom;
#[cfg(feature = "hydrate")]
pub mod executor;
mod forgot;
mod form;
mod frame;
pub mod front;
mod home;
mod login;
mod nav;
mod new_version;
mod not_found;
mod page_error;
mod password;
mod query;
mod reauthentication;
mod register;
mod relative_time;
mod replay;
mod reset;
mod resource_view;
pub mod return_to;
mod security;
mod sent_mail;
mod session_rows;
mod sessions;
mod settings;
pub mod shell;
mod signed_out;
pub mod theme;
mod token;
mod user_menu;
mod verify;
mod walk;

/// The mode that renders a page completely before the first byte is sent: a redirect needs the headers, and a
/// page without scripts needs all of its parts in place. None of these pages waits for data.
const WHOLE: SsrMode = SsrMode::Async;

/// The pages behind the login, with the parts that surround each of them.
#[component]
pub fn App() -> impl IntoView {
    provide_meta_context();
    NewVersion::provide();
    sse::follow(Session::provide());
    let toasts = Toasts::provide();
    let reauthentication = Reauthentication::provide();
    view! {
        <Title formatter=|title: String| titled(&title) />
        <Router>
            <SkipLink />
            <Nav path=use_location().pathname.into() account=UserMenu />
            <NewVersionNotice />
            <FocusOnNavigation />
            <main id="main" class="app" tabindex="-1">
                <FlatRoutes fallback=NotFoundPage>
                    <Route path=path!("/account") view=|| require_login(AccountPage) ssr=WHOLE />
                    <Route path=path!("/sessions") view=|| require_login(SessionsPage) ssr=WHOLE />
                    <Route path=path!("/security") view=|| require_login(SecurityPage) ssr=WHOLE />
                    <Route path=path!("/password") view=|| require_login(PasswordPage) ssr=WHOLE />
                    <Route path=path!("/settings") view=|| require_login(SettingsPage) ssr=WHOLE />
                    <Route path=path!("/admin") view=|| require_login(AdminPage) ssr=WHOLE />
                    <Route path=path!("/cluster") view=|| require_login(ClusterPage) ssr=WHOLE />
                    <Route path=path!("/replay") view=ReplayPage ssr=WHOLE />
                    <Route path=path!("/forgot") view=ForgotPage ssr=WHOLE />
                    <Route path=path!("/reset") view=ResetPage ssr=WHOLE />
                    <Route path=path!("/verify") view=VerifyPage ssr=WHOLE />
                </FlatRoutes>
            </main>
            {reauthentication.view()}
            {toasts.view()}
            <Foot><ThemeSwitch /></Foot>
        </Router>
    }
}

/// A page for signed-in users. The server redirects others to the sign-in page. When the session ends in an
/// open page, a notice replaces the page; a user who has kept a copy of the token is redirected to the page
/// that sends it.
fn require_login<V: IntoView + 'static>(page: impl Fn() -> V + Copy + Send + 'static) -> impl IntoView {
    let session = Session::expect();
    let path = use_location().pathname;
    move || match session.is_signed_in() {
        true => page().into_any(),
        false if cfg!(feature = "ssr") => {
            view! { <Redirect path=redirect_to_sign_in(&path.get_untracked()) /> }.into_any()
        }
        false if kept_copy().is_some() => {
            let options = NavigateOptions { replace: true, ..Default::default() };
            view! { <Redirect path="/replay" options /> }.into_any()
        }
        false => view! { <SignedOut path=path.get_untracked() /> }.into_any(),
    }
}

/// Moves the keyboard focus to the new page after a click on a link, as loading a document does.
#[component]
fn FocusOnNavigation() -> impl IntoView {
    let path = use_location().pathname;
    Effect::new(move |before: Option<String>| {
        let now = path.get();
        if before.is_some_and(|before| before != now) {
            focus_on_main();
        }
        now
    });
}
