//! The page of your sessions: where you are signed in, how to end it there, and what happened lately.

use leptos::{ev::SubmitEvent, html, prelude::*, task::spawn_local};
use leptos_meta::Title;

use super::{
    account::{AccountNav, ask_account},
    ago::ago,
    form::{Field, FormAlert, Sending, SubmitButton, focus, value},
};
use crate::{
    api::{
        self,
        error::AuthError,
        types::{EndReason, EventKind, Revocation, SecurityEvent, SessionInfo},
    },
    client::session::Session,
};

/// How many sessions are shown before one asks for the others.
const SHOWN: usize = 10;

#[component]
pub fn SessionsPage() -> impl IntoView {
    let session = Session::expect();
    let list = LocalResource::new(move || session.call(api::account::sessions));
    let events = LocalResource::new(move || session.call(api::account::events));
    let done = RwSignal::new(None::<Result<Revocation, AuthError>>);
    let on_ended = move |answer: Result<Revocation, AuthError>| {
        done.set(Some(answer));
        list.refetch();
        events.refetch();
    };
    view! {
        <Title text="Your sessions" />
        <section class="card wide">
            <h1>"Your sessions"</h1>
            <AccountNav account=ask_account() />
            <p class="lead">"Each sign-in on a device or in a browser is a session. End one, and every token of it is dead at once, on every server."</p>
            <Outcome done />
            <Suspense fallback=|| view! { <p class="hint">"Asking the server for your sessions…"</p> }>
                {move || list.get().map(|answer| match answer {
                    Ok(list) => view! { <List sessions=list.sessions now=list.now on_ended /> }.into_any(),
                    Err(error) => view! { <Trouble error on_retry=move || list.refetch() /> }.into_any(),
                })}
            </Suspense>
            <EndMany on_ended />
        </section>
        <section class="card wide" aria-labelledby="events">
            <h2 id="events">"What happened lately"</h2>
            <Suspense fallback=|| view! { <p class="hint">"Asking the server…"</p> }>
                {move || events.get().map(|answer| match answer {
                    Ok(found) => {
                        let rows = found.events.into_iter().map(|event| event_row(&event, found.now));
                        view! { <ul class="rows">{rows.collect_view()}</ul> }.into_any()
                    }
                    Err(error) => view! { <Trouble error on_retry=move || events.refetch() /> }.into_any(),
                })}
            </Suspense>
        </section>
    }
}

/// How the last ending went, with the servers that confirmed it.
#[component]
pub fn Outcome(done: RwSignal<Option<Result<Revocation, AuthError>>>) -> impl IntoView {
    let note = move || {
        done.get().map(|answer| match answer {
            Ok(Revocation { instances, acknowledged, elapsed_ms }) => {
                let words =
                    format!("Done. Confirmed by {acknowledged} of {instances} servers in {elapsed_ms} ms.");
                view! { <p class="note good">{words}</p> }.into_any()
            }
            Err(AuthError::InvalidFields(fields)) => {
                let advice = fields.into_values().collect::<Vec<_>>().join(" ");
                view! { <p class="alert">{advice}</p> }.into_any()
            }
            Err(error) => view! { <p class="alert">{error.to_string()}</p> }.into_any(),
        })
    };
    view! { <div role="status">{note}</div> }
}

#[component]
pub fn Trouble(error: AuthError, on_retry: impl Fn() + 'static) -> impl IntoView {
    view! {
        <div role="alert"><p class="alert">{error.to_string()}</p></div>
        <p><button type="button" class="button" on:click=move |_| on_retry()>"Try again"</button></p>
    }
}

#[component]
fn List(
    sessions: Vec<SessionInfo>,
    now: i64,
    on_ended: impl Fn(Result<Revocation, AuthError>) + Copy + Send + 'static,
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
                {format!("Show all {count}")}
            </button>
        </Show>
    }
}

