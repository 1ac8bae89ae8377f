//! The administrators' page: users, their roles and their sessions.

use leptos::{ev::SubmitEvent, html, prelude::*};
use leptos_meta::Title;

use super::{
    account::{AccountNav, ask_account},
    components::{ActionButton, Dialog, Facts, TableFrame},
    form::value,
    nav::NeedsScripts,
    relative_time::minutes_ago,
    resource_view::{Answered, Outcome, RELOAD, or_unconfirmed},
    sessions::network,
};
use crate::{
    api::{
        self,
        error::ApiError,
        types::{ClientInfo, Role, SessionInfo, UserInfo, UserList},
    },
    client::session::Session,
};

#[component]
pub fn AdminPage() -> impl IntoView {
    let session = Session::expect();
    let (search, after) = (RwSignal::new(String::new()), RwSignal::new(String::new()));
    let input = NodeRef::<html::Input>::new();
    // The number of changes made here. Each change reloads both lists.
    let changes = RwSignal::new(0_u32);
    let users = LocalResource::new(move || {
        changes.track();
        let (search, after) = (search.get(), after.get());
        session.call(move || api::admin::users(search.clone(), after.clone()))
    });
    let may_see = Memo::new(move |_| matches!(users.get(), Some(Ok(_))));
    let outcome = Outcome::new();
    let opened = RwSignal::new(None::<UserInfo>);
    let find = move |event: SubmitEvent| {
        event.prevent_default();
        after.set(String::new());
        search.set(value(input));
    };
    let on_change = move || changes.update(|changes| *changes += 1);
    view! {
        <Title text="Users" />
        <section class="card full">
            <h1>"Users"</h1>
            <AccountNav account=ask_account() />
            <p class="lead">"Changes take effect on every server before this page confirms them."</p>
            <NeedsScripts />
            {outcome.view()}
            <form class="find needs-scripts" role="search" on:submit=find>
                <label for="search">"E-mail address"</label>
                <input id="search" name="search" type="search" autocapitalize="none" spellcheck="false" node_ref=input />
                <button type="submit" class="button small">"Find"</button>
            </form>
            <Answered
                answer=users
                view=move |list| view! { <Users list outcome opened after on_change /> }.into_any()
            />
        </section>
        {move || opened.get().map(|user| view! { <Sessions user outcome changes /> })}
        // A user who is no administrator sees the error once, above.
        {move || may_see.get().then(|| view! { <Clients /> })}
        <EndAll />
    }
}

#[component]
fn Users(
    list: UserList,
    outcome: Outcome,
    opened: RwSignal<Option<UserInfo>>,
    after: RwSignal<String>,
    on_change: impl Fn() + Copy + Send + Sync + 'static,
) -> impl IntoView {
    let last = list.users.last().map(|user| user.email.clone()).unwrap_or_default();
    let is_empty = list.users.is_empty();
    let rows = list.users.into_iter().map(move |user| view! { <UserRow user outcome opened on_change /> });
    view! {
        <TableFrame id="found" caption="Users by address">
                <thead>
                    <tr>
                        <th scope="col">"User"</th>
                        <th scope="col">"Role"</th>
                        <th scope="col">"Status"</th>
                        <th scope="col" class="figure">"Sessions"</th>
                        <th scope="col">"Actions"</th>
                    </tr>
                </thead>
                <tbody>
                    {rows.collect_view()}
                    {is_empty.then(|| view! { <tr><td colspan="5" class="hint">"No matching users."</td></tr> })}
                </tbody>
        </TableFrame>
        {list.has_more.then(|| {
            view! { <button type="button" class="button quiet small" on:click=move |_| after.set(last.clone())>"Next page"</button> }
        })}
    }
}

#[component]
fn UserRow(
    user: UserInfo,
    outcome: Outcome,
    opened: RwSignal<Option<UserInfo>>,
    on_change: impl Fn() + Copy + Send + Sync + 'static,
) -> impl IntoView {
    let session = Session::expect();
    let id = StoredValue::new(user.user_id.clone());
    let (is_disabled, role) = (user.is_disabled, user.role);
    let toggle_disabled = move || async move {
        if is_disabled {
            if let Err(error) = session.call(|| api::admin::enable_user(id.get_value())).await {
                outcome.fail(error);
            }
        } else {
            outcome.tell(session.call(|| api::admin::disable_user(id.get_value())).await);
        }
        on_change();
    };
    let toggle_role = move || async move {
        let next = if role == Role::Admin { Role::User } else { Role::Admin };
        outcome.tell(session.call(|| api::admin::set_role(id.get_value(), Some(next))).await);
        on_change();
    };
    let end_all = move || async move {
        outcome.tell(session.call(|| api::admin::revoke_sessions(id.get_value())).await);
        on_change();
    };
    let state = if is_disabled {
        view! { <span class="badge bad">"disabled"</span> }
    } else {
        view! { <span class="badge good">"active"</span> }
    };
    let label = |what: &str| format!("{what} {}", user.email);
    let (disabling, changing) = (
        if is_disabled { "Enable" } else { "Disable" },
        if role == Role::Admin { "Make regular user" } else { "Make administrator" },
    );
    let whole = user.clone();
    view! {
        <tr>
            <th scope="row">{user.email.clone()}</th>
            <td>{role.as_str()}</td>
            <td>{state}</td>
            <td class="figure">{user.sessions}</td>
            <td class="row-actions">
                <ActionButton class="link" label=label(disabling) words=(disabling, "…") action=toggle_disabled />
                <ActionButton class="link" label=label(changing) words=(changing, "…") action=toggle_role />
                <button type="button" class="link" aria-label=label("Show sessions of") on:click=move |_| opened.set(Some(whole.clone()))>"Sessions"</button>
                <ActionButton class="link" label=label("End all sessions of") words=("End all", "Ending…") action=end_all />
            </td>
        </tr>
    }
}

