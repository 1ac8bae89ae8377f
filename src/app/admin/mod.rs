//! The administrators' page: users, their roles and their sessions, and the services.

use leptos::prelude::*;
use leptos_meta::Title;

use self::{clients::Clients, everyone::EndAll, user_sessions::UserSessions, users::Users};
use super::{
    account::{AccountNav, ask_account},
    nav::NeedsScripts,
    resource_view::{Answered, Outcome},
};
use crate::api::types::{Role, UserInfo};

mod change;
mod clients;
mod everyone;
mod user_sessions;
mod users;

/// The page shows nothing of its contents until it is known that the user is an administrator.
#[component]
pub fn AdminPage() -> impl IntoView {
    let account = ask_account();
    // What is below the list of users would be pushed down by it.
    let is_listed = RwSignal::new(false);
    // The number of changes made here. Each change reloads the lists.
    let changes = RwSignal::new(0_u32);
    let opened = RwSignal::new(None::<UserInfo>);
    let outcome = Outcome::new();
    view! {
        <Title text="Users" />
        <section class="card full">
            <h1>"Users"</h1>
            <AccountNav account />
            <NeedsScripts />
            <p class="lead">"Administrators manage the accounts, roles and sessions of all users here. A change takes effect on every server before this page confirms it."</p>
            <Answered
                answer=account
                view=move |account| match account.role {
                    Role::Admin => view! { <Users own_id=account.sub outcome opened changes is_listed /> }.into_any(),
                    Role::User => view! { <p>"Only an administrator may see this page."</p> }.into_any(),
                }
            />
        </section>
        {move || opened.get().map(|user| view! { <UserSessions user outcome changes /> })}
        <Show when=move || is_listed.get()>
            <Clients />
            <EndAll />
        </Show>
    }
}
