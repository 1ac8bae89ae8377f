//! The passkeys of the user: to add, rename and remove.

use leptos::{ev::SubmitEvent, html, prelude::*};

use super::methods::Methods;
use crate::{
    api::{
        self,
        error::ApiError,
        types::{PasskeyInfo, Revocation},
    },
    app::{
        components::{ActionButton, Dialog, Facts, Field},
        dates::fact_at,
        dom::focus_if_lost,
        form::{FormAlert, Sending, SubmitButton, focus, value},
        reauthentication::Reauthentication,
        relative_time::{ago, minutes_ago},
        resource_view::{Outcome, RELOAD, or_unconfirmed, without_other_fields},
    },
    client::{
        passkeys::{self, Support},
        session::Session,
    },
};

/// The passkey that a dialog is about. Cheap to copy.
#[derive(Clone, Copy)]
struct Chosen {
    is_open: RwSignal<bool>,
    passkey: RwSignal<Option<PasskeyInfo>>,
}

impl Chosen {
    fn new() -> Self {
        Self { is_open: RwSignal::new(false), passkey: RwSignal::new(None) }
    }

    fn choose(self, passkey: PasskeyInfo) {
        self.passkey.set(Some(passkey));
        self.is_open.set(true);
    }

    /// The id and the name.
    fn get(self) -> (String, String) {
        self.passkey.with(|passkey| {
            passkey
                .as_ref()
                .map(|passkey| (passkey.passkey_id.clone(), passkey.name.clone()))
                .unwrap_or_default()
        })
    }

    fn close(self) {
        self.is_open.try_set(false);
    }

    /// The title of the dialog: `words`, then the name.
    fn title(self, words: &'static str) -> Signal<String> {
        Signal::derive(move || format!("{words} “{}”", self.get().1))
    }
}

#[component]
pub fn Passkeys(methods: Methods) -> impl IntoView {
    let outcome = Outcome::new();
    let adds = RwSignal::new(false);
    let (renames, removes) = (Chosen::new(), Chosen::new());
    let support = Support::of_page();
    let heading = NodeRef::<html::H2>::new();
    let passkeys = move || methods.get().passkeys;
    // The button that has removed one is gone with it.
    Effect::new(move |before: Option<usize>| {
        let count = passkeys().len();
        if before.is_some_and(|before| count < before) {
            heading.get_untracked().iter().for_each(|heading| focus_if_lost(heading));
        }
        count
    });
    let row = move |passkey: PasskeyInfo| {
        let id = passkey.passkey_id.clone();
        let now = Memo::new(move |_| {
            passkeys().into_iter().find(|found| found.passkey_id == id).unwrap_or_else(|| passkey.clone())
        });
        view! { <Row passkey=now methods renames removes /> }
    };
    view! {
        <h2 tabindex="-1" node_ref=heading>"Passkeys"</h2>
        <p>"A passkey signs you in with your fingerprint, your face or the lock of your device. It works on this site only, so that no other site can get it from you."</p>
        {outcome.view()}
        <ul class="rows" aria-label="Passkeys" hidden=move || passkeys().is_empty()>
            <For each=passkeys key=|passkey| passkey.passkey_id.clone() children=row />
        </ul>
        <Show when=move || passkeys().is_empty()><p class="hint">"No passkeys yet."</p></Show>
        {match support {
            Support::Works => view! {
                <p class="actions">
                    <button type="button" class="button small" on:click=move |_| adds.set(true)>"Add a passkey…"</button>
                </p>
            }
            .into_any(),
            Support::NotInThisBrowser => view! {
                <p class="note">"This browser cannot add passkeys here. They need Chrome 129, Firefox 119 or Safari 18.4, or newer, and an address with https."</p>
            }
            .into_any(),
            Support::NotAtThisAddress => view! {
                <p class="note">"Passkeys need a name in the address, such as localhost, and this page was opened by an IP address. Open the site by its name to add one."</p>
            }
            .into_any(),
        }}
        <Dialog open=adds title="Add a passkey"><Add adds methods outcome /></Dialog>
        <Dialog open=renames.is_open title=renames.title("Rename")><Rename chosen=renames methods outcome /></Dialog>
        <Dialog open=removes.is_open title=removes.title("Remove")><Remove chosen=removes methods outcome /></Dialog>
    }
}

#[component]
fn Row(passkey: Memo<PasskeyInfo>, methods: Methods, renames: Chosen, removes: Chosen) -> impl IntoView {
    let label = move |what: &str| passkey.with(|passkey| format!("{what} {}", passkey.name));
    let facts = move || {
        let PasskeyInfo { created_at, last_used_at, is_backed_up, signatures, .. } = passkey.get();
        let now = methods.get().now;
        let used = match last_used_at {
            Some(at) => fact_at(format!("Last used {}", ago(now - at)), at),
            None => "Not used yet".to_owned().into(),
        };
        let place = if is_backed_up { "Synchronized between devices" } else { "On one device only" };
        let signatures = match signatures {
            0 => String::new(),
            1 => "1 signature".to_owned(),
            count => format!("{count} signatures"),
        };
        let facts = vec![
            fact_at(format!("Added {}", minutes_ago(now - created_at)), created_at),
            used,
            place.to_owned().into(),
            signatures.into(),
        ];
        view! { <Facts facts /> }
    };
    view! {
        <li>
            <div>
                <strong>{move || passkey.with(|passkey| passkey.name.clone())}</strong>
                {facts}
            </div>
            <span class="row-actions">
                <button type="button" class="link" aria-label=move || label("Rename") on:click=move |_| renames.choose(passkey.get_untracked())>"Rename"</button>
                " "
                <button type="button" class="link" aria-label=move || label("Remove") on:click=move |_| removes.choose(passkey.get_untracked())>"Remove"</button>
            </span>
        </li>
    }
}

