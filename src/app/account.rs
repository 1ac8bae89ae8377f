//! The protected page: what your access token says, and how long it will.

use std::time::Duration;

use leptos::prelude::*;
use leptos_meta::Title;
use leptos_router::components::A;

use super::{form::Shortcomings, nav::LogoutButton, sessions::Trouble};
use crate::{
    api::{
        self,
        error::AuthError,
        types::{Account, Role},
    },
    client::session::Session,
};

/// Seconds between two tries to renew a token that is due.
const RETRY_AFTER: u32 = 10;

#[component]
pub fn AccountPage() -> impl IntoView {
    let answer = ask_account();
    let account = RwSignal::new(None::<Account>);
    let trouble = RwSignal::new(None::<AuthError>);
    Effect::new(move || match answer.get() {
        Some(Ok(found)) => {
            account.set(Some(found));
            trouble.set(None);
        }
        Some(Err(error)) => trouble.set(Some(error)),
        None => {}
    });
    let again = move || answer.refetch();
    view! {
        <Title text="Your account" />
        <section class="card wide">
            <h1>"Your account"</h1>
            <AccountNav account=answer />
            <Shortcomings />
            {move || trouble.get().map(|error| view! { <Trouble error on_retry=again /> })}
            <Show
                when=move || account.with(Option::is_some)
                fallback=move || {
                    view! {
                        <Show when=move || trouble.with(Option::is_none)>
                            <p class="hint">"Asking the server about your token…"</p>
                        </Show>
                    }
                }
            >
                <Claims account=Signal::derive(move || account.get().unwrap_or_default()) on_due=again />
            </Show>
        </section>
    }
}

/// What the token says, by the server. Only the browser has it: the server draws the frame of a page,
/// and this fills it.
pub fn ask_account() -> LocalResource<Result<Account, AuthError>> {
    let session = Session::expect();
    LocalResource::new(move || session.call(api::account::me))
}

/// From one page about your account to the others.
#[component]
pub fn AccountNav(account: LocalResource<Result<Account, AuthError>>) -> impl IntoView {
    let is_admin = move || matches!(account.get(), Some(Ok(account)) if account.role == Role::Admin);
    view! {
        <nav class="tabs" aria-label="Account">
            <A href="/account">"Token"</A>
            <A href="/sessions">"Sessions"</A>
            <A href="/password">"Password"</A>
            <Show when=is_admin>
                <A href="/admin">"Users"</A>
            </Show>
        </nav>
    }
}

/// Stays as it is while the token is renewed: only its texts change.
#[component]
fn Claims(account: Signal<Account>, on_due: impl Fn() + 'static) -> impl IntoView {
    let session = Session::expect();
    let life = RwSignal::new(session.token_life());
    let seconds_since_try = StoredValue::new(RETRY_AFTER);
    let tick = move || {
        let (left, due) = session.token_life();
        life.set((left, due));
        seconds_since_try.update_value(|seconds| *seconds += 1);
        if due && seconds_since_try.get_value() > RETRY_AFTER {
            seconds_since_try.set_value(0);
            on_due();
        }
    };
    let ticking = set_interval_with_handle(tick, Duration::from_secs(1));
    on_cleanup(move || {
        if let Ok(ticking) = ticking {
            ticking.clear();
        }
    });
    view! {
        <p class="lead">"Signed in as " <strong>{move || account.get().email}</strong> "."</p>
        <p class="countdown">
            <span class="number">{move || life.get().0}</span>
            " seconds left in this access token"
        </p>
        <p>"The next one is fetched by itself. Sign out, and this one is dead at once, wherever a copy of it may be."</p>
        <dl class="claims">
            <dt>"User" <code>"sub"</code></dt>
            <dd><code>{move || account.get().sub}</code></dd>
            <dt>"Session" <code>"sid"</code></dt>
            <dd><code>{move || account.get().sid}</code></dd>
            <dt>"Token" <code>"jti"</code></dt>
            <dd><code>{move || account.get().jti}</code></dd>
        </dl>
        <p class="actions"><LogoutButton /></p>
    }
}
