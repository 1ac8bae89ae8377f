//! Parts of a page that are created after the others.

use std::time::Duration;

use leptos::prelude::*;

/// Creates its contents in a turn of their own, in the browser, so that a large page does not block a phone in one
/// piece.
#[component]
pub fn Later(children: ChildrenFn) -> impl IntoView {
    let is_due = RwSignal::new(false);
    let show = move || {
        is_due.try_set(true);
    };
    Effect::new(move || set_timeout(show, Duration::ZERO));
    view! { <Show when=move || is_due.get()>{children()}</Show> }
}
