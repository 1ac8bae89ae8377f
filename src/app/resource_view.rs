//! Views of a call to the server: while it is pending, when it is answered, and when it fails.

use leptos::prelude::*;

use super::{
    components::{Toasts, Waiting},
    relative_time::duration,
};
use crate::api::{error::ApiError, types::Revocation};

/// The answer to a call, rendered by `view`. It stays visible while the call is repeated.
#[component]
pub fn Answered<T: Clone + 'static>(
    answer: LocalResource<Result<T, ApiError>>,
    view: impl Fn(T) -> AnyView + Send + 'static,
) -> impl IntoView {
    move || match answer.get() {
        None => view! { <Waiting words="Loading…" /> }.into_any(),
        Some(Ok(found)) => view(found),
        Some(Err(error)) => view! { <Trouble error on_retry=move || answer.refetch() /> }.into_any(),
    }
}

/// An error, with a button to try again.
#[component]
pub fn Trouble(error: ApiError, on_retry: impl Fn() + 'static) -> impl IntoView {
    view! {
        <div role="alert"><p class="alert">{error.to_string()}</p></div>
        <p><button type="button" class="button" on:click=move |_| on_retry()>"Try again"</button></p>
    }
}

/// The confirmation of a revocation: by how many instances, and in what time.
pub fn confirmation(revocation: &Revocation) -> String {
    let Revocation { instances, acknowledged, elapsed_ms } = *revocation;
    let time = duration(elapsed_ms);
    if instances == 1 {
        format!("The server confirmed it in {time}.")
    } else if acknowledged == instances {
        format!("All {instances} servers confirmed it in {time}.")
    } else {
        format!(
            "{acknowledged} of {instances} servers confirmed it in {time}. The others ask the database now."
        )
    }
}

/// The error of a call that ends sessions. `words` are for the case that it may have taken effect or
/// not.
pub fn or_unconfirmed(error: ApiError, words: &str) -> ApiError {
    if error == ApiError::Unavailable { ApiError::InvalidRequest(words.into()) } else { error }
}

/// What to do after an unconfirmed call of which the page shows the effect.
pub const RELOAD: &str = "The servers could not confirm this, so it may have taken effect or not. Reload the page to see, then try again.";

/// The result of the last revocation: a toast with the number of instances that confirmed it, or an alert
/// that stays.
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
            Ok(revocation) => {
                self.trouble.try_set(None);
                self.toasts.show(format!("Done. {}", confirmation(&revocation)));
            }
            Err(error) => self.fail(error),
        }
    }

    pub fn fail(self, error: ApiError) {
        self.trouble.try_set(Some(or_unconfirmed(error, RELOAD)));
    }

    /// The alert with the last error.
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
