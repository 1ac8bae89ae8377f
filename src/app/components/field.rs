//! An input with all that belongs to it.

use leptos::{html, prelude::*};

/// An input, its label, a hint and what is wrong with it, told to those who do not see it, too. What
/// was typed stays.
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
    let (hint_id, error_id) = (format!("{name}-hint"), format!("{name}-error"));
    let described_by = {
        let (hint_id, error_id) = (hint_id.clone(), error_id.clone());
        move || match (hint.is_empty(), error.get().is_some()) {
            (true, false) => None,
            (false, false) => Some(hint_id.clone()),
            (true, true) => Some(error_id.clone()),
            (false, true) => Some(format!("{error_id} {hint_id}")),
        }
    };
    view! {
        <div class="field">
            <label for=name>{label}</label>
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
            {(!hint.is_empty()).then(|| view! { <p id=hint_id.clone() class="hint">{hint}</p> })}
            {move || error.get().map(|text| view! { <p id=error_id.clone() class="error">{text}</p> })}
        </div>
    }
}
