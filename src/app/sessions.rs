//! The page of the user's sessions: where they are signed in, and how to end a session.

use leptos::prelude::*;
use leptos_meta::Title;

use super::{
    account::{AccountNav, ask_account},
    components::{ActionButton, Dialog},
    nav::NeedsScripts,
    reauthentication::Reauthentication,
    resource_view::{Latest, Outcome},
    session_rows::SessionRows,
};
use crate::{
    api::{self, types::Revocation},
    client::session::Session,
};

#[component]
pub fn SessionsPage() -> impl IntoView {
    let session = Session::expect();
    let list = Latest::of(LocalResource::new(move || session.call(api::account::sessions)));
    let outcome = Outcome::new();
    let account = ask_account();
    let on_ended = move || list.ask_again();
    let end = move |id: String| session.call(move || api::account::revoke_session(id.clone()));
    view! {
        <Title text="Your sessions" />
        <section class="card full">
            <h1>"Your sessions"</h1>
            <AccountNav account />
            <p class="lead">"Each sign-in on a device or in a browser is a session. When you end a session, every server refuses its tokens at once."</p>
            <NeedsScripts />
            {outcome.view()}
            {list.state("Loading…")}
            <Show when=move || list.found.with(Option::is_some)>
                <SessionRows list=list.found end on_ended outcome />
            </Show>
            // Below the list only once it is there, because it would push them down.
            <Show when=move || list.is_settled()>
                <EndMany outcome on_ended />
            </Show>
        </section>
    }
}

/// The buttons that end all other sessions, or all, each after a question.
#[component]
fn EndMany(outcome: Outcome, on_ended: impl Fn() + Copy + Send + Sync + 'static) -> impl IntoView {
    let (ends_others, ends_all) = (RwSignal::new(false), RwSignal::new(false));
    let on_done = move |revocation| {
        ends_others.set(false);
        outcome.tell("All your other sessions have ended.", Ok(revocation));
        on_ended();
    };
    view! {
        <p class="actions">
            <button type="button" class="button small quiet" on:click=move |_| ends_others.set(true)>"End other sessions"</button>
            <button type="button" class="button small quiet" on:click=move |_| ends_all.set(true)>"Sign out everywhere"</button>
        </p>
        <Dialog open=ends_others title="End all other sessions">
            <Confirm keep_current=true on_done on_cancel=move || ends_others.set(false) />
        </Dialog>
        <Dialog open=ends_all title="Sign out everywhere">
            <Confirm keep_current=false on_done on_cancel=move || ends_all.set(false) />
        </Dialog>
    }
}

/// The question before many sessions are ended.
#[component]
fn Confirm(
    keep_current: bool,
    on_done: impl Fn(Revocation) + Copy + Send + Sync + 'static,
    on_cancel: impl Fn() + 'static,
) -> impl IntoView {
    let (session, reauthentication) = (Session::expect(), Reauthentication::expect());
    let failure = Outcome::new();
    let call = move || api::account::logout_everywhere(keep_current, String::new());
    let end = move || async move {
        let answer = if keep_current {
            reauthentication.run(|| session.call(call)).await.map(on_done)
        } else {
            reauthentication.run(|| session.end_by(call)).await
        };
        if let Err(error) = answer {
            failure.fail(error);
        }
    };
    let (effect, words) = if keep_current {
        ("You stay signed in here.", ("End other sessions", "Ending…"))
    } else {
        ("You will be signed out here, too.", ("Sign out everywhere", "Signing out…"))
    };
    view! {
        <p>{effect}</p>
        {failure.view()}
        <p class="actions">
            <ActionButton class="button small danger" words action=end />
            <button type="button" class="button small quiet" autofocus on:click=move |_| on_cancel()>"Cancel"</button>
        </p>
    }
}
