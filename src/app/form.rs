//! The parts that forms share: the state of a form that is being sent, and the note on how the last session
//! ended.

use std::future::pending;

use leptos::{
    ev::{Event, SubmitEvent},
    html,
    prelude::*,
    task::spawn_local,
};
use server_fn::error::ServerFnUrlError;
use wasm_bindgen::JsCast;
use web_sys::{HtmlFormElement, HtmlInputElement};

use super::{
    components::{Field, each_second},
    query::{is_failed_logout, query},
    relative_time::duration,
    return_to::{next_page, with_next},
};
use crate::{
    api::{error::ApiError, types::ConfirmedLogout},
    client::{
        lazy_app,
        session::{Session, SignOutNotice},
        storage::browser_limitation,
        typed_email,
    },
};

/// The state of a form that is sent to the server: whether a call is pending, and the last error.
#[derive(Clone, Copy)]
pub struct Sending {
    busy: RwSignal<bool>,
    error: RwSignal<Option<ApiError>>,
}

impl Sending {
    pub fn new() -> Self {
        Self { busy: RwSignal::new(false), error: RwSignal::new(None) }
    }

    /// The state with the error of a form that was posted before its page was hydrated.
    pub fn with_posted_error() -> Self {
        let posted = SharedValue::new_str(error_from_query).into_inner();
        let sending = Self::new();
        sending.error.set(sanitized_error(&posted));
        sending
    }

    /// Replaces an error of a posted form whose kind alone is known.
    pub fn with_words_for(self, kind: &ApiError, words: impl FnOnce() -> ApiError) -> Self {
        if self.error.with_untracked(|error| error.as_ref().is_some_and(|error| error.code() == kind.code()))
        {
            self.error.set(Some(words()));
        }
        self
    }

    /// Makes the call, unless one is pending. `on_answer` gets the result; an error is shown in the form.
    pub fn send<T: 'static, F>(
        self,
        event: &SubmitEvent,
        call: F,
        on_answer: impl FnOnce(Result<T, &ApiError>) + 'static,
    ) where
        F: Future<Output = Result<T, ApiError>> + 'static,
    {
        event.prevent_default();
        if self.busy.get_untracked() {
            return;
        }
        self.busy.set(true);
        self.error.set(None);
        spawn_local(async move {
            let answer = call.await;
            self.busy.try_set(false);
            match answer {
                Ok(answer) => on_answer(Ok(answer)),
                Err(error) => {
                    self.error.try_set(Some(error.clone()));
                    on_answer(Err(&error));
                }
            }
        });
    }

    /// The server's error about one field.
    pub fn field_error(self, name: &'static str) -> Signal<Option<String>> {
        Signal::derive(move || {
            self.error.with(|error| error.as_ref().and_then(|error| error_of(error, name)))
        })
    }
}

/// The text in the field.
pub fn value(field: NodeRef<html::Input>) -> String {
    field.get_untracked().map(|input| input.value()).unwrap_or_default()
}

/// The text in the form's field of that name. Unlike [`value`], it does not depend on hydration, during which an
/// element of a browser extension may have been taken for the field.
fn text_in(form: &HtmlFormElement, name: &str) -> Option<String> {
    let field = form.query_selector(&format!("input[name={name}]")).ok()??;
    Some(field.unchecked_into::<HtmlInputElement>().value())
}

pub fn focus(field: NodeRef<html::Input>) {
    if let Some(input) = field.get_untracked() {
        let _ = input.focus();
    }
}

/// Focuses the field, so that typing replaces its text.
fn select(field: NodeRef<html::Input>) {
    focus(field);
    if let Some(input) = field.get_untracked() {
        input.select();
    }
}

/// The form to register or to sign in, with its two fields.
#[derive(Clone, Copy)]
pub struct CredentialsForm {
    email: NodeRef<html::Input>,
    password: NodeRef<html::Input>,
    sending: Sending,
}

impl CredentialsForm {
    /// An empty form, or one with the error of a form that was posted before the page was hydrated.
    pub fn new() -> Self {
        let sending = Sending::with_posted_error();
        let (email, password) = (NodeRef::<html::Input>::new(), NodeRef::new());
        let (session, next) = (Session::expect(), next_page());
        // The session may have begun by this form or in another tab.
        Effect::new(move || {
            if session.is_signed_in() {
                let _ = window().location().replace(&next);
            }
            if let Some(typed) = typed_email::take()
                && let Some(input) = email.get_untracked()
                && input.value().is_empty()
            {
                input.set_value(&typed);
                focus(password);
            }
        });
        Self { email, password, sending }
    }

