//! The authenticator app of the user: to set up and to remove.

use leptos::{ev::SubmitEvent, html, prelude::*};

use super::methods::Methods;
use crate::{
    api::{
        self,
        types::{RecoveryCodes, TotpSecret},
    },
    app::{
        components::{ActionButton, CopyButton, Dialog, Field},
        form::{FormAlert, Sending, SubmitButton, focus, value},
        reauthentication::Reauthentication,
        relative_time::minutes_ago,
        resource_view::{Outcome, RELOAD, or_unconfirmed},
    },
    client::session::Session,
};

#[component]
pub fn Authenticator(methods: Methods) -> impl IntoView {
    let (session, reauthentication) = (Session::expect(), Reauthentication::expect());
    let outcome = Outcome::new();
    let secret = RwSignal::new(None::<TotpSecret>);
    let removes = RwSignal::new(false);
    let begin = move || async move {
        let call = || session.call(|| api::factors::begin_totp(String::new()));
        match reauthentication.run(call).await {
            Ok(made) => {
                secret.try_set(Some(made));
            }
            Err(error) => {
                outcome.fail(error);
                // There may be an app already.
                methods.changed();
            }
        }
    };
    let added = move || methods.get().totp_added_at.map(|at| minutes_ago(methods.get().now - at));
    let state = move || {
        match (methods.has_app(), secret.get()) {
        (true, _) => view! {
            <p>"You have one, added " {move || added()} ". After your password, you are asked for its code."</p>
            <p class="actions">
                <button type="button" class="button small quiet" on:click=move |_| removes.set(true)>"Remove the authenticator app…"</button>
            </p>
        }
        .into_any(),
        (false, Some(made)) => view! { <SetUp made secret methods outcome /> }.into_any(),
        (false, None) => view! {
            <p>"An app on your phone shows a new code every 30 seconds. After your password, you are asked for it."</p>
            <p class="actions"><ActionButton class="button small" words=("Add an authenticator app", "Preparing…") action=begin /></p>
        }
        .into_any(),
    }
    };
    view! {
        <section class="card full needs-scripts" aria-labelledby="authenticator">
            <h2 id="authenticator">"Authenticator app"</h2>
            {outcome.view()}
            {state}
            <Dialog open=removes title="Remove the authenticator app"><Remove removes methods outcome /></Dialog>
        </section>
    }
}

/// The secret for the app, and the form for its first code.
#[component]
fn SetUp(
    made: TotpSecret,
    secret: RwSignal<Option<TotpSecret>>,
    methods: Methods,
    outcome: Outcome,
) -> impl IntoView {
    let (session, reauthentication) = (Session::expect(), Reauthentication::expect());
    let (sending, input) = (Sending::new(), NodeRef::<html::Input>::new());
    let heading = NodeRef::<html::H3>::new();
    Effect::new(move || heading.get().into_iter().for_each(|heading| drop(heading.focus())));
    let submit = move |event: SubmitEvent| {
        let code = value(input);
        let call = async move {
            let call = || session.call(|| api::factors::add_totp(code.clone(), String::new()));
            reauthentication.run(call).await.map_err(|error| or_unconfirmed(error, RELOAD))
        };
        sending.send(&event, call, move |answer: Result<RecoveryCodes, _>| match answer {
            Ok(RecoveryCodes { codes, revocation }) => {
                secret.set(None);
                if let Some(revocation) = revocation {
                    let done = "The authenticator app is in use, and all your other sessions have ended.";
                    outcome.tell(done, Ok(revocation));
                }
                methods.new_codes.set(Some(codes));
                methods.changed();
            }
            Err(_) => {
                focus(input);
                if let Some(input) = input.get_untracked() {
                    input.select();
                }
            }
        });
    };
    let groups = in_groups(&made.secret);
    view! {
        <h3 tabindex="-1" node_ref=heading>"Set up the app"</h3>
        <div class="columns">
            <div class="qr" role="img" aria-label="QR code with the key" inner_html=made.qr_svg></div>
            <div>
                <p>"Scan this code with the app, or " <a href=made.uri>"open the app on this device"</a> "."</p>
                <p>"Or type this key into it:" <br /> <code class="key">{groups}</code> " " <CopyButton text=made.secret what="the key" /></p>
                <form class="narrow" novalidate on:submit=submit>
                    <FormAlert sending fields=&["code"] />
                    <Field name="code" label="Code" kind="text" autocomplete="one-time-code" hint="The six digits that the app shows now. All your other devices are then signed out." input error=sending.field_error("code") />
                    <SubmitButton sending words=("Use this app", "Checking…") />
                    <button type="button" class="button quiet" on:click=move |_| secret.set(None)>"Cancel"</button>
                </form>
            </div>
        </div>
    }
}

/// The text in groups of four, which are easier to type.
fn in_groups(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(4).map(|group| group.iter().collect()).collect::<Vec<String>>().join(" ")
}

#[component]
fn Remove(removes: RwSignal<bool>, methods: Methods, outcome: Outcome) -> impl IntoView {
    let (session, reauthentication) = (Session::expect(), Reauthentication::expect());
    let failure = Outcome::new();
    let remove = move || async move {
        let call = || session.call(|| api::factors::remove_totp(String::new()));
        match reauthentication.run(call).await {
            Ok(revocation) => {
                removes.try_set(false);
                methods.new_codes.try_set(None);
                let done = "The authenticator app was removed, and all your other sessions have ended.";
                outcome.tell(done, Ok(revocation));
            }
            Err(error) => failure.fail(error),
        }
        methods.changed();
    };
    view! {
        <p>"You are no longer asked for its codes, your recovery codes stop working, and all your other devices are signed out at once."</p>
        {failure.view()}
        <p class="actions">
            <ActionButton class="button small danger" words=("Remove app", "Removing…") action=remove />
            <button type="button" class="button small quiet" autofocus on:click=move |_| removes.set(false)>"Cancel"</button>
        </p>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_in_groups_of_four() {
        assert_eq!(in_groups("ABCDEFGHIJ"), "ABCD EFGH IJ");
    }
}
