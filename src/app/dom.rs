//! Changes to the document outside of the views.

use leptos::prelude::*;
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

/// Sets `data-hydrated` on `<html>` once the page handles events.
pub fn mark_hydrated() {
    Effect::new(|| {
        if let Some(root) = document().document_element() {
            let _ = root.set_attribute("data-hydrated", "");
        }
    });
}
