//! A labeled input.

use leptos::{html, prelude::*};

/// An input with its label, a hint and its error, which are accessible to screen readers, too. The typed text
/// is kept after an error.
#[component]
pub fn Field(
    name: &'static str,
    label: &'static str,
    #[prop(default = "password")] kind: &'static str,
    autocomplete: &'static str,
    #[prop(default = "")] hint: &'static str,
    input: NodeRef<html::Input>,
    error: Signal<Option<String>>,
) -> impl IntoView {
    // The error replaces the hint, which would repeat it.
    let advice = move || error.get().or_else(|| (!hint.is_empty()).then(|| hint.to_owned()));
    let advice_id = format!("{name}-advice");
    let described_by = {
        let advice_id = advice_id.clone();
        move || advice().is_some().then(|| advice_id.clone())
    };
    let class = move || if error.get().is_some() { "error" } else { "hint" };
    // Browser extensions put elements beside the input. In a wrapper of its own they can be told from the page's
    // (`dom::move_foreign_elements`).
    view! {
        <div class="field">
            <label for=name>{label}</label>
            <span class="input">
                <input
                    id=name
                    name=name
                    type=kind
                    autocomplete=autocomplete
                    autocapitalize="none"
                    spellcheck="false"
                    required
                    node_ref=input
                    aria-describedby=described_by
                    aria-invalid=move || error.get().is_some().then_some("true")
                />
            </span>
            {move || advice().map(|text| view! { <p id=advice_id.clone() class=class()>{text}</p> })}
        </div>
    }
}