/// The live sessions of one user. Takes the focus, because it opens below the table.
#[component]
fn Sessions(user: UserInfo, outcome: Outcome, changes: RwSignal<u32>) -> impl IntoView {
    let session = Session::expect();
    let id = StoredValue::new(user.user_id);
    let list = LocalResource::new(move || {
        changes.track();
        session.call(move || api::admin::sessions(id.get_value()))
    });
    let heading = NodeRef::<html::H2>::new();
    Effect::new(move || {
        if let Some(heading) = heading.get() {
            let _ = heading.focus();
        }
    });
    let row = move |info: SessionInfo, now: i64| {
        let session_id = StoredValue::new(info.session_id);
        let label = format!("End the session on {}", info.device);
        let end = move || async move {
            outcome.tell(session.call(|| api::admin::revoke_session(session_id.get_value())).await);
            changes.update(|changes| *changes += 1);
        };
        let facts =
            vec![format!("Last seen {}", minutes_ago(now - info.last_seen_at)), network(&info.address)];
        view! {
            <li>
                <div>
                    <strong>{info.device}</strong>
                    <Facts facts />
                </div>
                <ActionButton label words=("End", "Ending…") action=end />
            </li>
        }
    };
    view! {
        <section class="card full" aria-labelledby="sessions-of">
            <h2 id="sessions-of" tabindex="-1" node_ref=heading>"Sessions of " {user.email}</h2>
            <Answered
                answer=list
                view=move |list| {
                    if list.sessions.is_empty() {
                        return view! { <p class="hint">"No active sessions."</p> }.into_any();
                    }
                    let rows = list.sessions.into_iter().map(|info| row(info, list.now));
                    view! { <ul class="rows">{rows.collect_view()}</ul> }.into_any()
                }
            />
        </section>
    }
}

/// The services that may ask about tokens. They are added on the command line, where their secret is shown once.
#[component]
fn Clients() -> impl IntoView {
    let session = Session::expect();
    let list = LocalResource::new(move || session.call(api::admin::clients));
    let row = |client: ClientInfo, now: i64| {
        view! {
            <tr>
                <th scope="row">{client.name}</th>
                <td><code>{client.client_id}</code></td>
                <td>{if client.may_revoke_users { "Tokens, and all sessions of a user" } else { "Tokens" }}</td>
                <td>{minutes_ago(now - client.created_at)}</td>
            </tr>
        }
    };
    view! {
        <section class="card full needs-scripts" aria-labelledby="clients">
            <h2 id="clients">"Services"</h2>
            <p>"These may ask whether a token is live, and end its session. " <code>"hallpass client add NAME"</code> " adds one."</p>
            <Answered
                answer=list
                view=move |list| {
                    if list.clients.is_empty() {
                        return view! { <p class="hint">"No services yet."</p> }.into_any();
                    }
                    let rows = list.clients.into_iter().map(|client| row(client, list.now)).collect_view();
                    view! {
                        <TableFrame id="services" caption="Services, the oldest first">
                            <thead>
                                <tr>
                                    <th scope="col">"Name"</th>
                                    <th scope="col">"Client id"</th>
                                    <th scope="col">"May revoke"</th>
                                    <th scope="col">"Added"</th>
                                </tr>
                            </thead>
                            <tbody>{rows}</tbody>
                        </TableFrame>
                    }
                    .into_any()
                }
            />
        </section>
    }
}

/// The button that ends the sessions of all users. Asks for confirmation, because it cannot be undone.
#[component]
fn EndAll() -> impl IntoView {
    let session = Session::expect();
    let asks = RwSignal::new(false);
    let error = RwSignal::new(None::<ApiError>);
    let end = move || async move {
        if let Err(failure) = session.end_by(api::admin::revoke_all_sessions).await {
            error.try_set(Some(or_unconfirmed(failure, RELOAD)));
        }
    };
    view! {
        <section class="card full needs-scripts" aria-labelledby="everyone">
            <h2 id="everyone">"All users"</h2>
            <p>"End the sessions of all users, including your own. Everyone can sign in again."</p>
            <button type="button" class="button small quiet" on:click=move |_| asks.set(true)>"End all sessions of all users"</button>
            <Dialog open=asks title="End all sessions of all users?">
                <p>"Everyone will have to sign in again, including you."</p>
                <div role="alert">{move || error.get().map(|error| view! { <p class="alert">{error.to_string()}</p> })}</div>
                <p class="actions">
                    <ActionButton class="button small" words=("Yes, end all sessions", "Ending…") action=end />
                    <button type="button" class="button small quiet" on:click=move |_| asks.set(false)>"Cancel"</button>
                </p>
            </Dialog>
        </section>
    }
}
