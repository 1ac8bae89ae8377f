//! The live sessions of one user.

use leptos::{html, prelude::*};

use crate::{
    api::{self, types::UserInfo},
    app::{
        reauthentication::Reauthentication,
        resource_view::{Latest, Outcome},
        session_rows::SessionRows,
    },
    client::session::Session,
};

/// Takes the focus, because it opens below the table of users.
#[component]
pub fn UserSessions(user: UserInfo, outcome: Outcome, changes: RwSignal<u32>) -> impl IntoView {
    let (session, reauthentication) = (Session::expect(), Reauthentication::expect());
    let id = StoredValue::new(user.user_id);
    let list = Latest::of(LocalResource::new(move || {
        changes.track();
        session.call(move || api::admin::sessions(id.get_value()))
    }));
    let heading = NodeRef::<html::H2>::new();
    Effect::new(move || {
        if let Some(heading) = heading.get() {
            let _ = heading.focus();
        }
    });
    let end = move |id: String| async move {
        reauthentication.run(|| session.call(|| api::admin::revoke_session(id.clone()))).await
    };
    let on_ended = move || changes.update(|changes| *changes += 1);
    let is_empty = move || list.found.with(|list| list.as_ref().is_some_and(|list| list.sessions.is_empty()));
    view! {
        <section class="card full" aria-labelledby="sessions-of">
            <h2 id="sessions-of" tabindex="-1" node_ref=heading>"Sessions of " {user.email}</h2>
            {list.state("Loading…")}
            <SessionRows list=list.found end on_ended outcome />
            <Show when=is_empty><p class="hint">"No active sessions."</p></Show>
        </section>
    }
}
