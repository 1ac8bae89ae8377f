//! The HTML documents around the pages. Only the server renders them.

use std::sync::Arc;

use leptos::{WasmSplitManifest, html, nonce::use_nonce, prelude::*};
use leptos_meta::{HashedStylesheet, MetaTags};
use leptos_router::location::RequestUrl;

use super::{
    App,
    frame::{Foot, SkipLink, titled},
    front::{Front, FrontPage},
    nav::Nav,
    not_found::NotFoundPage,
    theme::Theme,
};
use crate::{api::types::Presence, client::session::Session};

/// The locations of the site's files, and the names in its cookies, for rendering documents.
#[derive(Clone)]
pub struct Site {
    pub options: LeptosOptions,
    /// The prefix of the path of each file; empty while the files may change.
    pub root: Arc<str>,
    /// The names that this service uses in its cookies at that time, separated by spaces: [`SERVICES_ATTRIBUTE`].
    ///
    /// [`SERVICES_ATTRIBUTE`]: crate::api::SERVICES_ATTRIBUTE
    pub services: Arc<dyn Fn() -> String + Send + Sync>,
    /// The path of the example service, if it is served on this site: [`NOTES_ATTRIBUTE`].
    ///
    /// [`NOTES_ATTRIBUTE`]: crate::api::NOTES_ATTRIBUTE
    pub notes: Option<Arc<str>>,
}

const DESCRIPTION: &str = "JWT login whose logout works at once, on every server.";

/// The origin of the site as the browser shows it, such as `https://id.example.com`: in the context of a document, if it
/// is known.
#[derive(Clone)]
pub struct SiteOrigin(pub Arc<str>);

/// The document around a page of the front.
pub fn front(site: &Site, page: FrontPage) -> impl IntoView + use<> {
    let head = view! { <StaticTitle page=page.title() /> <Scripts site=site.clone() /> };
    document(site, head.into_any(), view! { <Front page /> }.into_any())
}

/// The document around the app.
pub fn app(site: &Site) -> impl IntoView + use<> {
    let head = view! { <Scripts site=site.clone() /> <PreloadApp /> <MetaTags /> };
    document(site, head.into_any(), view! { <App /> }.into_any())
}

/// A document that is not hydrated. `content` is HTML.
pub fn still(site: &Site, title: &'static str, content: &str) -> impl IntoView + use<> {
    let main = view! { <main id="main" tabindex="-1" inner_html=content.to_owned()></main> };
    without_scripts(site, title, main.into_any())
}

/// The document for an address that does not exist.
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
    let Site { options, root, services, notes } = site.clone();
    let theme = use_context::<Theme>().unwrap_or_default();
    view! {
        <!DOCTYPE html>
        <html lang="en" data-theme=theme.attribute() data-services=services() data-notes=notes>
            <head>
                <meta charset="utf-8" />
                <meta name="viewport" content="width=device-width, initial-scale=1" />
                <meta name="color-scheme" content="light dark" />
                <meta name="description" content=DESCRIPTION />
                <LinkPreview />
                <link rel="icon" href="/favicon.ico" sizes="32x32" />
                <link rel="icon" href="/favicon.svg" type="image/svg+xml" />
                <link rel="apple-touch-icon" href="/apple-touch-icon.png" />
                <HashedStylesheet options root=root.to_string() id="style" />
                {head}
            </head>
            <body>{body}</body>
        </html>
    }
}

/// What other sites show with a link to this page (<https://ogp.me>).
#[component]
fn LinkPreview() -> impl IntoView {
    let (SiteOrigin(origin), page): (_, RequestUrl) = (use_context()?, use_context()?);
    let page = page.parse().ok()?;
    let tags = [
        ("og:type", "website".to_owned()),
        ("og:title", titled("")),
        ("og:description", DESCRIPTION.to_owned()),
        ("og:url", format!("{origin}{}", page.path())),
        ("og:image", format!("{origin}/preview.png")),
    ];
    Some(tags.map(|(name, content)| html::meta().attr("property", name).content(content)).collect_view())
}

/// A title that does not change while its document is open. Set as HTML, because Leptos appends a hydration
/// marker to text, which is not a comment inside `<title>`.
#[component]
fn StaticTitle(page: &'static str) -> impl IntoView {
    view! { <title inner_html=titled(page)></title> }
}

/// The scripts that hydrate a page.
#[component]
fn Scripts(site: Site) -> impl IntoView {
    let Site { options, root, .. } = site;
    view! {
        <AutoReload options=options.clone() />
        <HydrationScripts options root=root.to_string() />
        <PreloadLoader />
    }
}

/// Preloads the loader of the wasm parts, which the browser would otherwise request only after it has read
/// the other scripts.
#[component]
fn PreloadLoader() -> impl IntoView {
    let WasmSplitManifest(manifest) = use_context()?;
    let (root, _, loader) = manifest.get_value();
    Some(view! { <link rel="modulepreload" href=format!("{root}/{loader}") nonce=use_nonce() /> })
}

/// Preloads the part of the wasm with the app, for signed-in users: visitors do not need it yet.
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
