//! The placeholder for an answer that is pending.

use leptos::prelude::*;

/// A placeholder that is empty for 150 ms, so that a quick answer does not flicker; then shows `words`; after
/// five seconds also that it takes longer than usual. The style sheet defines the delays.
#[component]
pub fn Waiting(words: &'static str) -> impl IntoView {
    view! {
        <p class="waiting hint" role="status">
            {words}
            <span class="waiting-long">" This is taking longer than usual."</span>
        </p>
    }
}
