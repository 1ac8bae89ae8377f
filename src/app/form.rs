//! The parts that forms share: the state of a form that is being sent, and the note on how the last session
//! ended.

use std::future::pending;

use futures::future::LocalBoxFuture;
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
    components::{Field, advise, each_second},
    query::{is_failed_logout, query},
    relative_time::duration,
    return_to::{next_page, with_next},
};
use crate::{
    api::{error::ApiError, types::ConfirmedLogout},
    client::{
        lazy_app::{self, Beginning},
        passkeys::{CANCELED, Support},
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

/// What a form does with the answer to its call.
type OnAnswer<T> = Box<dyn FnOnce(Result<T, &ApiError>)>;

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

    /// Makes the call of the form that is submitted, as [`Sending::run`].
    pub fn send<T: 'static, F>(
        self,
        event: &SubmitEvent,
        call: F,
        on_answer: impl FnOnce(Result<T, &ApiError>) + 'static,
    ) where
        F: Future<Output = Result<T, ApiError>> + 'static,
    {
        event.prevent_default();
        self.run(call, on_answer);
    }

    /// Makes the call, unless one is pending. `on_answer` gets the result; an error is shown in the form.
    pub fn run<T: 'static, F>(self, call: F, on_answer: impl FnOnce(Result<T, &ApiError>) + 'static)
    where
        F: Future<Output = Result<T, ApiError>> + 'static,
    {
        if self.busy.get_untracked() {
            return;
        }
        self.busy.set(true);
        self.error.set(None);
        spawn_local(self.finish(Box::pin(call), Box::new(on_answer)));
    }

    /// Of one type for all forms with the same answer, because the front has to be small.
    async fn finish<T>(self, call: LocalBoxFuture<'static, Result<T, ApiError>>, on_answer: OnAnswer<T>) {
        let answer = call.await;
        self.busy.try_set(false);
        match answer {
            Ok(answer) => on_answer(Ok(answer)),
            Err(error) => {
                self.error.try_set(Some(error.clone()));
                on_answer(Err(&error));
            }
        }
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

/// The attribute of `<html>` on pages where passkeys work.
const PASSKEYS: &str = "data-passkeys";

/// What was typed into a [`CredentialsForm`].
pub struct Typed {
    pub email: String,
    pub password: String,
    /// The code of a second factor; empty unless it was asked for.
    pub code: String,
}

/// Shows the field that was hidden. In the document, not by a signal: the front has to be small.
fn reveal(field: NodeRef<html::Input>) {
    let place = field.get_untracked().and_then(|input| input.closest("[hidden]").ok().flatten());
    if let Some(place) = place {
        let _ = place.remove_attribute("hidden");
    }
}

/// The form to register or to sign in, with its fields.
#[derive(Clone, Copy)]
pub struct CredentialsForm {
    session: Session,
    email: NodeRef<html::Input>,
    password: NodeRef<html::Input>,
    code: NodeRef<html::Input>,
    /// Whether the server had asked for a code when the page was rendered.
    needs_code: bool,
    sending: Sending,
    /// Whether the browser suggests passkeys.
    suggests_passkeys: StoredValue<bool>,
}

impl CredentialsForm {
    /// An empty form, or one with the error of a form that was posted before the page was hydrated.
    pub fn new() -> Self {
        let sending = Sending::with_posted_error();
        let (email, password, code) = (NodeRef::<html::Input>::new(), NodeRef::new(), NodeRef::new());
        let needs_code = sending.error.with_untracked(|error| error.as_ref().is_some_and(is_about_code));
        let (session, next) = (Session::expect(), next_page());
        // The session may have begun by this form or in another tab.
        Effect::new(move || {
            if Support::of_page() == Support::Works
                && let Some(root) = document().document_element()
            {
                let _ = root.set_attribute(PASSKEYS, "");
            }
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
        let suggests_passkeys = StoredValue::new(false);
        Self { session, email, password, code, needs_code, sending, suggests_passkeys }
    }

    /// Sends the fields, and focuses the first field that needs attention if that fails. After success the form stays
    /// busy, because the next page is loading.
    pub fn submit(self, event: &SubmitEvent, how: fn(Typed) -> Beginning) {
        let form = event.target().and_then(|target| target.dyn_into::<HtmlFormElement>().ok());
        let typed = form.as_ref().and_then(|form| {
            Some(Typed {
                email: text_in(form, "email")?,
                password: text_in(form, "password")?,
                code: text_in(form, "code").unwrap_or_default(),
            })
        });
        // Without its fields the form is left to the browser, which posts it.
        let Some(typed) = typed else { return };
        event.prevent_default();
        self.begin(how(typed), form);
    }

    /// Begins a session, by the fields of `form`, which can also be posted, or without it.
    fn begin(self, how: Beginning, form: Option<HtmlFormElement>) {
        let session = self.session;
        let is_about_fields = form.is_some();
        let on_answer = move |answer: Result<(), &ApiError>| match answer {
            Ok(()) => {}
            Err(_) if !is_about_fields => {}
            Err(error) if error_of(error, "email").is_some() => focus(self.email),
            Err(error) if is_about_code(error) => {
                reveal(self.code);
                select(self.code);
            }
            Err(_) => select(self.password),
        };
        let send = async move {
            // The part may be gone, together with the version of the site that this page belongs to. Posting
            // the form works without it.
            if lazy_app::fetch().await.is_err() && window().navigator().on_line() {
                let sent = form.is_some_and(|form| form.submit().is_ok());
                return if sent { pending().await } else { Err(ApiError::Transport) };
            }
            session.begin(how).await?;
            pending().await
        };
        self.sending.run(send, on_answer);
    }

    /// Has the browser suggest passkeys in the field for the address, if it can. The part of the wasm that does so is
    /// fetched here: once the user turns to the form, not with the page.
    pub fn suggest_passkeys(self) {
        let session = self.session;
        if self.suggests_passkeys.get_value() || Support::of_page() != Support::Works {
            return;
        }
        self.suggests_passkeys.set_value(true);
        spawn_local(async move {
            // Without its part nothing is suggested.
            while lazy_app::fetch().await.is_ok()
                && let Err(error) = session.begin(Beginning::Passkey { by_autofill: true }).await
            {
                self.sending.error.try_set(Some(error));
            }
            self.suggests_passkeys.try_set_value(false);
        });
    }
}

/// Whether the error asks for the code of a second factor, or says that it is wrong.
fn is_about_code(error: &ApiError) -> bool {
    *error == ApiError::SecondFactorRequired || *error == ApiError::wrong_code()
}

/// Advises on a new password. With the advice comes the part of the wasm that sends the form, while the user fills it in.
pub fn on_typing(event: Event) {
    spawn_local(async { drop(advise(event).await) });
}

/// The advice for each refused field, instead of a message from the page's address, which anyone can have
/// written.
const ADVICE: [(&str, &str); 2] = [
    ("email", "Enter an e-mail address, like ann@example.com."),
    ("password", "Use a password that is long enough and not a common one."),
];

/// The errors that a posted form can come back with, apart from those about fields and attempts. In the document they are
/// numbers: the codes and all that goes with them would add to the front.
const POSTED: [fn() -> ApiError; NEEDS_SCRIPTS + 1] = [
    ApiError::no_refresh_token,
    ApiError::needs_https,
    ApiError::wrong_code,
    ApiError::wrong_credentials,
    || ApiError::SecondFactorRequired,
    || ApiError::VerificationRequired,
    || ApiError::EmailTaken,
    || ApiError::CrossSite,
    || ApiError::PayloadTooLarge,
    || ApiError::Unavailable,
    || ApiError::Internal,
    || ApiError::InvalidToken,
    || ApiError::InvalidRequest("The form could not be read.".into()),
    // Posted before the page was hydrated, or without scripts, so no token was attached.
    || {
        ApiError::InvalidRequest(
            "This form needs JavaScript. Wait until the page has loaded, then try again.".into(),
        )
    },
];

/// The places of some in [`POSTED`]: wrong credentials, an error of the server, and a missing token.
const REFUSED: usize = 3;
const UNKNOWN: usize = 10;
const NEEDS_SCRIPTS: usize = 13;

/// The error in the address of the page, as text for [`sanitized_error`]: its number, then the names of the
/// fields that it concerns or the seconds to wait. Empty without an error, and in the browser: the server
/// parses it, because the wasm of the front contains no JSON.
fn error_from_query() -> String {
    // The error of a logout is shown at the top of the page.
    if !cfg!(feature = "ssr") || is_failed_logout() {
        return String::new();
    }
    let error = query("__err").map(|error| ServerFnUrlError::<ApiError>::decode_err(&error));
    // Anyone can have written the address, so only the kind of the error is used, and none of its text.
    let kind = match error {
        None | Some(ApiError::Transport) => return String::new(),
        Some(ApiError::TooManyRequests(seconds)) => return format!("{WAIT} {seconds}"),
        Some(ApiError::InvalidFields(fields)) => {
            let known = ADVICE.into_iter().map(|(name, _)| name).filter(|name| fields.contains_key(*name));
            return [FIELDS].into_iter().chain(known).collect::<Vec<_>>().join(" ");
        }
        Some(ApiError::MissingToken) => ApiError::InvalidRequest(String::new()),
        Some(error) => error,
    };
    let has = |posted: &fn() -> ApiError| posted() == kind;
    let is_of = |posted: &fn() -> ApiError| posted().code() == kind.code();
    let number = match &kind {
        ApiError::InvalidRequest(words) if words.is_empty() => Some(NEEDS_SCRIPTS),
        ApiError::InvalidGrant(_) => POSTED.iter().position(has).or(Some(REFUSED)),
        _ => POSTED.iter().position(is_of).or(Some(UNKNOWN)),
    };
    number.map_or_else(String::new, |number| number.to_string())
}

/// The kinds of errors with more than a number, in the text of [`error_from_query`].
const WAIT: &str = "wait";
const FIELDS: &str = "fields";

/// The error that `posted` names.
fn sanitized_error(posted: &str) -> Option<ApiError> {
    let (kind, about) = posted.split_once(' ').unwrap_or((posted, ""));
    if kind == WAIT {
        return Some(ApiError::TooManyRequests(about.parse().unwrap_or(1)));
    }
    if kind == FIELDS {
        let known = ADVICE.into_iter().filter(|(name, _)| about.split(' ').any(|field| field == *name));
        return Some(ApiError::InvalidFields(
            known.map(|(name, advice)| (name.to_owned(), advice.to_owned())).collect(),
        ));
    }
    let number: usize = kind.parse().ok()?;
    POSTED.get(number).map(|posted| posted())
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

/// The contents of the form: the alert, the fields and the button.
#[component]
pub fn CredentialsFields(
    form: CredentialsForm,
    /// Whether a password is chosen here, for a new account.
    is_new: bool,
    /// The button's label, at rest and busy.
    button: (&'static str, &'static str),
) -> impl IntoView {
    let error = move |name| form.sending.field_error(name);
    let autocomplete = if is_new { "new-password" } else { "current-password" };
    // Browsers suggest passkeys in a field that says so.
    let email_autocomplete = if is_new { "username" } else { "username webauthn" };
    let is_taken = move || form.sending.error.with(|error| *error == Some(ApiError::EmailTaken));
    view! {
        <FormAlert sending=form.sending fields=&["email", "password"] />
        <Field name="email" label="E-mail" kind="email" autocomplete=email_autocomplete autofocus=true input=form.email error=error("email") />
        {move || is_taken().then(|| view! { <p><OtherForm form to="/login" words="Sign in instead" /></p> })}
        <Field name="password" label="Password" autocomplete input=form.password error=error("password") />
        // Hidden until the server asks for it.
        <div hidden=!form.needs_code><CodeField input=form.code error=error("code") /></div>
        <SubmitButton sending=form.sending words=button />
    }
}

/// The field for the code of a second factor.
#[component]
pub fn CodeField(
    #[prop(default = "code")] name: &'static str,
    input: NodeRef<html::Input>,
    error: Signal<Option<String>>,
) -> impl IntoView {
    view! {
        <Field name label="Code" kind="text" autocomplete="one-time-code" hint="Six digits from your authenticator app, or a recovery code." input error />
    }
}

/// The button that signs in with a passkey. It is shown once [`PASSKEYS`] is set.
#[component]
pub fn PasskeyButton(form: CredentialsForm) -> impl IntoView {
    view! {
        <p class="passkey needs-scripts">
            <button type="button" class="button quiet" on:click=move |_| form.begin(Beginning::Passkey { by_autofill: false }, None)>
                "Sign in with a passkey"
            </button>
        </p>
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
    let class = move || {
        let is_failure = sending.error.with(|error| error.as_ref().is_none_or(is_failure));
        if is_failure { "alert" } else { "note" }
    };
    view! {
        <div role="alert" class="alert-place">
            {move || text().map(|text| view! { <p class=class()>{text}</p> })}
        </div>
        {move || wait().map(|seconds| view! { <Wait seconds /> })}
    }
}

/// Whether something has failed. Otherwise there is more for the user to do, or the user has canceled it.
fn is_failure(error: &ApiError) -> bool {
    match error {
        ApiError::VerificationRequired | ApiError::SecondFactorRequired => false,
        ApiError::InvalidRequest(words) => !words.starts_with(CANCELED),
        _ => true,
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
