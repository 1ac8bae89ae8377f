//! Preformatted text: code, requests and answers.

use leptos::prelude::*;

use super::copy_button::CopyButton;

/// Lines of text that must not be wrapped: they scroll in their frame, also by keyboard.
#[component]
pub fn CodeBlock(
    /// The accessible name of the block.
    label: &'static str,
    #[prop(into)] text: Signal<String>,
) -> impl IntoView {
    view! {
        <div class="code-block">
            <pre class="code" tabindex="0" role="group" aria-label=label>
                <code>{text}</code>
            </pre>
            <CopyButton text what=label />
        </div>
    }
}