    /// Sends the fields with `call`, and focuses the first field that needs attention if it fails. After
    /// success the form stays busy, because the next page is loading.
    pub fn submit<F>(self, event: &SubmitEvent, call: impl FnOnce(String, String) -> F)
    where
        F: Future<Output = Result<(), ApiError>> + 'static,
    {
        let on_answer = move |answer: Result<(), &ApiError>| match answer {
            Ok(()) => {}
            Err(error) if error_of(error, "email").is_some() => focus(self.email),
            Err(_) => select(self.password),
        };
        let form = event.target().and_then(|target| target.dyn_into::<HtmlFormElement>().ok());
        let fields =
            form.as_ref().and_then(|form| Some((text_in(form, "email")?, text_in(form, "password")?)));
        // Without its fields the form is left to the browser, which posts it.
        let Some((email, password)) = fields else { return };
        let call = call(email, password);
        let send = async move {
            // The part may be gone, together with the version of the site that this page belongs to. Posting
            // the form works without it.
            if lazy_app::fetch().await.is_err() && window().navigator().on_line() {
                let sent = form.is_some_and(|form| form.submit().is_ok());
                return if sent { pending().await } else { Err(ApiError::Transport) };
            }
            call.await?;
            pending().await
        };
        self.sending.send(event, send, on_answer);
    }
}

/// Fetches the part of the wasm that sends the form, while the user fills it in.
pub fn preload_app(_: Event) {
    spawn_local(async { drop(lazy_app::fetch().await) });
}

/// The advice for each refused field, instead of a message from the page's address, which anyone can have
/// written.
const ADVICE: [(&str, &str); 2] = [
    ("email", "Enter an e-mail address, like ann@example.com."),
    ("password", "Use a password that is long enough and not a common one."),
];

/// The code for a login whose cookie the browser has not kept, in the text of [`error_from_query`].
const NO_COOKIE: &str = "no_cookie";

/// The code for a form that was posted by http to a site that needs https, in the text of [`error_from_query`].
const NEEDS_HTTPS: &str = "needs_https";

/// The error in the address of the page, as text for [`sanitized_error`]: its code, then the names of the
/// fields that it concerns or the seconds to wait. Empty without an error, and in the browser: the server
/// parses it, because the wasm of the front contains no JSON.
fn error_from_query() -> String {
    // The error of a logout is shown at the top of the page.
    if !cfg!(feature = "ssr") || is_failed_logout() {
        return String::new();
    }
    let error = query("__err").map(|error| ServerFnUrlError::<ApiError>::decode_err(&error));
    match error {
        None | Some(ApiError::Transport) => String::new(),
        Some(error) if error == ApiError::no_refresh_token() => NO_COOKIE.to_owned(),
        Some(error) if error == ApiError::needs_https() => NEEDS_HTTPS.to_owned(),
        Some(ApiError::TooManyRequests(seconds)) => format!("too_many_requests {seconds}"),
        Some(ref error @ ApiError::InvalidFields(ref fields)) => {
            let known = ADVICE.into_iter().map(|(name, _)| name).filter(|name| fields.contains_key(*name));
            [error.code()].into_iter().chain(known).collect::<Vec<_>>().join(" ")
        }
        Some(error) => error.code().to_owned(),
    }
}

/// The error that `posted` names. Anyone can have written the address, so only its kind is used, and none of
/// its text.
fn sanitized_error(posted: &str) -> Option<ApiError> {
    let (code, about) = posted.split_once(' ').unwrap_or((posted, ""));
    match code {
        NO_COOKIE => return Some(ApiError::no_refresh_token()),
        NEEDS_HTTPS => return Some(ApiError::needs_https()),
        _ => {}
    }
    Some(match ApiError::from_code(code) {
        ApiError::InvalidRequest(_) => ApiError::InvalidRequest("The form could not be read.".into()),
        ApiError::InvalidGrant(_) => ApiError::wrong_credentials(),
        ApiError::TooManyRequests(_) => ApiError::TooManyRequests(about.parse().unwrap_or(1)),
        ApiError::InvalidFields(_) => {
            let known = ADVICE.into_iter().filter(|(name, _)| about.split(' ').any(|field| field == *name));
            ApiError::InvalidFields(
                known.map(|(name, advice)| (name.to_owned(), advice.to_owned())).collect(),
            )
        }
        // Posted before the page was hydrated, or without scripts, so no token was attached.
        ApiError::MissingToken => ApiError::InvalidRequest(
            "This form needs JavaScript. Wait until the page has loaded, then try again.".into(),
        ),
        ApiError::Transport => return None,
        other => other,
    })
}

/// The message of the error about one field.
fn error_of(error: &ApiError, name: &str) -> Option<String> {
    match error {
        ApiError::InvalidFields(fields) => fields.get(name).cloned(),
        ApiError::EmailTaken if name == "email" => {
            Some("An account with this e-mail address already exists.".to_owned())
        }
        _ => None,
    }
}

