//! A button that does something which takes time.

use leptos::{prelude::*, task::spawn_local};

/// Runs `action` when pressed, and says so until it is done. Pressed meanwhile, it does nothing; it
/// keeps the focus, which a `disabled` button would lose.
#[component]
pub fn ActionButton<F>(
    /// At rest and busy.
    words: (&'static str, &'static str),
    action: impl Fn() -> F + 'static,
    /// What it is pressed for, where the words alone do not say it.
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
