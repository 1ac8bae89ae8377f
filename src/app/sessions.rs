//! The page of the user's sessions: where they are signed in, how to end a session, and recent activity.

use leptos::{ev::SubmitEvent, html, prelude::*};
use leptos_meta::Title;

use super::{
    account::{AccountNav, Username, ask_account},
    components::{Dialog, Facts, Field},
    form::{FormAlert, Sending, SubmitButton, focus, value},
    nav::NeedsScripts,
    relative_time::ago,
    resource_view::{Answered, Latest, Outcome, RELOAD, or_unconfirmed},
    session_rows::{SessionRows, network},
};
use crate::{
    api::{
        self,
        error::ApiError,
        types::{Account, EndReason, EventKind, Revocation, SecurityEvent},
    },
    client::session::Session,
};

#[component]
pub fn SessionsPage() -> impl IntoView {
    let session = Session::expect();
    let list = Latest::of(LocalResource::new(move || session.call(api::account::sessions)));
    let events = LocalResource::new(move || session.call(api::account::events));
    let outcome = Outcome::new();
    let account = ask_account();
    let on_ended = move || {
        list.ask_again();
        events.refetch();
    };
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
                <EndMany account outcome on_ended />
            </Show>
        </section>
        <Show when=move || list.is_settled()>
            <section class="card full" aria-labelledby="events">
                <h2 id="events">"Recent activity"</h2>
                <Answered
                    answer=events
                    view=move |found| {
                        let rows = found.events.into_iter().map(|event| event_row(&event, found.now));
                        view! { <ul class="rows">{rows.collect_view()}</ul> }.into_any()
                    }
                />
            </section>
        </Show>
    }
}

/// The buttons that end all other sessions, or all, after the password has been entered again.
#[component]
fn EndMany(
    account: LocalResource<Result<Account, ApiError>>,
    outcome: Outcome,
    on_ended: impl Fn() + Copy + Send + Sync + 'static,
) -> impl IntoView {
    let (ends_others, ends_all) = (RwSignal::new(false), RwSignal::new(false));
    let on_done = move |answer| {
        ends_others.set(false);
        ends_all.set(false);
        outcome.tell("All your other sessions have ended.", answer);
        on_ended();
    };
    view! {
        <p class="actions">
            <button type="button" class="button small quiet" on:click=move |_| ends_others.set(true)>"End other sessions"</button>
            <button type="button" class="button small quiet" on:click=move |_| ends_all.set(true)>"Sign out everywhere"</button>
        </p>
        <Dialog open=ends_others title="End all other sessions">
            <Confirm account keep_current=true on_done on_cancel=move || ends_others.set(false) />
        </Dialog>
        <Dialog open=ends_all title="Sign out everywhere">
            <Confirm account keep_current=false on_done on_cancel=move || ends_all.set(false) />
        </Dialog>
    }
}

#[component]
fn Confirm(
    account: LocalResource<Result<Account, ApiError>>,
    keep_current: bool,
    on_done: impl Fn(Result<Revocation, ApiError>) + Copy + Send + Sync + 'static,
    on_cancel: impl Fn() + 'static,
) -> impl IntoView {
    let session = Session::expect();
    let (sending, password) = (Sending::new(), NodeRef::<html::Input>::new());
    Effect::new(move || focus(password));
    let submit = move |event: SubmitEvent| {
        let password_text = value(password);
        let call = async move {
            if password_text.is_empty() {
                return Err(ApiError::invalid_field("password", "Enter your password."));
            }
            let call = || api::account::logout_everywhere(keep_current, password_text.clone());
            let answer = if keep_current {
                session.call(call).await.map(Some)
            } else {
                session.end_by(call).await.map(|()| None)
            };
            answer.map_err(|error| or_unconfirmed(error, RELOAD))
        };
        sending.send(&event, call, move |answer: Result<Option<Revocation>, _>| match answer {
            Ok(Some(revocation)) => on_done(Ok(revocation)),
            Ok(None) => {}
            Err(_) => focus(password),
        });
    };
    let (effect, words) = if keep_current {
        ("You stay signed in here.", ("End other sessions", "Ending…"))
    } else {
        ("You will be signed out here, too.", ("Sign out everywhere", "Signing out…"))
    };
    view! {
        <form novalidate on:submit=submit>
            <p>{effect}</p>
            <FormAlert sending fields=&["password"] />
            <Username account />
            <Field name="password" label="Your password" autocomplete="current-password" input=password error=sending.field_error("password") />
            <SubmitButton sending words class="button danger" />
            <button type="button" class="button quiet" on:click=move |_| on_cancel()>"Cancel"</button>
        </form>
    }
}

fn event_row(event: &SecurityEvent, now: i64) -> impl IntoView + use<> {
    let (what, when) = (words(event.kind), ago(now - event.at));
    let facts = vec![when, event.device.clone(), network(&event.address)];
    view! {
        <li>
            <div>
                <strong>{what}</strong>
                <Facts facts />
            </div>
        </li>
    }
}

fn words(kind: EventKind) -> &'static str {
    match kind {
        EventKind::SignedIn => "Signed in",
        EventKind::PasswordChanged => "Password changed",
        EventKind::PasswordSet => "Password set by an administrator",
        EventKind::PasswordReset => "Password reset by the link in a mail",
        EventKind::EmailChanged => "E-mail address changed",
        EventKind::EmailRestored => "E-mail address changed back",
        EventKind::RoleChanged => "Role changed by an administrator",
        EventKind::Disabled => "Account disabled",
        EventKind::Enabled => "Account enabled",
        EventKind::RefreshedElsewhere => "Session used from another device or network",
        EventKind::SessionEnded(reason) => match reason {
            EndReason::SignedOut => "Signed out",
            EndReason::SignedOutEverywhere => "Session ended: signed out everywhere",
            EndReason::EndedElsewhere => "Session ended from another device",
            EndReason::Replaced => "Session replaced by a new sign-in",
            EndReason::TokenReused => "Session ended: it was used from two places and may have been copied",
            EndReason::PasswordChanged | EndReason::PasswordSet => "Session ended: the password was changed",
            EndReason::RoleChanged => "Session ended: the role was changed",
            EndReason::Disabled => "Session ended: the account was disabled",
            EndReason::EndedByAdmin => "Session ended by an administrator",
            EndReason::Expired => "Session expired",
            EndReason::Displaced => "Session ended: too many sessions",
            EndReason::PasswordReset => "Session ended: the password was reset",
            EndReason::EmailChanged => "Session ended: the e-mail address was changed",
            EndReason::Deleted => "Session ended: the account was deleted",
        },
    }
}