#[component]
fn Row(
    info: SessionInfo,
    now: i64,
    on_ended: impl Fn(Result<Revocation, AuthError>) + Copy + Send + 'static,
) -> impl IntoView {
    let session = Session::expect();
    let busy = RwSignal::new(false);
    let SessionInfo { session_id, device, address, created_at, last_seen_at, is_current } = info;
    let label = format!("End {device}");
    let end = move |_| {
        if busy.get_untracked() {
            return;
        }
        busy.set(true);
        let session_id = session_id.clone();
        spawn_local(async move {
            let call = || api::account::revoke_session(session_id.clone());
            if is_current {
                if let Err(error) = session.end_by(call).await {
                    on_ended(Err(error));
                }
            } else {
                on_ended(session.call(call).await);
            }
            busy.try_set(false);
        });
    };
    let place = if address.is_empty() { String::new() } else { format!(" · {address}") };
    let times = format!("Signed in {} · last seen {}{place}", ago(now - created_at), ago(now - last_seen_at));
    view! {
        <li>
            <div>
                <strong>{device}</strong>
                {is_current.then(|| view! { " " <span class="badge good">"this one"</span> })}
                <p class="hint">{times}</p>
            </div>
            <button type="button" class="button small quiet" aria-label=label on:click=end aria-disabled=move || busy.get().to_string()>
                {move || if busy.get() { "Ending…" } else { "End" }}
            </button>
        </li>
    }
}

/// Ends all other sessions, or all: after the password has been shown again.
#[component]
fn EndMany(on_ended: impl Fn(Result<Revocation, AuthError>) + Copy + Send + 'static) -> impl IntoView {
    let keep_current = RwSignal::new(None::<bool>);
    view! {
        <p class="actions">
            <button type="button" class="button small quiet" on:click=move |_| keep_current.set(Some(true))>"End all others"</button>
            <button type="button" class="button small quiet" on:click=move |_| keep_current.set(Some(false))>"Sign out everywhere"</button>
        </p>
        {move || keep_current.get().map(|keep_current_session| {
            let on_done = move |answer| {
                keep_current.set(None);
                on_ended(answer);
            };
            view! { <Confirm keep_current=keep_current_session on_done on_cancel=move || keep_current.set(None) /> }
        })}
    }
}

#[component]
fn Confirm(
    keep_current: bool,
    on_done: impl Fn(Result<Revocation, AuthError>) + Copy + Send + 'static,
    on_cancel: impl Fn() + 'static,
) -> impl IntoView {
    let session = Session::expect();
    let (sending, password) = (Sending::new(), NodeRef::<html::Input>::new());
    Effect::new(move || focus(password));
    let submit = move |event: SubmitEvent| {
        let password_text = value(password);
        let call = async move {
            if password_text.is_empty() {
                return Err(AuthError::invalid_field("password", "Enter your password."));
            }
            let call = || api::account::logout_everywhere(keep_current, password_text.clone());
            if keep_current {
                session.call(call).await.map(Some)
            } else {
                session.end_by(call).await.map(|()| None)
            }
        };
        sending.send(&event, call, move |answer: Result<Option<Revocation>, _>| match answer {
            Ok(Some(revocation)) => on_done(Ok(revocation)),
            Ok(None) => {}
            Err(_) => focus(password),
        });
    };
    let (title, words) = if keep_current {
        ("End all other sessions", ("End all others", "Ending…"))
    } else {
        ("Sign out everywhere", ("Sign out everywhere", "Signing out…"))
    };
    view! {
        <form class="confirm" aria-label=title novalidate on:submit=submit>
            <FormAlert sending fields=&["password"] />
            <Field name="password" label="Your password, to make sure it is you" autocomplete="current-password" input=password error=sending.field_error("password") />
            <SubmitButton sending words />
            <button type="button" class="button quiet" on:click=move |_| on_cancel()>"Cancel"</button>
        </form>
    }
}

fn event_row(event: &SecurityEvent, now: i64) -> impl IntoView + use<> {
    let place = [&event.device, &event.address].map(String::as_str);
    let place: Vec<_> = place.into_iter().filter(|text| !text.is_empty()).collect();
    let (what, when) = (words(event.kind), ago(now - event.at));
    let details = [&[when.as_str()], &place[..]].concat().join(" · ");
    view! {
        <li>
            <div>
                <strong>{what}</strong>
                <p class="hint">{details}</p>
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
        EventKind::SessionEnded(reason) => match reason {
            EndReason::SignedOut => "Signed out",
            EndReason::SignedOutEverywhere => "Session ended: signed out everywhere",
            EndReason::EndedElsewhere => "Session ended from another device",
            EndReason::Replaced => "Session replaced by a new sign-in",
            EndReason::TokenReused => "Session ended: a used token came back, someone may have copied it",
            EndReason::PasswordChanged | EndReason::PasswordSet => "Session ended: the password was changed",
            EndReason::RoleChanged => "Session ended: the role was changed",
            EndReason::Disabled => "Session ended: the account was disabled",
            EndReason::EndedByAdmin => "Session ended by an administrator",
            EndReason::Expired => "Session expired",
        },
    }
}