/// The field for the name of a passkey.
#[component]
fn NameField(input: NodeRef<html::Input>, sending: Sending) -> impl IntoView {
    view! {
        <Field name="passkey-name" label="Name" kind="text" autocomplete="off" hint="By which you know it again, such as “Phone” or “Blue security key”." input error=sending.field_error("name") />
    }
}

fn checked_name(input: NodeRef<html::Input>) -> Result<String, ApiError> {
    let name = value(input).trim().to_owned();
    if name.is_empty() { Err(ApiError::invalid_field("name", "Enter a name.")) } else { Ok(name) }
}

/// The form that gives a new passkey its name, and has the browser make it.
#[component]
fn Add(adds: RwSignal<bool>, methods: Methods, outcome: Outcome) -> impl IntoView {
    let (session, reauthentication) = (Session::expect(), Reauthentication::expect());
    let (sending, input) = (Sending::new(), NodeRef::<html::Input>::new());
    Effect::new(move || focus(input));
    let submit = move |event: SubmitEvent| {
        let name = checked_name(input);
        let call = async move {
            let name = name?;
            let begin = || session.call(|| api::factors::begin_passkey(String::new()));
            let begun = reauthentication.run(begin).await?;
            let credential = passkeys::create(&begun.options).await?;
            let add = || {
                let (ceremony, credential) = (begun.ceremony.clone(), credential.clone());
                api::factors::add_passkey(ceremony, credential, name.clone())
            };
            let answer = session.call(add).await;
            let answer = answer.map_err(|error| without_other_fields(error, &["name"]));
            answer.map(|revocation| (name.clone(), revocation)).map_err(|error| or_unconfirmed(error, RELOAD))
        };
        sending.send(&event, call, move |answer: Result<(String, Revocation), _>| match answer {
            Ok((name, revocation)) => {
                adds.set(false);
                let done = format!("The passkey “{name}” was added, and all your other sessions have ended.");
                outcome.tell(&done, Ok(revocation));
                methods.changed();
            }
            Err(_) => focus(input),
        });
    };
    view! {
        <form novalidate on:submit=submit>
            <p>"Your browser asks where to keep it. All your other devices are signed out."</p>
            <FormAlert sending fields=&["name"] />
            <NameField input sending />
            <SubmitButton sending words=("Continue", "Waiting for your passkey…") />
            <button type="button" class="button quiet" on:click=move |_| adds.set(false)>"Cancel"</button>
        </form>
    }
}

#[component]
fn Rename(chosen: Chosen, methods: Methods, outcome: Outcome) -> impl IntoView {
    let session = Session::expect();
    let (sending, input) = (Sending::new(), NodeRef::<html::Input>::new());
    Effect::new(move || {
        if let Some(input) = input.get() {
            input.set_value(&untrack(|| chosen.get()).1);
            input.select();
        }
        focus(input);
    });
    let submit = move |event: SubmitEvent| {
        let (id, _) = untrack(|| chosen.get());
        let name = checked_name(input);
        let call = async move {
            let name = name?;
            session.call(|| api::factors::rename_passkey(id.clone(), name.clone())).await?;
            Ok(name)
        };
        sending.send(&event, call, move |answer: Result<String, _>| match answer {
            Ok(name) => {
                chosen.close();
                outcome.succeed(format!("The passkey is named “{name}” now."));
                methods.changed();
            }
            Err(_) => focus(input),
        });
    };
    view! {
        <form novalidate on:submit=submit>
            <FormAlert sending fields=&["name"] />
            <NameField input sending />
            <SubmitButton sending words=("Rename", "Saving…") />
            <button type="button" class="button quiet" on:click=move |_| chosen.close()>"Cancel"</button>
        </form>
    }
}

#[component]
fn Remove(chosen: Chosen, methods: Methods, outcome: Outcome) -> impl IntoView {
    let (session, reauthentication) = (Session::expect(), Reauthentication::expect());
    let failure = Outcome::new();
    let remove = move || async move {
        let (id, name) = untrack(|| chosen.get());
        let call = || session.call(|| api::factors::remove_passkey(id.clone(), String::new()));
        match reauthentication.run(call).await {
            Ok(revocation) => {
                chosen.close();
                let done =
                    format!("The passkey “{name}” was removed, and all your other sessions have ended.");
                outcome.tell(&done, Ok(revocation));
            }
            Err(error) => failure.fail(error),
        }
        methods.changed();
    };
    view! {
        <p>"You can no longer sign in with it, and all your other devices are signed out at once. What is left of it on the device is of no use: delete it there, too."</p>
        {failure.view()}
        <p class="actions">
            <ActionButton class="button small danger" words=("Remove passkey", "Removing…") action=remove />
            <button type="button" class="button small quiet" autofocus on:click=move |_| chosen.close()>"Cancel"</button>
        </p>
    }
}
