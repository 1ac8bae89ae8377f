//! A modal dialog.

use leptos::{html, prelude::*};

use super::toast::Toasts;

/// The browser's own modal dialog: it traps the focus, closes on Escape, and restores the focus.
#[component]
pub fn Dialog(
    /// Whether the dialog is open. Set to `false` when the user closes it.
    open: RwSignal<bool>,
    #[prop(into)] title: Signal<String>,
    /// The contents, created anew each time the dialog opens.
    children: ChildrenFn,
) -> impl IntoView {
    let dialog = NodeRef::<html::Dialog>::new();
    let toasts = use_context::<Toasts>();
    Effect::new(move || {
        let Some(dialog) = dialog.get() else { return };
        match (open.get(), dialog.open()) {
            (true, false) => {
                // The last message would be behind the dialog, dimmed and out of reach.
                toasts.into_iter().for_each(Toasts::dismiss);
                let _ = dialog.show_modal();
            }
            (false, true) => dialog.close(),
            _ => {}
        }
    });
    // The event arrives a moment after the dialog has closed: it may have been opened again by then.
    let on_close = move |_| {
        if dialog.get_untracked().is_none_or(|dialog| !dialog.open()) {
            open.set(false);
        }
    };
    view! {
        <dialog class="dialog" node_ref=dialog aria-label=move || title.get() on:close=on_close>
            <Show when=move || open.get()>
                <h2>{title}</h2>
                {children()}
            </Show>
        </dialog>
    }
}
