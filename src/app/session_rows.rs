//! Lists of sessions, each with a button that ends it.

use std::collections::HashSet;

use leptos::{html, prelude::*};

use super::{
    components::{ActionButton, Facts},
    dates::fact_at,
    dom::focus_if_lost,
    nav::LogoutButton,
    relative_time::minutes_ago,
    resource_view::Outcome,
};
use crate::api::{
    error::ApiError,
    types::{Revocation, SessionInfo, SessionList},
};

/// How many sessions are shown until the user asks for the others.
const SHOWN: usize = 10;

/// The sessions of the server's last answer. One that has ended keeps its place, marked as ended, until the
/// page is opened again: so a second click cannot end the next one.
#[component]
pub fn SessionRows<F>(
    #[prop(into)] list: Signal<Option<SessionList>>,
    /// Ends the session with this id.
    end: impl Fn(String) -> F + Copy + Send + Sync + 'static,
    /// Called when a session has ended.
    on_ended: impl Fn() + Copy + Send + Sync + 'static,
    outcome: Outcome,
) -> impl IntoView
where
    F: Future<Output = Result<Revocation, ApiError>> + 'static,
{
    let known = RwSignal::new(Vec::<SessionInfo>::new());
    let live = RwSignal::new(HashSet::<String>::new());
    let now = StoredValue::new(0);
    Effect::new(move || {
        let Some(SessionList { now: server_now, sessions }) = list.get() else { return };
        now.set_value(server_now);
        live.set(sessions.iter().map(|info| info.session_id.clone()).collect());
        known.update(|known| {
            let is_new = |info: &SessionInfo| known.iter().all(|old| old.session_id != info.session_id);
            let new: Vec<_> = sessions.into_iter().filter(is_new).collect();
            known.extend(new);
        });
    });
    let shows_all = RwSignal::new(false);
    let shown = move || {
        let count = if shows_all.get() { usize::MAX } else { SHOWN };
        known.with(|known| known.iter().take(count).cloned().collect::<Vec<_>>())
    };
    let hides_some = move || !shows_all.get() && known.with(Vec::len) > SHOWN;
    let row = move |info: SessionInfo| {
        let SessionInfo { session_id, device, address, created_at, last_seen_at, is_current } = info;
        let id = StoredValue::new(session_id);
        let is_live = Memo::new(move |_| live.with(|live| id.with_value(|id| live.contains(id))));
        let done = format!("The session on {device} has ended.");
        let end = move || {
            let done = done.clone();
            async move {
                let answer = end(id.get_value()).await;
                if answer.is_ok() {
                    live.try_update(|live| id.with_value(|id| live.remove(id)));
                }
                outcome.tell(&done, answer);
                on_ended();
            }
        };
        let label = format!("End the session on {device}");
        let button = move || match (is_live.get(), is_current) {
            (false, _) => view! { <Ended /> }.into_any(),
            (true, true) => view! { <LogoutButton /> }.into_any(),
            (true, false) => {
                let (label, end) = (label.clone(), end.clone());
                view! { <ActionButton words=("End", "Ending…") action=end label /> }.into_any()
            }
        };
        let now = now.get_value();
        let facts = vec![
            fact_at(format!("Signed in {}", minutes_ago(now - created_at)), created_at),
            fact_at(format!("Last seen {}", minutes_ago(now - last_seen_at)), last_seen_at),
            network(&address).into(),
        ];
        view! {
            <li class:is-ended=move || !is_live.get()>
                <div>
                    <strong>{device}</strong>
                    // Not on one that this tab has replaced.
                    {move || (is_current && is_live.get()).then(|| view! { " " <span class="badge good">"this device"</span> })}
                    <Facts facts />
                </div>
                {button}
            </li>
        }
    };
    view! {
        <ul class="rows" aria-label="Live sessions">
            <For each=shown key=|info| info.session_id.clone() children=row />
        </ul>
        <Show when=hides_some>
            <button type="button" class="button quiet small" on:click=move |_| shows_all.set(true)>
                {move || format!("Show all {} sessions", known.with(Vec::len))}
            </button>
        </Show>
    }
}

/// The word in the place of the button of a session that has ended. Takes the focus of that button.
#[component]
fn Ended() -> impl IntoView {
    let word = NodeRef::<html::Span>::new();
    Effect::new(move || word.get().iter().for_each(|word| focus_if_lost(word)));
    view! { <span class="ended" tabindex="-1" node_ref=word>"Ended"</span> }
}

/// The network that a session was started from, as a fact; empty if it is not known.
pub fn network(address: &str) -> String {
    if address.is_empty() { String::new() } else { format!("Network {address}") }
}
