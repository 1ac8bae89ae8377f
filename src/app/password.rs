//! The page for changing the password.

use leptos::{ev::SubmitEvent, html, prelude::*};
use leptos_meta::Title;

use super::{
    account::{AccountNav, Username, ask_account},
    components::Field,
    form::{FormAlert, Sending, SubmitButton, focus, on_typing, value},
    nav::NeedsScripts,
    reauthentication::Reauthentication,
    resource_view::{confirmation, or_unconfirmed},
};
use crate::{
    api::{self, error::ApiError, types::Revocation},
    client::session::Session,
};

const UNCONFIRMED: &str = "The servers could not confirm the change. Try again. If your current password is refused, it has been changed.";

#[component]
pub fn PasswordPage() -> impl IntoView {
    let (session, reauthentication) = (Session::expect(), Reauthentication::expect());
    let sending = Sending::with_posted_error();
    let (current, new) = (NodeRef::<html::Input>::new(), NodeRef::<html::Input>::new());
    let done = RwSignal::new(None::<Revocation>);
    let account = ask_account();
    let submit = move |event: SubmitEvent| {
        let (old_text, new_text) = (value(current), value(new));
        done.set(None);
        let call = async move {
            let call = || session.call(|| api::account::change_password(old_text.clone(), new_text.clone()));
            reauthentication.run(call).await.map_err(|error| or_unconfirmed(error, UNCONFIRMED))
        };
        sending.send(&event, call, move |answer| match answer {
            Ok(revocation) => {
                for field in [current, new] {
                    if let Some(input) = field.get_untracked() {
                        input.set_value("");
                    }
                }
                done.set(Some(revocation));
            }
            Err(ApiError::InvalidFields(fields)) if fields.contains_key("current") => focus(current),
            Err(_) => focus(new),
        });
    };
    let note = move || {
        done.get().map(|revocation| {
            let words = format!(
                "Your password has been changed, and all your other sessions have ended. {}",
                confirmation(&revocation)
            );
            view! { <p class="note good">{words}</p> }
        })
    };
    view! {
        <Title text="Change password" />
        <section class="card full">
            <h1>"Change password"</h1>
            <AccountNav account />
            <p class="lead">"Changing your password signs you out everywhere else."</p>
            <NeedsScripts />
            <div role="status">{note}</div>
            <form class="narrow" method="post" action="/api/account/change_password" novalidate on:input=on_typing on:submit=submit>
                <FormAlert sending fields=&["current", "new"] />
                <Username account />
                <Field name="current" label="Current password" autocomplete="current-password" input=current error=sending.field_error("current") />
                <Field name="new" label="New password" autocomplete="new-password" input=new error=sending.field_error("new") />
                <SubmitButton sending words=("Change password", "Changing…") />
            </form>
        </section>
    }
}
