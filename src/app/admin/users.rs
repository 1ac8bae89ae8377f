//! The list of users, and what an administrator can do to each.

use leptos::{ev::SubmitEvent, html, prelude::*, task::spawn_local};
use leptos_router::components::A;

use super::change::{Change, Question, QuestionDialog};
use crate::{
    api::{
        self,
        types::{Role, UserInfo},
    },
    app::{
        components::TableFrame,
        form::value,
        reauthentication::Reauthentication,
        resource_view::{Latest, Outcome},
    },
    client::session::Session,
};

#[component]
pub fn Users(
    /// The id of the administrator.
    own_id: String,
    outcome: Outcome,
    /// The user whose sessions are shown.
    opened: RwSignal<Option<UserInfo>>,
    changes: RwSignal<u32>,
    /// Set once the first answer has arrived.
    is_listed: RwSignal<bool>,
) -> impl IntoView {
    let session = Session::expect();
    let (search, after) = (RwSignal::new(String::new()), RwSignal::new(String::new()));
    let input = NodeRef::<html::Input>::new();
    let list = Latest::of(LocalResource::new(move || {
        changes.track();
        let (search, after) = (search.get(), after.get());
        session.call(move || api::admin::users(search.clone(), after.clone()))
    }));
    Effect::new(move || is_listed.set(list.is_settled()));
    let find = move |event: SubmitEvent| {
        event.prevent_default();
        after.set(String::new());
        search.set(value(input));
    };
    let users = move || list.found.get().unwrap_or_default().users;
    let has_more = move || list.found.with(|list| list.as_ref().is_some_and(|list| list.has_more));
    let next_page = move |_| after.set(users().pop().map(|user| user.email).unwrap_or_default());
    let question = Question::new();
    let on_change = move || changes.update(|changes| *changes += 1);
    let own_id = StoredValue::new(own_id);
    let row = move |user: UserInfo| {
        let is_own = own_id.with_value(|own_id| *own_id == user.user_id);
        let id = user.user_id.clone();
        let now = Memo::new(move |_| {
            users().into_iter().find(|user| user.user_id == id).unwrap_or_else(|| user.clone())
        });
        view! { <UserRow user=now is_own question outcome opened on_change /> }
    };
    view! {
        {outcome.view()}
        <form class="find" role="search" on:submit=find>
            <label for="search">"E-mail address"</label>
            <input id="search" name="search" type="search" autocapitalize="none" spellcheck="false" node_ref=input />
            <button type="submit" class="button small">"Find"</button>
        </form>
        {list.state("Loading…")}
        <Show when=move || list.found.with(Option::is_some)>
            <TableFrame id="found" caption="Users by address" class="as-cards">
                <thead role="rowgroup">
                    <tr role="row">
                        <th scope="col" role="columnheader">"User"</th>
                        <th scope="col" role="columnheader">"Role"</th>
                        <th scope="col" role="columnheader">"Status"</th>
                        <th scope="col" role="columnheader" class="figure">"Sessions"</th>
                        <th scope="col" role="columnheader">"Actions"</th>
                    </tr>
                </thead>
                <tbody role="rowgroup">
                    <For each=users key=|user| user.user_id.clone() children=row />
                    {move || users().is_empty().then(|| view! { <tr role="row"><td role="cell" colspan="5" class="hint">"No matching users."</td></tr> })}
                </tbody>
            </TableFrame>
            <Show when=has_more>
                <button type="button" class="button quiet small" on:click=next_page>"Next page"</button>
            </Show>
        </Show>
        <QuestionDialog question outcome on_change />
    }
}

/// The row of a user. Its elements stay when the list is loaded again, and keep the focus. The roles repeat the
/// meaning of the elements, which some browsers forget where the style sheet draws the row as a card.
#[component]
fn UserRow(
    user: Memo<UserInfo>,
    is_own: bool,
    question: Question,
    outcome: Outcome,
    opened: RwSignal<Option<UserInfo>>,
    on_change: impl Fn() + Copy + Send + Sync + 'static,
) -> impl IntoView {
    let (session, reauthentication) = (Session::expect(), Reauthentication::expect());
    let is_disabled = move || user.with(|user| user.is_disabled);
    let other_role = move || match user.with(|user| user.role) {
        Role::Admin => Change::SetRole(Role::User),
        Role::User => Change::SetRole(Role::Admin),
    };
    let ask = move |change| question.ask(change, user.get_untracked());
    let toggle = move |()| {
        let UserInfo { user_id, email, is_disabled, .. } = user.get_untracked();
        if !is_disabled {
            return ask(Change::Disable);
        }
        spawn_local(async move {
            let call = || session.call(|| api::admin::enable_user(user_id.clone()));
            match reauthentication.run(call).await {
                Ok(()) => outcome.succeed(format!("{email} is enabled.")),
                Err(error) => outcome.fail(error),
            }
            on_change();
        });
    };
    let toggle_word = Signal::derive(move || if is_disabled() { "Enable" } else { "Disable" });
    let role_word = Signal::derive(move || other_role().words().0);
    let actions = if is_own {
        view! { <span class="hint">"This is you. "</span> <A href="/sessions">"Your sessions"</A> }.into_any()
    } else {
        view! {
            <Action user what=toggle_word word=toggle_word on_press=toggle />
            <Action user what=role_word word=role_word on_press=move |()| ask(untrack(other_role)) />
            <Action user what="Show sessions of" word="Sessions" on_press=move |()| opened.set(Some(user.get_untracked())) />
            <Action user what="End all sessions of" word="End all" on_press=move |()| ask(Change::EndSessions) />
        }
        .into_any()
    };
    view! {
        <tr role="row">
            <th scope="row" role="rowheader">{move || user.with(|user| user.email.clone())}</th>
            <td role="cell" data-label="Role">{move || user.with(|user| user.role.as_str())}</td>
            <td role="cell" data-label="Status">
                <span class=move || if is_disabled() { "badge bad" } else { "badge good" }>
                    {move || if is_disabled() { "disabled" } else { "active" }}
                </span>
            </td>
            <td role="cell" data-label="Sessions" class="figure">{move || user.with(|user| user.sessions)}</td>
            <td role="cell" class="row-actions">{actions}</td>
        </tr>
    }
}

/// A button in the row of a user. For screen readers its name is `what`, then the address of the user.
#[component]
fn Action(
    user: Memo<UserInfo>,
    #[prop(into)] what: Signal<&'static str>,
    #[prop(into)] word: Signal<&'static str>,
    #[prop(into)] on_press: Callback<()>,
) -> impl IntoView {
    let label = move || format!("{} {}", what.get(), user.with(|user| user.email.clone()));
    view! { <button type="button" class="link" aria-label=label on:click=move |_| on_press.run(())>{word}</button> }
}
