//! The page for the address, a copy of the data, and the end of the account.

use leptos::{ev::SubmitEvent, html, prelude::*};
use leptos_meta::Title;

use super::{
    account::{AccountNav, ask_account},
    components::{ActionButton, Dialog, Field},
    dates::LanguageOfDates,
    dom::save_file,
    form::{FormAlert, Sending, SubmitButton, focus, value},
    nav::NeedsScripts,
    reauthentication::Reauthentication,
    resource_view::{Latest, Outcome},
    sent_mail::SentMail,
};
use crate::{
    api::{
        self,
        error::ApiError,
        types::{Account, UserProfile},
    },
    client::session::Session,
};

#[component]
pub fn SettingsPage() -> impl IntoView {
    let session = Session::expect();
    let profile = Latest::of(LocalResource::new(move || session.call(api::account::profile)));
    let account = ask_account();
    view! {
        <Title text="Settings" />
        <section class="card full">
            <h1>"Settings"</h1>
            <AccountNav account />
            <NeedsScripts />
            {profile.state("Loading…")}
            <Show when=move || profile.found.with(Option::is_some)>
                <Address profile=profile.found />
            </Show>
        </section>
        <section class="card full needs-scripts" aria-labelledby="display">
            <h2 id="display">"Display"</h2>
            <LanguageOfDates />
        </section>
        <section class="card full needs-scripts" aria-labelledby="data">
            <h2 id="data">"Your data"</h2>
            <Export />
        </section>
        <section class="card full needs-scripts" aria-labelledby="delete">
            <h2 id="delete">"Delete this account"</h2>
            <Delete account />
        </section>
    }
}

/// The address, whether it is confirmed, and the form to change it.
#[component]
fn Address(profile: RwSignal<Option<UserProfile>>) -> impl IntoView {
    let (session, reauthentication) = (Session::expect(), Reauthentication::expect());
    let (sending, email) = (Sending::new(), NodeRef::<html::Input>::new());
    // What was sent, and to which address.
    let sent = RwSignal::new(None::<String>);
    let trouble = RwSignal::new(None::<ApiError>);
    let present = move || profile.get().unwrap_or_default();
    let send_again = move || async move {
        match session.call(api::account::send_verification).await {
            Ok(_) => {
                trouble.try_set(None);
                sent.try_set(Some(present().email));
            }
            Err(error) => drop(trouble.try_set(Some(error))),
        }
    };
    let submit = move |event: SubmitEvent| {
        let new = value(email);
        sent.set(None);
        let typed = new.clone();
        let call = async move {
            let call = || session.call(|| api::account::change_email(new.clone(), String::new()));
            reauthentication.run(call).await
        };
        sending.send(&event, call, move |answer| match answer {
            Ok(_) => {
                if let Some(input) = email.get_untracked() {
                    input.set_value("");
                }
                sent.set(Some(typed));
            }
            Err(_) => focus(email),
        });
    };
    view! {
        <h2>"E-mail address"</h2>
        <p class="lead">"Your address is " <strong>{move || present().email}</strong> "."</p>
        <Show when=move || !present().is_verified>
            <p class="note">
                "It is not confirmed yet: open the link in the mail that we have sent to it. Until then you get no notices about your account. "
                <ActionButton class="link" words=("Send the link again", "Sending…") action=send_again />
            </p>
            <div role="alert">{move || trouble.get().map(|error| view! { <p class="alert">{error.to_string()}</p> })}</div>
        </Show>
        <div role="status">
            {move || sent.get().map(|address| view! {
                <p class="note good">"A mail to " <strong>{address}</strong> " is on its way. Open the link in it."</p>
                <SentMail />
            })}
        </div>
        <form class="narrow" novalidate on:submit=submit>
            <FormAlert sending fields=&["email"] />
            <Field name="email" label="New address" kind="email" autocomplete="email" hint="You confirm it by a mail to the new address, and are then signed out everywhere." input=email error=sending.field_error("email") />
            <SubmitButton sending words=("Change address", "Sending…") />
        </form>
    }
}

/// The button that downloads what is kept about the user.
#[component]
fn Export() -> impl IntoView {
    let session = Session::expect();
    let trouble = RwSignal::new(None::<ApiError>);
    let download = move || async move {
        match session.call(api::account::export).await {
            Ok(export) => {
                trouble.try_set(None);
                save_file(
                    "account.json",
                    "application/json",
                    &serde_json::to_string_pretty(&export).unwrap_or_default(),
                );
            }
            Err(error) => drop(trouble.try_set(Some(error))),
        }
    };
    view! {
        <p>"A file with all that is kept about you: your account, sessions and activity. Sessions are kept until a day after they have expired, activity for 90 days."</p>
        <div role="alert">{move || trouble.get().map(|error| view! { <p class="alert">{error.to_string()}</p> })}</div>
        <p class="actions"><ActionButton words=("Download your data", "Preparing…") action=download /></p>
    }
}

/// The button that deletes the account, after a question.
#[component]
fn Delete(account: LocalResource<Result<Account, ApiError>>) -> impl IntoView {
    let asks = RwSignal::new(false);
    let email = move || account.get().and_then(Result::ok).map(|account| account.email);
    let title = Signal::derive(move || format!("Delete the account {}", email().unwrap_or_default()));
    view! {
        <p>"You are signed out everywhere at once, and your address, devices and activity are removed. This cannot be undone. Random ids and times stay until the last session would have expired."</p>
        <p class="actions">
            <button type="button" class="button small danger" on:click=move |_| asks.set(true)>"Delete account…"</button>
        </p>
        <Dialog open=asks title>
            <ConfirmDelete on_cancel=move || asks.set(false) />
        </Dialog>
    }
}

/// The question before the account is deleted.
#[component]
fn ConfirmDelete(on_cancel: impl Fn() + 'static) -> impl IntoView {
    let (session, reauthentication) = (Session::expect(), Reauthentication::expect());
    let failure = Outcome::new();
    let delete = move || async move {
        let call = || session.end_by(|| api::account::delete(String::new()));
        if let Err(error) = reauthentication.run(call).await {
            failure.fail(error);
        }
    };
    view! {
        <p>"This cannot be undone."</p>
        {failure.view()}
        <p class="actions">
            <ActionButton class="button small danger" words=("Delete account", "Deleting…") action=delete />
            <button type="button" class="button small quiet" autofocus on:click=move |_| on_cancel()>"Cancel"</button>
        </p>
    }
}
