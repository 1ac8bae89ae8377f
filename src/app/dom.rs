//! Changes to the document outside of the views.

use leptos::{prelude::*, task::spawn_local};
use wasm_bindgen::JsCast;
use web_sys::{HtmlAnchorElement, HtmlElement};

/// Moves the focus to the main part of the page.
pub fn focus_on_main() {
    if let Some(main) = document().get_element_by_id("main")
        && let Ok(main) = main.dyn_into::<HtmlElement>()
    {
        let _ = main.focus();
    }
}

/// Moves the focus to the element, if the element that had it was removed.
pub fn focus_if_lost(element: &HtmlElement) {
    if document().active_element().is_none_or(|active| active.tag_name() == "BODY") {
        let _ = element.focus();
    }
}

/// Has the browser save the text as a file of that name and media type.
pub fn save_file(name: &str, media_type: &str, text: &str) {
    let Ok(element) = document().create_element("a") else { return };
    let link: HtmlAnchorElement = element.unchecked_into();
    link.set_href(&format!("data:{media_type};charset=utf-8,{}", js_sys::encode_uri_component(text)));
    link.set_download(name);
    link.click();
}

const HYDRATED: &str = "data-hydrated";

/// The id of the element that contains the page. It is not `<body>`, because browser extensions put elements
/// of their own there.
pub const PAGE: &str = "page";

/// Moves what browser extensions have put beside an input to the end of its wrapper, where hydration does not meet
/// it: that takes each node for the next one of the view.
pub fn move_foreign_elements() {
    let Ok(foreign) = document().query_selector_all(".input > :not(input)") else { return };
    for element in (0..foreign.length()).filter_map(|index| foreign.item(index)) {
        if let Some(wrapper) = element.parent_node() {
            let _ = wrapper.append_child(&element);
        }
    }
}

/// Whether `data-hydrated` is set on `<html>`.
pub fn is_hydrated() -> bool {
    document().document_element().is_some_and(|root| root.has_attribute(HYDRATED))
}

/// Sets `data-hydrated` on `<html>`, after the effects that are waiting for their turn already.
pub fn mark_hydrated() {
    spawn_local(async {
        if let Some(root) = document().document_element() {
            let _ = root.set_attribute(HYDRATED, "");
        }
    });
}
