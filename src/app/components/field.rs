//! A labeled input.

use leptos::{
    ev::Event,
    html,
    prelude::*,
    wasm_split::{SplitLoaderError, wasm_split},
};
use wasm_bindgen::JsCast;
use web_sys::HtmlInputElement;

/// An input with its label, a hint and its error, which are accessible to screen readers, too. The typed text
/// is kept after an error. The text of a password can be shown. The hint of a new password is advice: its form listens for
/// `input` with [`advise`].
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
    let hint = if autocomplete == NEW { AT_FIRST } else { hint };
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

/// The autocomplete value of a password that is chosen.
const NEW: &str = "new-password";

/// Replaces the hint of a new password by advice on what has been typed. An entry point into the part of the wasm that
/// `client/lazy_app.rs` describes, because the front has to be small.
///
/// # Errors
/// The part could not be fetched.
#[wasm_split(app, wasm_split_path = leptos::wasm_split, fallible)]
pub fn advise(event: Event) -> Result<(), SplitLoaderError> {
    let input: Option<HtmlInputElement> = event.target().and_then(|target| target.dyn_into().ok());
    if let Some(input) = input.filter(|input| input.get_attribute("autocomplete").as_deref() == Some(NEW))
        && let Some(hint) = document().get_element_by_id(&format!("{}-hint", input.id()))
    {
        let _ = hint.set_attribute("aria-live", "polite");
        hint.set_text_content(Some(advice_on(&input.value())));
    }
    Ok(())
}

/// The advice before anything is typed.
const AT_FIRST: &str = "At least 8 characters. A few words work well.";

/// The number of characters that the server asks for.
const AT_LEAST: usize = 8;

/// The number of characters from which on guessing all passwords of that length is out of the question.
const LONG: usize = 15;

/// What to do about a new password, as far as that can be known here: by its length and obvious patterns. The server also
/// refuses common passwords.
fn advice_on(password: &str) -> &'static str {
    let (mut length, mut follows, mut last) = (0, 0, None::<u32>);
    for character in password.chars().map(u32::from) {
        // The same as the one before, one up or one down, as in `aaaa`, `1234` and `cba`.
        follows += usize::from(last.is_some_and(|last| last.abs_diff(character) <= 1));
        length += 1;
        last = Some(character);
    }
    match length {
        0 => AT_FIRST,
        _ if length < AT_LEAST => "Still too short: at least 8 characters.",
        _ if follows * 2 > length => "This is easy to guess: it repeats or counts. Use a few words instead.",
        _ if length < LONG => "Long enough. A few more words would make it much harder to guess.",
        _ => "Long enough to be hard to guess. Use it on this site only.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_length_and_patterns() {
        for (password, advice) in [
            ("", "At least 8"),
            ("short", "Still too short"),
            ("12345678", "This is easy"),
            ("aaaaaaaaaaaaaaaaaaaa", "This is easy"),
            ("häßlich!", "Long enough. A few more"),
            ("correct horse battery", "Long enough to be"),
        ] {
            assert!(advice_on(password).starts_with(advice), "{password}");
        }
    }
}
