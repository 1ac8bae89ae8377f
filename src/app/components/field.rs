//! A labeled input.

use leptos::{html, prelude::*};

/// An input with its label, a hint and its error, which are accessible to screen readers, too. The typed text
/// is kept after an error. The text of a password can be shown.
#[component]
pub fn Field(
    name: &'static str,
    label: &'static str,
    #[prop(default = "password")] kind: &'static str,
    autocomplete: &'static str,
    #[prop(default = "")] hint: &'static str,
    /// Whether the field has the focus when the document has loaded.
    #[prop(optional)]
    autofocus: bool,
    input: NodeRef<html::Input>,
    error: Signal<Option<String>>,
) -> impl IntoView {
    let is_shown = RwSignal::new(false);
    // Names of elements that are not there are ignored.
    let (hint_id, error_id) = (format!("{name}-hint"), format!("{name}-error"));
    let described_by = format!("{hint_id} {error_id}");
    let reveal = (kind == "password").then(|| {
        view! {
            <button
                type="button"
                class="reveal needs-scripts"
                aria-pressed=move || is_shown.get().to_string()
                on:click=move |_| is_shown.update(|is_shown| *is_shown = !*is_shown)
            >
                <svg viewBox="0 0 24 24" aria-hidden="true">
                    <path d="M2 12s3.6-7 10-7 10 7 10 7-3.6 7-10 7-10-7-10-7z" />
                    <circle cx="12" cy="12" r="3" />
                    <path d="M4 20 20 4" class="slash" />
                </svg>
                <span class="unseen">"Show password"</span>
            </button>
        }
    });
    view! {
        <div class="field">
            <label for=name>{label}</label>
            <div class="input-row">
                // Browser extensions put elements beside the input. In a wrapper of its own they can be told from the page's
                // (`dom::move_foreign_elements`).
                <span class="input">
                    <input
                        id=name
                        name=name
                        type=move || if is_shown.get() { "text" } else { kind }
                        autocomplete=autocomplete
                        autocapitalize="none"
                        spellcheck="false"
                        required
                        autofocus=autofocus
                        node_ref=input
                        aria-describedby=described_by
                        aria-invalid=move || error.get().is_some().then_some("true")
                    />
                </span>
                {reveal}
            </div>
            {(!hint.is_empty()).then(|| view! { <p id=hint_id class="hint">{hint}</p> })}
            {move || error.get().map(|text| view! { <p id=error_id.clone() class="error">{text}</p> })}
        </div>
    }
}
