//! A modal dialog.

use leptos::{html, prelude::*};

/// The browser's own modal dialog: it traps the focus, closes on Escape, and restores the focus.
#[component]
pub fn Dialog(
    /// Whether the dialog is open. Set to `false` when the user closes it.
    open: RwSignal<bool>,
    title: &'static str,
    /// The contents, created anew each time the dialog opens.
    children: ChildrenFn,
) -> impl IntoView {
    let dialog = NodeRef::<html::Dialog>::new();
    Effect::new(move || {
        let Some(dialog) = dialog.get() else { return };
        match (open.get(), dialog.open()) {
            (true, false) => drop(dialog.show_modal()),
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
        <dialog class="dialog" node_ref=dialog aria-label=title on:close=on_close>
            <Show when=move || open.get()>
                <h2>{title}</h2>
                {children()}
            </Show>
        </dialog>
    }
}
