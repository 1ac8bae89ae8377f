//! Views of a call to the server: while it is pending, when it is answered, and when it fails.

use leptos::prelude::*;

use super::{
    components::{Toasts, Waiting},
    relative_time::duration,
};
use crate::api::{error::ApiError, types::Revocation};

/// The last good answer to a call. It stays while the call is repeated, so that the elements that show it, and
/// the focus in them, can stay, too.
pub struct Latest<T: Send + Sync + 'static> {
    pub found: RwSignal<Option<T>>,
    trouble: RwSignal<Option<ApiError>>,
    answer: LocalResource<Result<T, ApiError>>,
}

impl<T: Send + Sync> Copy for Latest<T> {}

impl<T: Send + Sync> Clone for Latest<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Clone + Send + Sync> Latest<T> {
    pub fn of(answer: LocalResource<Result<T, ApiError>>) -> Self {
        let (found, trouble) = (RwSignal::new(None), RwSignal::new(None));
        Effect::new(move || match answer.get() {
            Some(Ok(new)) => {
                found.set(Some(new));
                trouble.set(None);
            }
            Some(Err(error)) => trouble.set(Some(error)),
            None => {}
        });
        Self { found, trouble, answer }
    }

    /// Whether there is an answer, or an error.
    pub fn is_settled(self) -> bool {
        self.found.with(Option::is_some) || self.trouble.with(Option::is_some)
    }

    pub fn has_failed(self) -> bool {
        self.trouble.with_untracked(Option::is_some)
    }

    pub fn ask_again(self) {
        self.answer.refetch();
    }

    /// Shows that the first answer is pending, in these words, or the error of the last call.
    pub fn state(self, words: &'static str) -> impl IntoView {
        let is_pending = move || !self.is_settled();
        view! {
            <PendingOrFailed
                is_pending=Signal::derive(is_pending)
                trouble=self.trouble
                on_retry=move |()| self.ask_again()
                words
            />
        }
    }
}

#[component]
fn PendingOrFailed(
    is_pending: Signal<bool>,
    trouble: RwSignal<Option<ApiError>>,
    #[prop(into)] on_retry: Callback<()>,
    words: &'static str,
) -> impl IntoView {
    view! {
        {move || trouble.get().map(|error| view! { <Trouble error on_retry=move || on_retry.run(()) /> })}
        <Show when=move || is_pending.get()>
            <Waiting words />
        </Show>
    }
}

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

/// The error as one of the form as a whole, if it is about a field that the form does not have.
pub fn without_other_fields(error: ApiError, fields: &[&str]) -> ApiError {
    match error {
        ApiError::InvalidFields(found) if found.keys().all(|name| !fields.contains(&name.as_str())) => {
            ApiError::InvalidRequest(found.into_values().collect::<Vec<_>>().join(" "))
        }
        other => other,
    }
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

    /// Shows the result. `done` is the sentence about it if the call has succeeded.
    pub fn tell(self, done: &str, answer: Result<Revocation, ApiError>) {
        match answer {
            Ok(revocation) => self.succeed(format!("{done} {}", confirmation(&revocation))),
            Err(error) => self.fail(error),
        }
    }

    pub fn succeed(self, words: String) {
        self.trouble.try_set(None);
        self.toasts.show(words);
    }

    pub fn fail(self, error: ApiError) {
        self.toasts.dismiss();
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
