//! A button for an action that takes time.

use leptos::{prelude::*, task::spawn_local};

/// A button that runs `action`, and shows its busy label until the action completes. Clicks are ignored until
/// then; the button keeps the focus, which a `disabled` one would lose.
#[component]
pub fn ActionButton<F>(
    /// The label, at rest and busy.
    words: (&'static str, &'static str),
    action: impl Fn() -> F + 'static,
    /// The accessible name, where the label alone does not identify the object of the action.
    #[prop(optional, into)]
    label: Option<String>,
    #[prop(default = "button small quiet")] class: &'static str,
) -> impl IntoView
where
    F: Future<Output = ()> + 'static,
{
    let busy = RwSignal::new(false);
    let press = move |_| {
        if busy.get_untracked() {
            return;
        }
        busy.set(true);
        let action = action();
        spawn_local(async move {
            action.await;
            busy.try_set(false);
        });
    };
    view! {
        <button type="button" class=class aria-label=label aria-disabled=move || busy.get().to_string() on:click=press>
            {move || if busy.get() { words.1 } else { words.0 }}
        </button>
    }
}
