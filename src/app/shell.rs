//! The documents around the pages, which only the server draws; and what is on each of them.

use std::sync::Arc;

use leptos::{WasmSplitManifest, nonce::use_nonce, prelude::*};
use leptos_meta::{HashedStylesheet, MetaTags};

use super::{
    App,
    frame::{Foot, SkipLink, titled},
    front::{Front, FrontPage},
    nav::Nav,
    not_found::NotFoundPage,
    theme::Theme,
};
use crate::{api::types::Presence, client::session::Session};

/// Where the files of the site are.
#[derive(Clone)]
pub struct Site {
    pub options: LeptosOptions,
    /// What stands before the path of each; nothing while they may change.
    pub root: Arc<str>,
    /// The names of this service in its cookies, separated by spaces: [`SERVICES_ATTRIBUTE`].
    ///
    /// [`SERVICES_ATTRIBUTE`]: crate::api::SERVICES_ATTRIBUTE
    pub services: Arc<str>,
}

/// Around a page of the front.
pub fn front(site: &Site, page: FrontPage) -> impl IntoView + use<> {
    let head = view! { <StaticTitle page=page.title() /> <Scripts site=site.clone() /> };
    document(site, head.into_any(), view! { <Front page /> }.into_any())
}

/// Around the app.
pub fn app(site: &Site) -> impl IntoView + use<> {
    let head = view! { <Scripts site=site.clone() /> <PreloadApp /> <MetaTags /> };
    document(site, head.into_any(), view! { <App /> }.into_any())
}

/// Around text that is all there is to a page: no script makes it live. `content` is HTML.
pub fn still(site: &Site, title: &'static str, content: &str) -> impl IntoView + use<> {
    let main = view! { <main id="main" tabindex="-1" inner_html=content.to_owned()></main> };
    without_scripts(site, title, main.into_any())
}

/// At an address that leads nowhere.
pub fn not_found(site: &Site) -> impl IntoView + use<> {
    let main = view! { <main id="main" tabindex="-1"><NotFoundPage /></main> };
    without_scripts(site, "Not found", main.into_any())
}

fn without_scripts(site: &Site, title: &'static str, main: AnyView) -> impl IntoView + use<> {
    Session::provide();
    let body = view! { <SkipLink /> <Nav path=Signal::stored(String::new()) /> {main} <Foot /> };
    document(site, view! { <StaticTitle page=title /> }.into_any(), body.into_any())
}

fn document(site: &Site, head: AnyView, body: AnyView) -> impl IntoView + use<> {
    let Site { options, root, services } = site.clone();
    let theme = use_context::<Theme>().unwrap_or_default();
    view! {
        <!DOCTYPE html>
        <html lang="en" data-theme=theme.attribute() data-services=services.to_string()>
            <head>
                <meta charset="utf-8" />
                <meta name="viewport" content="width=device-width, initial-scale=1" />
                <meta name="color-scheme" content="light dark" />
                <meta name="description" content="JWT login whose logout works at once, on every server." />
                <link rel="icon" href="/favicon.svg" type="image/svg+xml" />
                <HashedStylesheet options root=root.to_string() id="style" />
                {head}
            </head>
            <body>{body}</body>
        </html>
    }
}

/// A title that stays. As HTML, because text is followed by a marker for what makes a page live, which is
/// no comment in here.
#[component]
fn StaticTitle(page: &'static str) -> impl IntoView {
    view! { <title inner_html=titled(page)></title> }
}

/// What makes a page live.
#[component]
fn Scripts(site: Site) -> impl IntoView {
    let Site { options, root, .. } = site;
    view! {
        <AutoReload options=options.clone() />
        <HydrationScripts options root=root.to_string() />
        <PreloadLoader />
    }
}

/// Has the browser fetch at once what it would ask for only when it has read the other scripts: what loads
/// the parts of the wasm.
#[component]
fn PreloadLoader() -> impl IntoView {
    let WasmSplitManifest(manifest) = use_context()?;
    let (root, _, loader) = manifest.get_value();
    Some(view! { <link rel="modulepreload" href=format!("{root}/{loader}") nonce=use_nonce() /> })
}

/// And the part with the app, for those who are about to use it: others read first.
#[component]
fn PreloadApp() -> impl IntoView {
    if use_context() != Some(Presence::SignedIn) {
        return None;
    }
    let WasmSplitManifest(manifest) = use_context()?;
    let (root, parts, _) = manifest.get_value();
    let links = parts.get("app").into_iter().flatten().map(|file| {
        view! { <link rel="preload" href=format!("{root}/{file}.wasm") r#as="fetch" crossorigin="" fetchpriority="low" /> }
    });
    Some(links.collect_view())
}
