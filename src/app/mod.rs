//! What the user sees: drawn by the server first, then live in the browser.
//!
//! Pages ask `client::session` who is signed in, and call the server through `api`. They name
//! neither storage nor tokens.

use leptos::prelude::*;
use leptos_meta::{HashedStylesheet, MetaTags, Title, provide_meta_context};
use leptos_router::{
    components::{ProtectedRoute, Route, Router, Routes},
    path,
};

use self::{
    account::AccountPage, home::HomePage, login::LoginPage, nav::Nav, not_found::NotFoundPage,
    register::RegisterPage,
};
use crate::client::session::Session;

mod account;
mod form;
mod home;
mod login;
mod nav;
mod not_found;
mod register;

/// The document around the app.
pub fn shell(options: &LeptosOptions) -> impl IntoView + use<> {
    let options = options.clone();
    view! {
        <!DOCTYPE html>
        <html lang="en">
            <head>
                <meta charset="utf-8" />
                <meta name="viewport" content="width=device-width, initial-scale=1" />
                <meta name="color-scheme" content="light dark" />
                <meta name="description" content="JWT login whose logout works at once, on every server." />
                <link rel="icon" href="/favicon.svg" type="image/svg+xml" />
                <HashedStylesheet options=options.clone() id="style" />
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
    Effect::new(mark_hydrated);
    view! {
        <Title formatter=|title: String| {
            if title.is_empty() { "Hallpass".to_owned() } else { format!("{title} · Hallpass") }
        } />
        <Router>
            <a class="skip" href="#main">"Skip to the content"</a>
            <Nav />
            <main id="main" tabindex="-1">
                <Routes fallback=NotFoundPage>
                    <Route path=path!("/") view=HomePage />
                    <ProtectedRoute
                        path=path!("/login")
                        condition=move || Some(!session.is_signed_in())
                        redirect_path=|| "/account"
                        view=LoginPage
                    />
                    <ProtectedRoute
                        path=path!("/register")
                        condition=move || Some(!session.is_signed_in())
                        redirect_path=|| "/account"
                        view=RegisterPage
                    />
                    <ProtectedRoute
                        path=path!("/account")
                        condition=move || Some(session.is_signed_in())
                        redirect_path=|| "/login"
                        view=AccountPage
                    />
                </Routes>
            </main>
            <footer class="foot">
                <p>"Hallpass: a log-in whose log-out works at once, on every server."</p>
            </footer>
        </Router>
    }
}

/// From here on clicks are heard: `data-hydrated` on `<html>` says so.
fn mark_hydrated() {
    if let Some(root) = document().document_element() {
        let _ = root.set_attribute("data-hydrated", "");
    }
}
