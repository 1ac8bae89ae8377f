//! A button that copies a text.

use js_sys::Reflect;
use leptos::{prelude::*, task::spawn_local};
use wasm_bindgen_futures::JsFuture;

/// A button that copies `text` to the clipboard. Browsers offer the clipboard to pages that were loaded over
/// https or from this device only.
#[component]
pub fn CopyButton(
    #[prop(into)] text: Signal<String>,
    /// The object of the action, for screen readers.
    what: &'static str,
) -> impl IntoView {
    let outcome = RwSignal::new("");
    let copy = move |_| {
        spawn_local(async move {
            let is_copied = write(&text.get_untracked()).await;
            outcome.try_set(if is_copied { "Copied" } else { "Select the text and copy it." });
        });
    };
    view! {
        <span class="copy needs-scripts">
            <button type="button" class="link" on:click=copy>
                "Copy" <span class="unseen">{format!(" {what}")}</span>
            </button>
            <span role="status" class="hint">{outcome}</span>
        </span>
    }
}

/// Writes the text to the clipboard. Returns whether it is there.
async fn write(text: &str) -> bool {
    let navigator = window().navigator();
    let has_clipboard = Reflect::get(&navigator, &"clipboard".into()).is_ok_and(|found| found.is_object());
    has_clipboard && JsFuture::from(navigator.clipboard().write_text(text)).await.is_ok()
}
