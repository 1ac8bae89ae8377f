//! What the forms share: a field with its label and its error, the state of a form that is being
//! sent, and the words for how the last session ended.

use std::collections::BTreeMap;

use leptos::{ev::SubmitEvent, html, prelude::*, task::spawn_local};
use leptos_router::{
    NavigateOptions,
    hooks::{use_navigate, use_query_map},
};
use server_fn::error::ServerFnUrlError;

use crate::{
    api::error::AuthError,
    client::session::{Farewell, Session},
};

/// The two fields of both forms.
#[derive(Clone, Copy)]
pub struct CredentialsForm {
    email: NodeRef<html::Input>,
    password: NodeRef<html::Input>,
    busy: RwSignal<bool>,
    error: RwSignal<Option<AuthError>>,
}

impl CredentialsForm {
    /// Empty, or with the error of a form that was posted before the page was live.
    pub fn new() -> Self {
        let posted = use_query_map().with_untracked(|query| query.get("__err"));
        let error = posted.and_then(|error| in_our_words(ServerFnUrlError::decode_err(&error)));
        Self {
            email: NodeRef::new(),
            password: NodeRef::new(),
            busy: RwSignal::new(false),
            error: RwSignal::new(error),
        }
    }

    /// Sends the fields with `call`; goes to the account when it succeeds, and to the first field
    /// that needs attention when it does not.
    pub fn submit<F>(self, event: &SubmitEvent, call: impl FnOnce(String, String) -> F + 'static)
    where
        F: Future<Output = Result<(), AuthError>> + 'static,
    {
        event.prevent_default();
        if self.busy.get_untracked() {
            return;
        }
        let value = |field: NodeRef<html::Input>| {
            field.get_untracked().map(|input| input.value()).unwrap_or_default()
        };
        let (email, password) = (value(self.email), value(self.password));
        self.busy.set(true);
        self.error.set(None);
        let navigate = use_navigate();
        spawn_local(async move {
            let answer = call(email, password).await;
            self.busy.try_set(false);
            match answer {
                Ok(()) => navigate("/account", NavigateOptions { replace: true, ..Default::default() }),
                Err(error) => {
                    let first = if error_of(&error, "email").is_some() { self.email } else { self.password };
                    self.error.try_set(Some(error));
                    if let Some(input) = first.get_untracked() {
                        let _ = input.focus();
                    }
                }
            }
        });
    }

    fn field_error(self, name: &'static str) -> Signal<Option<String>> {
        Signal::derive(move || {
            self.error.with(|error| error.as_ref().and_then(|error| error_of(error, name)))
        })
    }
}

/// An error that came in the address of the page: anyone can have written it, so only its kind is
/// taken over, and none of its text.
fn in_our_words(error: AuthError) -> Option<AuthError> {
    Some(match error {
        AuthError::InvalidRequest(_) => AuthError::InvalidRequest("The form could not be read.".into()),
        AuthError::InvalidGrant(_) => AuthError::wrong_credentials(),
        AuthError::InvalidFields(fields) => {
            let advice = [
                ("email", "Enter an e-mail address, like ann@example.com."),
                ("password", "Use a password of at least 8 characters that is not among the common ones."),
            ];
            let known = advice.into_iter().filter(|(name, _)| fields.contains_key(*name));
            AuthError::InvalidFields(
                known.map(|(name, advice)| (name.to_owned(), advice.to_owned())).collect(),
            )
        }
        AuthError::Transport => return None,
        other => other,
    })
}

/// What the error says about one field.
fn error_of(error: &AuthError, name: &str) -> Option<String> {
    match error {
        AuthError::InvalidFields(fields) => fields.get(name).cloned(),
        AuthError::EmailTaken if name == "email" => Some(error.to_string()),
        _ => None,
    }
}

/// The form itself; `children` go below the button.
#[component]
pub fn CredentialsFields(
    form: CredentialsForm,
    /// `current-password` or `new-password`, for password managers.
    password_autocomplete: &'static str,
    /// What to know before choosing a password; empty for none.
    password_hint: &'static str,
    /// The button's words, at rest and busy.
    button: (&'static str, &'static str),
) -> impl IntoView {
    let general_error = move || {
        form.error.with(|error| match error {
            None | Some(AuthError::EmailTaken) => None,
            Some(AuthError::InvalidFields(fields)) if has_known_field(fields) => None,
            Some(error) => Some(error.to_string()),
        })
    };
    view! {
        <div role="alert" class="alert-place">
            {move || general_error().map(|text| view! { <p class="alert">{text}</p> })}
        </div>
        <Field name="email" label="E-mail" kind="email" autocomplete="username" hint="" input=form.email error=form.field_error("email") />
        <Field name="password" label="Password" kind="password" autocomplete=password_autocomplete hint=password_hint input=form.password error=form.field_error("password") />
        <button type="submit" class="button" aria-disabled=move || form.busy.get().to_string()>
            {move || if form.busy.get() { button.1 } else { button.0 }}
        </button>
    }
}

fn has_known_field(fields: &BTreeMap<String, String>) -> bool {
    fields.contains_key("email") || fields.contains_key("password")
}

#[component]
fn Field(
    name: &'static str,
    label: &'static str,
    kind: &'static str,
    autocomplete: &'static str,
    hint: &'static str,
    input: NodeRef<html::Input>,
    error: Signal<Option<String>>,
) -> impl IntoView {
    let (hint_id, error_id) = (format!("{name}-hint"), format!("{name}-error"));
    let described_by = {
        let (hint_id, error_id) = (hint_id.clone(), error_id.clone());
        move || match (hint.is_empty(), error.get().is_some()) {
            (true, false) => None,
            (false, false) => Some(hint_id.clone()),
            (true, true) => Some(error_id.clone()),
            (false, true) => Some(format!("{error_id} {hint_id}")),
        }
    };
    view! {
        <div class="field">
            <label for=name>{label}</label>
            <input
                id=name
                name=name
                type=kind
                autocomplete=autocomplete
                autocapitalize="none"
                spellcheck="false"
                required
                node_ref=input
                aria-describedby=described_by
                aria-invalid=move || error.get().is_some().then_some("true")
            />
            {(!hint.is_empty()).then(|| view! { <p id=hint_id.clone() class="hint">{hint}</p> })}
            {move || error.get().map(|text| view! { <p id=error_id.clone() class="error">{text}</p> })}
        </div>
    }
}

/// How the last session in this tab ended.
#[component]
pub fn FarewellNote() -> impl IntoView {
    let session = Session::expect();
    let note = move || {
        session.farewell().map(|farewell| match farewell {
            Farewell::Confirmed { instances, elapsed_ms } => {
                let servers = if instances == 1 { "the server".to_owned() } else { format!("all {instances} servers") };
                let time = if elapsed_ms == 0 { "less than a millisecond".to_owned() } else { format!("{elapsed_ms} ms") };
                view! { <p class="note good">{format!("You have been signed out. Your token died on {servers} in {time}.")}</p> }.into_any()
            }
            Farewell::Ended(reason) => view! { <p class="note">{reason}</p> }.into_any(),
            Farewell::Unconfirmed => view! { <UnconfirmedNote /> }.into_any(),
        })
    };
    view! { <div role="status">{note}</div> }
}

#[component]
fn UnconfirmedNote() -> impl IntoView {
    let session = Session::expect();
    let again = move |_| spawn_local(session.end());
    view! {
        <div class="note bad">
            <p>
                "You are signed out in this browser, but the server could not confirm it: the session may still be alive there. Each page asks again until it is not."
            </p>
            <button type="button" class="button small" on:click=again>"Try again"</button>
        </div>
    }
}
