//! Hallpass: JWT login whose logout works at once, on every server.
//!
//! The tree is split first by where code runs, then by what happens to a token. ARCHITECTURE.md has the
//! map, README.md an order in which to read it.

#![recursion_limit = "256"] // for view types, which are not erased if RUSTFLAGS overrides .cargo/config.toml

pub mod api; // the calls and their types          both sides
pub mod app; // the pages                          rendered by the server, hydrated in the browser
pub mod client; // keeps and attaches tokens       runs in the browser

#[cfg(feature = "ssr")]
pub mod server; // issues, verifies, revokes       the server only

// `ToSchema` describes a type of `api` for the OpenAPI document (`server/http/openapi`). The browser needs no
// description: there the name is a derive of the standard library, whose unused generic methods compile to no
// code.
#[cfg(not(feature = "ssr"))]
use std::hash::Hash as ToSchema;
#[cfg(feature = "ssr")]
use utoipa::ToSchema;

/// Hydrates the page that the server rendered. The browser calls this once, when the wasm has loaded. Until
/// then, the page works as it does without scripts.
#[cfg(feature = "hydrate")]
#[wasm_bindgen::prelude::wasm_bindgen]
pub fn hydrate() {
    use app::{
        executor,
        front::{Front, FrontPage},
    };
    use client::page_error::PageError;
    use leptos::prelude::*;

    std::panic::set_hook(Box::new(|panic| {
        console_error_panic_hook::hook(panic);
        PageError::Panic.show();
    }));
    executor::init();
    match FrontPage::at(&window().location().pathname().unwrap_or_default()) {
        Some(page) => hydrate_page(move || view! { <Front page /> }),
        None => wasm_bindgen_futures::spawn_local(async {
            client::lazy_app::fetched().await;
            let _ = start_app().await;
        }),
    }
}

/// Hydrates the app: the entry point into the part of the wasm that contains it (see `client/lazy_app.rs`).
///
/// # Errors
/// The part cannot be loaded.
#[cfg(feature = "hydrate")]
#[leptos::wasm_split::wasm_split(app, wasm_split_path = leptos::wasm_split, fallible)]
fn start_app() -> Result<(), leptos::wasm_split::SplitLoaderError> {
    hydrate_page(app::App);
    Ok(())
}

/// Hydrates the element that contains the page.
#[cfg(feature = "hydrate")]
fn hydrate_page<V: leptos::IntoView>(page: impl FnOnce() -> V + 'static) {
    use app::dom;
    use wasm_bindgen::JsCast;

    let Some(element) = leptos::prelude::document().get_element_by_id(dom::PAGE) else { return };
    dom::move_foreign_elements();
    leptos::mount::hydrate_from(element.unchecked_into(), page).forget();
    dom::mark_hydrated();
}
