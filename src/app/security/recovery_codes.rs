//! The recovery codes: shown once after they were made, to be kept; later only how many are left.

use leptos::{html, prelude::*};

use super::methods::Methods;
use crate::{
    api,
    app::{
        components::{ActionButton, CopyButton, Dialog},
        dom::{focus_if_lost, save_file},
        reauthentication::Reauthentication,
        resource_view::Outcome,
    },
    client::session::Session,
};

/// Below this number, the page advises to make new codes.
const FEW: i64 = 4;

#[component]
pub fn RecoveryCodes(methods: Methods) -> impl IntoView {
    let outcome = Outcome::new();
    let renews = RwSignal::new(false);
    let heading = NodeRef::<html::H2>::new();
    let is_shown = move || methods.has_app() || methods.new_codes.with(Option::is_some);
    // The form that has made the codes is gone.
    Effect::new(move || {
        if methods.new_codes.with(Option::is_some)
            && let Some(heading) = heading.get()
        {
            let _ = heading.focus();
        }
    });
    let left = move || methods.get().recovery_codes;
    let state = move || {
        match methods.new_codes.get() {
        Some(codes) => view! { <NewCodes codes methods heading /> }.into_any(),
        None => view! {
            <p>"Each of them works once in place of a code of the app, if you do not have your phone."</p>
            <p class:note=move || left() < FEW class:bad=move || left() == 0>
                {move || match left() {
                    0 => "You have none left. Make new ones.".to_owned(),
                    1 => "You have 1 left. Make new ones.".to_owned(),
                    left if left < FEW => format!("You have {left} left. Make new ones."),
                    left => format!("You have {left} that were not used."),
                }}
            </p>
            <p class="actions">
                <button type="button" class="button small quiet" on:click=move |_| renews.set(true)>"Make new recovery codes…"</button>
            </p>
        }
        .into_any(),
    }
    };
    view! {
        <Show when=is_shown>
            <section class="card full needs-scripts" class:is-printed=move || methods.new_codes.with(Option::is_some) aria-labelledby="recovery">
                <h2 id="recovery" tabindex="-1" node_ref=heading>"Recovery codes"</h2>
                {outcome.view()}
                {state}
                <Dialog open=renews title="Make new recovery codes"><Renew renews methods outcome /></Dialog>
            </section>
        </Show>
    }
}

#[component]
fn NewCodes(codes: Vec<String>, methods: Methods, heading: NodeRef<html::H2>) -> impl IntoView {
    let site = window().location().origin().unwrap_or_default();
    let text = format!("Recovery codes for {site}\nEach works once.\n\n{}\n", codes.join("\n"));
    let file = text.clone();
    let done = move |_| {
        methods.new_codes.set(None);
        heading.get_untracked().iter().for_each(|heading| focus_if_lost(heading));
    };
    view! {
        <p>"Keep these where you find them without your phone: each works once in place of a code of the app, for " <strong>{site}</strong> ". "<strong>"They are shown only now."</strong></p>
        <ul class="codes" aria-label="Recovery codes">
            {codes.into_iter().map(|code| view! { <li><code>{code}</code></li> }).collect_view()}
        </ul>
        <p class="actions">
            <button type="button" class="button small quiet" on:click=move |_| save_file("recovery-codes.txt", "text/plain", &file)>"Download"</button>
            <CopyButton text what="the recovery codes" />
        </p>
        <p class="actions"><button type="button" class="button small" on:click=done>"I have kept them"</button></p>
    }
}

#[component]
fn Renew(renews: RwSignal<bool>, methods: Methods, outcome: Outcome) -> impl IntoView {
    let (session, reauthentication) = (Session::expect(), Reauthentication::expect());
    let failure = Outcome::new();
    let renew = move || async move {
        let call = || session.call(|| api::factors::renew_recovery_codes(String::new()));
        match reauthentication.run(call).await {
            Ok(made) => {
                renews.try_set(false);
                methods.new_codes.try_set(Some(made.codes));
                outcome.succeed("You have new recovery codes.".to_owned());
            }
            Err(error) => failure.fail(error),
        }
        methods.changed();
    };
    view! {
        <p>"The present ones stop working."</p>
        {failure.view()}
        <p class="actions">
            <ActionButton class="button small" words=("Make new codes", "Making…") action=renew />
            <button type="button" class="button small quiet" autofocus on:click=move |_| renews.set(false)>"Cancel"</button>
        </p>
    }
}
