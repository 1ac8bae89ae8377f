//! Changes to the document outside of the views.

use leptos::{prelude::*, task::spawn_local};
use wasm_bindgen::JsCast;
use web_sys::HtmlElement;

/// Moves the focus to the main part of the page.
pub fn focus_on_main() {
    if let Some(main) = document().get_element_by_id("main")
        && let Ok(main) = main.dyn_into::<HtmlElement>()
    {
        let _ = main.focus();
    }
}

/// The id of the element that contains the page. It is not `<body>`, because browser extensions put elements
/// of their own there.
pub const PAGE: &str = "page";

/// Sets `data-hydrated` on `<html>`, after the effects that are waiting for their turn already.
pub fn mark_hydrated() {
    spawn_local(async {
        if let Some(root) = document().document_element() {
            let _ = root.set_attribute("data-hydrated", "");
        }
    });
}
