//! What a page shows of an answer of the server: while it is on its way, when it comes, and when it
//! does not.

use leptos::prelude::*;

use super::components::{Toasts, Waiting};
use crate::api::{error::ApiError, types::Revocation};

/// What the server answered, drawn by `view`; stays while it is asked again.
#[component]
pub fn Answered<T: Clone + 'static>(
    answer: LocalResource<Result<T, ApiError>>,
    view: impl Fn(T) -> AnyView + Send + 'static,
) -> impl IntoView {
    move || match answer.get() {
        None => view! { <Waiting words="Asking the server…" /> }.into_any(),
        Some(Ok(found)) => view(found),
        Some(Err(error)) => view! { <Trouble error on_retry=move || answer.refetch() /> }.into_any(),
    }
}

/// What went wrong, and what can be done about it.
#[component]
pub fn Trouble(error: ApiError, on_retry: impl Fn() + 'static) -> impl IntoView {
    view! {
        <div role="alert"><p class="alert">{error.to_string()}</p></div>
        <p><button type="button" class="button" on:click=move |_| on_retry()>"Try again"</button></p>
    }
}

/// How the last ending of sessions went: in passing when it went well, with the servers that confirmed
/// it, and to stay when it did not.
#[derive(Clone, Copy)]
pub struct Outcome {
    trouble: RwSignal<Option<ApiError>>,
    toasts: Toasts,
}

impl Outcome {
    pub fn new() -> Self {
        Self { trouble: RwSignal::new(None), toasts: Toasts::expect() }
    }

    pub fn tell(self, answer: Result<Revocation, ApiError>) {
        match answer {
            Ok(Revocation { instances, acknowledged, elapsed_ms }) => {
                self.trouble.try_set(None);
                self.toasts.show(format!(
                    "Done. Confirmed by {acknowledged} of {instances} servers in {elapsed_ms} ms."
                ));
            }
            Err(error) => self.fail(error),
        }
    }

    pub fn fail(self, error: ApiError) {
        self.trouble.try_set(Some(error));
    }

    /// Draws what went wrong.
    pub fn view(self) -> impl IntoView {
        let words = move || {
            self.trouble.get().map(|error| match error {
                ApiError::InvalidFields(fields) => fields.into_values().collect::<Vec<_>>().join(" "),
                error => error.to_string(),
            })
        };
        view! { <div role="alert">{move || words().map(|words| view! { <p class="alert">{words}</p> })}</div> }
    }
}
