//! Code, requests and answers, as they are.

use leptos::prelude::*;

/// Lines of text that must not be wrapped: they scroll in their frame, by keyboard, too.
#[component]
pub fn CodeBlock(
    /// What it is, for those who do not see it.
    label: &'static str,
    #[prop(into)] text: Signal<String>,
) -> impl IntoView {
    view! {
        <pre class="code" tabindex="0" role="group" aria-label=label>
            <code>{text}</code>
        </pre>
    }
}
