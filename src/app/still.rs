//! Pages that never become live: the frame of all others, and no script.

use leptos::prelude::*;
use leptos_meta::HashedStylesheet;
use leptos_router::components::Router;

use super::{nav::Nav, theme::Theme};
use crate::client::session::Session;

/// The document around a page that is all text. Only the server draws it: `content` is HTML.
pub fn still(options: LeptosOptions, title: &str, content: &str) -> impl IntoView + use<> {
    Session::provide();
    let (title, content) = (format!("{title} · Hallpass"), content.to_owned());
    let theme = use_context::<Theme>().unwrap_or_default();
    view! {
        <!DOCTYPE html>
        <html lang="en" data-theme=theme.attribute()>
            <head>
                <Basics options />
                <title>{title}</title>
            </head>
            <body>
                <Router>
                    <a class="skip" href="#main">"Skip to the content"</a>
                    <Nav />
                    <main id="main" tabindex="-1" inner_html=content></main>
                    <Foot />
                </Router>
            </body>
        </html>
    }
}

/// What the head of every document has.
#[component]
pub fn Basics(options: LeptosOptions) -> impl IntoView {
    view! {
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <link rel="icon" href="/favicon.svg" type="image/svg+xml" />
        <HashedStylesheet options id="style" />
    }
}

/// What stands below every page; `children` are for those that are live. The link leads out of the app, to
/// a page that is still.
#[component]
pub fn Foot(#[prop(optional)] children: Option<Children>) -> impl IntoView {
    view! {
        <footer class="foot">
            <p>"Hallpass: a log-in whose log-out works at once, on every server."</p>
            <p><a href="/docs" rel="external">"API"</a></p>
            {children.map(|children| children())}
        </footer>
    }
}
