//! The HTML documents around the pages. Only the server renders them.

use std::sync::{Arc, LazyLock};

use leptos::{html, nonce::use_nonce, prelude::*};
use leptos_meta::{HashedStylesheet, MetaTags};
use leptos_router::location::RequestUrl;

use super::{
    App,
    dom::PAGE,
    form::SignOutNote,
    frame::{Foot, SkipLink, titled},
    front::{Front, FrontPage},
    nav::Nav,
    not_found::NotFoundPage,
    page_error::PageErrorNotice,
    theme::Theme,
};
use crate::client::session::Session;

/// The locations of the site's files, and the names in its cookies, for rendering documents.
#[derive(Clone)]
pub struct Site {
    pub options: LeptosOptions,
    /// The prefix of the path of each file; empty while the files may change.
    pub root: Arc<str>,
    /// Whether the cookies are kept over https only: [`HTTPS_ATTRIBUTE`].
    ///
    /// [`HTTPS_ATTRIBUTE`]: crate::api::HTTPS_ATTRIBUTE
    pub https: bool,
    /// Whether the app's part of the wasm is a file of its own.
    pub is_split: bool,
    /// The names that this service uses in its cookies at that time, separated by spaces: [`SERVICES_ATTRIBUTE`].
    ///
    /// [`SERVICES_ATTRIBUTE`]: crate::api::SERVICES_ATTRIBUTE
    pub services: Arc<dyn Fn() -> String + Send + Sync>,
    /// The version of the files, if they do not change: [`VERSION_ATTRIBUTE`].
    ///
    /// [`VERSION_ATTRIBUTE`]: crate::api::VERSION_ATTRIBUTE
    pub version: Option<Arc<str>>,
    /// The path of the example service, if it is served on this site: [`NOTES_ATTRIBUTE`].
    ///
    /// [`NOTES_ATTRIBUTE`]: crate::api::NOTES_ATTRIBUTE
    pub notes: Option<Arc<str>>,
    /// The folder of the mails, if there is no mail server: [`MAIL_FOLDER_ATTRIBUTE`].
    ///
    /// [`MAIL_FOLDER_ATTRIBUTE`]: crate::api::MAIL_FOLDER_ATTRIBUTE
    pub mail_folder: Option<Arc<str>>,
    /// The path of the page that shows them: [`MAIL_PAGE_ATTRIBUTE`].
    ///
    /// [`MAIL_PAGE_ATTRIBUTE`]: crate::api::MAIL_PAGE_ATTRIBUTE
    pub mail_page: Option<&'static str>,
}

const DESCRIPTION: &str = "JWT login whose logout works at once, on every server.";

/// The origin of the site as the browser shows it, such as `https://id.example.com`: in the context of a document, if it
/// is known.
#[derive(Clone)]
pub struct SiteOrigin(pub Arc<str>);

/// The document around a page of the front.
pub fn front(site: &Site, page: FrontPage) -> impl IntoView + use<> {
    let head = view! { <StaticTitle page=page.title() /> <PreloadLoader site=site.clone() /> };
    hydrated(site, head.into_any(), view! { <Front page /> }.into_any())
}

/// The document around the app.
pub fn app(site: &Site) -> impl IntoView + use<> {
    let head = view! { <PreloadLoader site=site.clone() /> <MetaTags /> };
    hydrated(site, head.into_any(), view! { <App /> }.into_any())
}

fn hydrated(site: &Site, head: AnyView, page: AnyView) -> impl IntoView + use<> {
    let start = view! { <Start site=site.clone() /> };
    let body = view! { <PageErrorNotice /> <div id=PAGE class="page">{page}</div> };
    document(site, start.into_any(), head, body.into_any())
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
    let body = view! {
        <SkipLink />
        <Nav path=Signal::stored(String::new()) />
        <div class="bar-note"><SignOutNote /></div>
        {main}
        <Foot />
    };
    document(site, ().into_any(), view! { <StaticTitle page=title /> }.into_any(), body.into_any())
}

fn document(site: &Site, start: AnyView, head: AnyView, body: AnyView) -> impl IntoView + use<> {
    let Site { options, root, https, services, version, notes, mail_folder, mail_page, .. } = site.clone();
    let theme = use_context::<Theme>().unwrap_or_default();
    view! {
        <!DOCTYPE html>
        <html lang="en" data-theme=theme.attribute() data-services=services() data-https=https.then_some("") data-version=version data-notes=notes data-mail-folder=mail_folder data-mail-page=mail_page>
            <head>
                <meta charset="utf-8" />
                <meta name="viewport" content="width=device-width, initial-scale=1" />
                <meta name="color-scheme" content="light dark" />
                <meta name="description" content=DESCRIPTION />
                <LinkPreview />
                // Before the style sheet, which would delay it.
                {start}
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

/// The script that starts the wasm of a page, without its comments.
static START: LazyLock<String> = LazyLock::new(|| {
    let lines = include_str!("start.js").lines().map(str::trim_start);
    lines.filter(|line| !line.starts_with("//")).collect::<Vec<_>>().join("\n")
});

/// The script that hydrates a page. It is used instead of that of Leptos, which reports no failure, and whose
/// preloaded wasm WebKit fetches again.
#[component]
fn Start(site: Site) -> impl IntoView {
    let (folder, name) = (site.folder(), &site.options.output_name);
    let call =
        format!("{}({:?}, {:?})", *START, format!("{folder}/{name}.js"), format!("{folder}/{name}.wasm"));
    view! {
        <AutoReload options=site.options.clone() />
        <script nonce=use_nonce()>{call}</script>
    }
}

/// Preloads the loader of the wasm parts, which the browser would otherwise request only after it has read
/// the other scripts. The app's part is not preloaded: it would delay the style sheet and the first part on a slow
/// connection, and WebKit fetches a preloaded file again.
#[component]
fn PreloadLoader(site: Site) -> impl IntoView {
    /// The name that the build (`crates/build-site`, or cargo-leptos) gives to the loader.
    const LOADER: &str = "__wasm_split.______________________.js";
    let href = format!("{}/{LOADER}", site.folder());
    site.is_split.then(|| view! { <link rel="modulepreload" href=href nonce=use_nonce() /> })
}

impl Site {
    /// The path of the folder with the built files.
    fn folder(&self) -> String {
        format!("{}/{}", self.root, self.options.site_pkg_dir)
    }
}
