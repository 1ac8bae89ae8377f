//! The page that the link in a mail leads to, to choose a new password.

use leptos::{ev::SubmitEvent, html, prelude::*};
use leptos_meta::Title;

use super::{
    components::Field,
    form::{FormAlert, Sending, SubmitButton, focus, on_typing, value},
    query::query,
    resource_view::{confirmation, or_unconfirmed},
};
use crate::api::{self, error::ApiError};

const UNCONFIRMED: &str = "The servers could not confirm the change. Try to sign in with the new password. If it works, it has been changed: then sign out everywhere on the page Sessions.";

#[component]
pub fn ResetPage() -> impl IntoView {
    let dead = ApiError::dead_mail_token();
    let sending = Sending::with_posted_error().with_words_for(&dead, ApiError::dead_mail_token);
    let password = NodeRef::<html::Input>::new();
    let token = SharedValue::new_str(|| query("token").unwrap_or_default()).into_inner();
    let is_done_by_form = SharedValue::new(|| query("done").is_some()).into_inner();
    let done = RwSignal::new(is_done_by_form.then(String::new));
    let is_incomplete = token.is_empty();
    let token = StoredValue::new(token);
    let submit = move |event: SubmitEvent| {
        let new = value(password);
        let call = async move {
            let answer = api::auth::reset_password(token.get_value(), new).await;
            answer.map_err(|error| or_unconfirmed(error, UNCONFIRMED))
        };
        sending.send(&event, call, move |answer| match answer {
            Ok(revocation) => done.set(Some(confirmation(&revocation))),
            Err(_) => focus(password),
        });
    };
    view! {
        <Title text="Choose a new password" />
        <section class="card">
            <h1>"Choose a new password"</h1>
            <div role="status">
                {move || done.get().map(|confirmed| view! {
                    <p class="note good">"Your password has been changed, and every device has been signed out. " {confirmed}</p>
                    <p><a href="/login" rel="external" class="button">"Sign in"</a></p>
                })}
            </div>
            <Show when=move || done.with(Option::is_none)>
                {is_incomplete.then(|| view! {
                    <p class="alert">"The link is not complete. Open it from the mail again, or copy all of it."</p>
                })}
                <p class="lead">"Afterwards you are signed out on every device, and sign in with the new password."</p>
                <form method="post" action="/api/auth/reset_password" novalidate on:input=on_typing on:submit=submit>
                    <FormAlert sending fields=&["password"] />
                    <span class="input" hidden><input type="hidden" name="token" value=token.get_value() /></span>
                    <Field name="password" label="New password" autocomplete="new-password" autofocus=true input=password error=sending.field_error("password") />
                    <SubmitButton sending words=("Change password", "Changing…") />
                </form>
                <p class="aside"><a href="/forgot">"Ask for another link"</a></p>
            </Show>
        </section>
    }
}
