//! What is shown while an answer is on its way.

use leptos::prelude::*;

/// Nothing for 150 ms, so that a quick answer does not flicker; then `words`; after five seconds, that
/// it takes long. The style sheet keeps the time.
#[component]
pub fn Waiting(words: &'static str) -> impl IntoView {
    view! {
        <p class="waiting hint" role="status">
            {words}
            <span class="waiting-long">" This takes longer than usual."</span>
        </p>
    }
}
