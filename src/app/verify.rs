//! The page that the link in a mail leads to, to confirm an address. Opening it changes nothing, because programs that look
//! for harmful links open them, too: the user presses a button.

use leptos::{ev::SubmitEvent, html, prelude::*};
use leptos_meta::Title;

use super::{
    components::Field,
    form::{FormAlert, Sending, SubmitButton, focus, value},
    query::query,
    resource_view::{confirmation, or_unconfirmed},
};
use crate::api::{
    self,
    error::ApiError,
    types::{Confirmation, Confirmed},
};

const UNCONFIRMED: &str = "The servers could not confirm this, so it may have taken effect or not. Try again. If the link is refused, it has taken effect.";

#[component]
pub fn VerifyPage() -> impl IntoView {
    let dead = ApiError::dead_mail_token();
    let no_password =
        || ApiError::invalid_field("password", "Enter the password that you have chosen for this account.");
    let sending = Sending::with_posted_error()
        .with_words_for(&dead, ApiError::dead_mail_token)
        .with_words_for(&no_password(), no_password);
    let password = NodeRef::<html::Input>::new();
    let password_error = sending.field_error("password");
    // The server asks for it if only confirmed addresses are let in.
    let needs_password = RwSignal::new(password_error.with_untracked(Option::is_some));
    Effect::new(move || {
        if needs_password.get() {
            focus(password);
        }
    });
    let token = SharedValue::new_str(|| query("token").unwrap_or_default()).into_inner();
    let is_done_by_form = SharedValue::new(|| query("done").is_some()).into_inner();
    let done = RwSignal::new(is_done_by_form.then(|| Done {
        words: "It is done. If you have undone a change of your address, choose a new password.".into(),
        next: ("/login", "Sign in"),
    }));
    let is_incomplete = token.is_empty();
    let token = StoredValue::new(token);
    let submit = move |event: SubmitEvent| {
        let password_text = value(password);
        let call = async move {
            let answer = api::auth::verify_email(token.get_value(), password_text).await;
            answer.map_err(|error| or_unconfirmed(error, UNCONFIRMED))
        };
        sending.send(&event, call, move |answer| match answer {
            Ok(confirmation) => done.set(Some(Done::of(&confirmation))),
            Err(ApiError::InvalidFields(_)) => needs_password.set(true),
            Err(_) => {}
        });
    };
    view! {
        <Title text="Confirm" />
        <section class="card">
            <h1>"Confirm your e-mail address"</h1>
            <div role="status">
                {move || done.get().map(|Done { words, next: (path, label) }| view! {
                    <p class="note good">{words}</p>
                    <p><a href=path rel="external" class="button">{label}</a></p>
                })}
            </div>
            <Show when=move || done.with(Option::is_none)>
                {is_incomplete.then(|| view! {
                    <p class="alert">"The link is not complete. Open it from the mail again, or copy all of it."</p>
                })}
                <form method="post" action="/api/auth/verify_email" novalidate on:submit=submit>
                    <FormAlert sending fields=&["password"] />
                    <p class="lead">"Press the button to confirm what the mail says."</p>
                    <span class="input" hidden><input type="hidden" name="token" value=token.get_value() /></span>
                    <Show when=move || needs_password.get()>
                        <Field name="password" label="Password" autocomplete="current-password" input=password error=password_error />
                    </Show>
                    <SubmitButton sending words=("Confirm", "Confirming…") />
                </form>
            </Show>
        </section>
    }
}

/// What was confirmed, and the address and the words of the link to go on with.
#[derive(Clone)]
struct Done {
    words: String,
    next: (&'static str, &'static str),
}

impl Done {
    fn of(Confirmation { confirmed, revocation }: &Confirmation) -> Self {
        let ended = revocation.as_ref().map(confirmation).unwrap_or_default();
        let (words, next) = match confirmed {
            Confirmed::Verified => ("Your address is confirmed.".to_owned(), ("/settings", "Go on")),
            Confirmed::Registered => (
                "Your account is ready. Sign in with the password that you have chosen.".to_owned(),
                ("/login", "Sign in"),
            ),
            Confirmed::EmailChanged => (
                format!(
                    "This is the address of your account now, and every device has been signed out. {ended}"
                ),
                ("/login", "Sign in"),
            ),
            Confirmed::EmailRestored => (
                format!(
                    "Your account has its earlier address again, every device has been signed out, and the password is void. {ended}"
                ),
                ("/forgot", "Choose a new password"),
            ),
        };
        Self { words, next }
    }
}