/// The contents of the form: the alert, the two fields and the button.
#[component]
pub fn CredentialsFields(
    form: CredentialsForm,
    /// `current-password` or `new-password`, for password managers.
    password_autocomplete: &'static str,
    /// A note on choosing a password; empty for none.
    password_hint: &'static str,
    /// The button's label, at rest and busy.
    button: (&'static str, &'static str),
) -> impl IntoView {
    let error = move |name| form.sending.field_error(name);
    let is_taken = move || form.sending.error.with(|error| *error == Some(ApiError::EmailTaken));
    view! {
        <FormAlert sending=form.sending fields=&["email", "password"] />
        <Field name="email" label="E-mail" kind="email" autocomplete="username" autofocus=true input=form.email error=error("email") />
        {move || is_taken().then(|| view! { <p><OtherForm form to="/login" words="Sign in instead" /></p> })}
        <Field name="password" label="Password" autocomplete=password_autocomplete hint=password_hint input=form.password error=error("password") />
        <SubmitButton sending=form.sending words=button />
    }
}

/// A link to the other form, which takes the typed address along.
#[component]
pub fn OtherForm(form: CredentialsForm, to: &'static str, words: &'static str) -> impl IntoView {
    view! { <a href=with_next(to) on:click=move |_| typed_email::keep(&value(form.email))>{words}</a> }
}

/// The server's error about the form as a whole, not about one of its `fields`.
#[component]
pub fn FormAlert(sending: Sending, fields: &'static [&'static str]) -> impl IntoView {
    let text = move || {
        sending.error.with(|error| match error.as_ref()? {
            error if fields.iter().any(|field| error_of(error, field).is_some()) => None,
            ApiError::TooManyRequests(_) => Some("Too many attempts.".to_owned()),
            error => Some(error.to_string()),
        })
    };
    let wait = move || {
        sending.error.with(|error| match error {
            Some(ApiError::TooManyRequests(seconds)) => Some(*seconds),
            _ => None,
        })
    };
    // Not a failure: what is left to do is in a mail.
    let class = move || {
        let is_failure = sending.error.with(|error| *error != Some(ApiError::VerificationRequired));
        if is_failure { "alert" } else { "note" }
    };
    view! {
        <div role="alert" class="alert-place">
            {move || text().map(|text| view! { <p class=class()>{text}</p> })}
        </div>
        {move || wait().map(|seconds| view! { <Wait seconds /> })}
    }
}

/// A countdown to the next possible attempt. Outside the alert, which screen readers would read out each
/// second.
#[component]
fn Wait(seconds: u64) -> impl IntoView {
    let left = RwSignal::new(seconds);
    let tick = move || left.update(|left| *left = left.saturating_sub(1));
    each_second(tick);
    let words = move || match left.get() {
        0 => "You can try again now.".to_owned(),
        1 => "You can try again in 1 second.".to_owned(),
        left => format!("You can try again in {left} seconds."),
    };
    view! { <p class="hint" role="timer">{words}</p> }
}

#[component]
pub fn SubmitButton(
    sending: Sending,
    /// The label, at rest and busy.
    words: (&'static str, &'static str),
    #[prop(default = "button")] class: &'static str,
) -> impl IntoView {
    view! {
        <button type="submit" class=class aria-disabled=move || sending.busy.get().to_string()>
            {move || if sending.busy.get() { words.1 } else { words.0 }}
        </button>
    }
}

/// A note on how the last session in this tab ended.
#[component]
pub fn SignOutNote() -> impl IntoView {
    let session = Session::expect();
    let note = move || {
        session.sign_out_notice().map(|sign_out_notice| match sign_out_notice {
            SignOutNotice::Confirmed(ConfirmedLogout { instances, elapsed_ms }) => {
                let servers = if instances == 1 { "the server".to_owned() } else { format!("all {instances} servers") };
                let time = duration(elapsed_ms);
                view! { <p class="note good">{format!("You have been signed out. Your token was revoked on {servers} in {time}.")}</p> }.into_any()
            }
            SignOutNotice::Ended(reason) => view! { <p class="note">{reason}</p> }.into_any(),
            SignOutNotice::Unconfirmed => view! { <UnconfirmedNote /> }.into_any(),
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
                "You are signed out in this browser, but the server could not confirm it, so your session may not have ended there. This page keeps trying."
            </p>
            <button type="button" class="button small" on:click=again>"Try again"</button>
        </div>
    }
}

/// A note on the limitation of this browser, added after hydration.
#[component]
pub fn BrowserLimitation() -> impl IntoView {
    let found = RwSignal::new(None);
    Effect::new(move || found.set(browser_limitation()));
    view! { <div role="status">{move || found.get().map(|text| view! { <p class="note">{text}</p> })}</div> }
}
