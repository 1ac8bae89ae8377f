//! The page of the user's sessions: where they are signed in, how to end a session, and recent activity.

use leptos::{ev::SubmitEvent, html, prelude::*};
use leptos_meta::Title;

use super::{
    account::{AccountNav, ask_account},
    components::{ActionButton, Dialog, Facts, Field},
    form::{FormAlert, Sending, SubmitButton, focus, value},
    nav::NeedsScripts,
    relative_time::{ago, minutes_ago},
    resource_view::{Answered, Outcome, RELOAD, or_unconfirmed},
};
use crate::{
    api::{
        self,
        error::ApiError,
        types::{EndReason, EventKind, Revocation, SecurityEvent, SessionInfo},
    },
    client::session::Session,
};

/// How many sessions are shown until the user asks for the others.
const SHOWN: usize = 10;

#[component]
pub fn SessionsPage() -> impl IntoView {
    let session = Session::expect();
    let list = LocalResource::new(move || session.call(api::account::sessions));
    let events = LocalResource::new(move || session.call(api::account::events));
    let outcome = Outcome::new();
    let on_ended = move |answer: Result<Revocation, ApiError>| {
        outcome.tell(answer);
        list.refetch();
        events.refetch();
    };
    view! {
        <Title text="Your sessions" />
        <section class="card wide">
            <h1>"Your sessions"</h1>
            <AccountNav account=ask_account() />
            <p class="lead">"Each sign-in on a device or in a browser is a session. When you end a session, every server refuses its tokens at once."</p>
            <NeedsScripts />
            {outcome.view()}
            <Answered
                answer=list
                view=move |list| view! { <List sessions=list.sessions now=list.now on_ended /> }.into_any()
            />
            <EndMany on_ended />
        </section>
        <section class="card wide needs-scripts" aria-labelledby="events">
            <h2 id="events">"Recent activity"</h2>
            <Answered
                answer=events
                view=move |found| {
                    let rows = found.events.into_iter().map(|event| event_row(&event, found.now));
                    view! { <ul class="rows">{rows.collect_view()}</ul> }.into_any()
                }
            />
        </section>
    }
}

#[component]
fn List(
    sessions: Vec<SessionInfo>,
    now: i64,
    on_ended: impl Fn(Result<Revocation, ApiError>) + Copy + Send + Sync + 'static,
) -> impl IntoView {
    let count = sessions.len();
    let shows_all = RwSignal::new(count <= SHOWN);
    let sessions = StoredValue::new(sessions);
    let rows = move || {
        let shown = if shows_all.get() { count } else { SHOWN };
        let rows = sessions.get_value().into_iter().take(shown);
        rows.map(|info| view! { <Row info now on_ended /> }).collect_view()
    };
    view! {
        <ul class="rows" aria-label="Live sessions">{rows}</ul>
        <Show when=move || !shows_all.get()>
            <button type="button" class="button quiet small" on:click=move |_| shows_all.set(true)>
                {format!("Show all {count} sessions")}
            </button>
        </Show>
    }
}

#[component]
fn Row(
    info: SessionInfo,
    now: i64,
    on_ended: impl Fn(Result<Revocation, ApiError>) + Copy + Send + Sync + 'static,
) -> impl IntoView {
    let session = Session::expect();
    let SessionInfo { session_id, device, address, created_at, last_seen_at, is_current } = info;
    let label = format!("End the session on {device}");
    let end = move || {
        let session_id = session_id.clone();
        async move {
            let call = || api::account::revoke_session(session_id.clone());
            if is_current {
                if let Err(error) = session.end_by(call).await {
                    on_ended(Err(error));
                }
            } else {
                on_ended(session.call(call).await);
            }
        }
    };
    let (created, seen) = (minutes_ago(now - created_at), minutes_ago(now - last_seen_at));
    let facts = vec![format!("Signed in {created}"), format!("Last seen {seen}"), network(&address)];
    view! {
        <li>
            <div>
                <strong>{device}</strong>
                {is_current.then(|| view! { " " <span class="badge good">"this device"</span> })}
                <Facts facts />
            </div>
            <ActionButton words=("End", "Ending…") action=end label />
        </li>
    }
}

/// The buttons that end all other sessions, or all, after the password has been entered again.
#[component]
fn EndMany(on_ended: impl Fn(Result<Revocation, ApiError>) + Copy + Send + Sync + 'static) -> impl IntoView {
    let (ends_others, ends_all) = (RwSignal::new(false), RwSignal::new(false));
    let on_done = move |answer| {
        ends_others.set(false);
        ends_all.set(false);
        on_ended(answer);
    };
    view! {
        <p class="actions needs-scripts">
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

#[component]
fn Confirm(
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
            <Field name="password" label="Your password" autocomplete="current-password" input=password error=sending.field_error("password") />
            <SubmitButton sending words />
            <button type="button" class="button quiet" on:click=move |_| on_cancel()>"Cancel"</button>
        </form>
    }
}

/// The network that a session was started from, as a fact; empty if it is not known.
pub fn network(address: &str) -> String {
    if address.is_empty() { String::new() } else { format!("Network {address}") }
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
        },
    }
}
