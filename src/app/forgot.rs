//! The page that asks for a link to choose a new password.

use leptos::{ev::SubmitEvent, html, prelude::*};
use leptos_meta::Title;

use super::{
    components::Field,
    form::{FormAlert, Sending, SubmitButton, focus, value},
    query::query,
    sent_mail::SentMail,
};
use crate::{api, client::typed_email};

#[component]
pub fn ForgotPage() -> impl IntoView {
    let sending = Sending::with_posted_error();
    let email = NodeRef::<html::Input>::new();
    // Without scripts the answer to the form leads back to this page.
    let is_sent = RwSignal::new(SharedValue::new(|| query("done").is_some()).into_inner());
    Effect::new(move || {
        if let Some(typed) = typed_email::take()
            && let Some(input) = email.get_untracked()
            && input.value().is_empty()
        {
            input.set_value(&typed);
        }
    });
    let submit = move |event: SubmitEvent| {
        is_sent.set(false);
        let call = api::auth::forgot_password(value(email));
        sending.send(&event, call, move |answer| match answer {
            Ok(_) => is_sent.set(true),
            Err(_) => focus(email),
        });
    };
    view! {
        <Title text="Forgot your password" />
        <section class="card">
            <h1>"Forgot your password?"</h1>
            <p class="lead">"Enter the address of your account. You will get a mail with a link to choose a new password."</p>
            <div role="status">
                <Show when=move || is_sent.get()>
                    <p class="note good">"If there is an account with this address, a mail is on its way. Its link works once, for 20 minutes."</p>
                    <SentMail />
                </Show>
            </div>
            <form method="post" action="/api/auth/forgot_password" novalidate on:submit=submit>
                <FormAlert sending fields=&["email"] />
                <Field name="email" label="E-mail" kind="email" autocomplete="username" autofocus=true input=email error=sending.field_error("email") />
                <SubmitButton sending words=("Send the link", "Sending…") />
            </form>
            <p class="aside"><a href="/login" rel="external">"Back to signing in"</a></p>
        </section>
    }
}
