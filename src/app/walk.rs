//! The walk: four steps, on two pages, that show a visitor how a token dies.

use leptos::prelude::*;

/// The next step of the visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Call,
    KeepCopy,
    SignOut,
    Replay,
    Done,
}

/// One step of the walk, with its contents. Earlier and later steps stay readable.
#[component]
pub fn WalkStep(
    step: Step,
    /// The step that the visitor is at.
    #[prop(into)]
    current: Signal<Step>,
    title: &'static str,
    children: Children,
) -> impl IntoView {
    let is_current = move || current.get() == step;
    let is_done = move || current.get() > step;
    view! {
        <li
            class="walk-step"
            class:is-current=is_current
            class:is-done=is_done
            aria-current=move || is_current().then_some("step")
        >
            <h3>
                {title}
                <span class="unseen">{move || if is_done() { " (done)" } else { "" }}</span>
            </h3>
            {children()}
        </li>
    }
}
