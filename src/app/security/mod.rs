//! The page Security: the ways to sign in, and recent activity.

use leptos::prelude::*;
use leptos_meta::Title;

use self::{
    activity::Activity, authenticator::Authenticator, methods::Methods, passkey_list::Passkeys,
    recovery_codes::RecoveryCodes,
};
use super::{
    account::{AccountNav, ask_account},
    nav::NeedsScripts,
    resource_view::Latest,
};
use crate::{api, client::session::Session};

mod activity;
mod authenticator;
mod methods;
mod passkey_list;
mod recovery_codes;

#[component]
pub fn SecurityPage() -> impl IntoView {
    let session = Session::expect();
    let changes = RwSignal::new(0_u32);
    let latest = Latest::of(LocalResource::new(move || {
        changes.track();
        session.call(api::factors::sign_in_methods)
    }));
    let methods = Methods::new(latest.found, changes);
    let is_found = move || latest.found.with(Option::is_some);
    view! {
        <Title text="Security" />
        <section class="card full">
            <h1>"Security"</h1>
            <AccountNav account=ask_account() />
            <p class="lead">"Beside your password you can have passkeys, which need no password, and an authenticator app, whose codes are asked for after it. When you add or remove one, all your other devices are signed out."</p>
            <NeedsScripts />
            {latest.state("Loading…")}
            <Show when=is_found><Passkeys methods /></Show>
        </section>
        <Show when=is_found>
            <Authenticator methods />
            <RecoveryCodes methods />
        </Show>
        // Below the others only once they are there, because they would push it down.
        <Show when=move || latest.is_settled()><Activity changes /></Show>
    }
}
