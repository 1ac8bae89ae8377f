//! Hallpass: JWT login whose logout works at once, on every server.
//!
//! The tree is split first by where code runs, then by what happens to a token. ARCHITECTURE.md has the
//! reading order.

#![recursion_limit = "256"] // for views whose types are not erased, under RUSTFLAGS of one's own

pub mod api; // what crosses the network           both sides
pub mod app; // what the user sees                 drawn by the server, live in the browser
pub mod client; // keeps and attaches tokens       runs in the browser

#[cfg(feature = "ssr")]
pub mod server; // issues, verifies, revokes       the server only

// How a type of `api` describes itself to readers outside (`server/http/openapi`). In the browser nobody asks:
// there it is a derive of the standard library, whose methods are generic and, unused, become no code.
#[cfg(not(feature = "ssr"))]
use std::hash::Hash as ToSchema;
#[cfg(feature = "ssr")]
use utoipa::ToSchema;

/// Makes the server-drawn page live. The browser calls it once, when the wasm has loaded. Until then, a page
/// is what it is without scripts.
#[cfg(feature = "hydrate")]
#[wasm_bindgen::prelude::wasm_bindgen]
pub fn hydrate() {
    use app::front::{Front, FrontPage};
    use leptos::prelude::*;

    console_error_panic_hook::set_once();
    match FrontPage::at(&window().location().pathname().unwrap_or_default()) {
        Some(page) => leptos::mount::hydrate_body(move || view! { <Front page /> }),
        None => wasm_bindgen_futures::spawn_local(async {
            client::lazy_app::fetched().await;
            let _ = start_app().await;
        }),
    }
}

/// Makes the drawn app live: a door into the part of the wasm that has it (see `client/lazy_app.rs`).
///
/// # Errors
/// The part cannot be had.
#[cfg(feature = "hydrate")]
#[leptos::wasm_split::wasm_split(app, wasm_split_path = leptos::wasm_split, fallible)]
fn start_app() -> Result<(), leptos::wasm_split::SplitLoaderError> {
    leptos::mount::hydrate_body(app::App);
    Ok(())
}
