//! Preformatted text: code, requests and answers.

use leptos::prelude::*;

/// Lines of text that must not be wrapped: they scroll in their frame, also by keyboard.
#[component]
pub fn CodeBlock(
    /// The accessible name of the block.
    label: &'static str,
    #[prop(into)] text: Signal<String>,
) -> impl IntoView {
    view! {
        <pre class="code" tabindex="0" role="group" aria-label=label>
            <code>{text}</code>
        </pre>
    }
}
