//! The protected page: what your access token says, and how long it will.

use std::time::Duration;

use leptos::prelude::*;
use leptos_meta::Title;

use super::nav::LogoutButton;
use crate::{
    api::{self, error::AuthError, types::Account},
    client::session::Session,
};

#[component]
pub fn AccountPage() -> impl IntoView {
    let session = Session::expect();
    // Only the browser has the token: the server draws the frame, and this fills it.
    let account = LocalResource::new(move || session.call(api::account::me()));
    let again = move |_| account.refetch();
    view! {
        <Title text="Your account" />
        <section class="card wide">
            <h1>"Your account"</h1>
            <Suspense fallback=|| view! { <Skeleton /> }>
                {move || {
                    account
                        .get()
                        .map(|answer| match answer {
                            Ok(account) => view! { <Claims account on_due=again /> }.into_any(),
                            Err(error) => view! { <Trouble error on_retry=again /> }.into_any(),
                        })
                }}
            </Suspense>
        </section>
    }
}

#[component]
fn Skeleton() -> impl IntoView {
    view! { <p class="hint">"Asking the server about your token…"</p> }
}

/// What went wrong, when it is not that the session has ended.
#[component]
fn Trouble(error: AuthError, on_retry: impl Fn(()) + 'static) -> impl IntoView {
    view! {
        <div role="alert"><p class="alert">{error.to_string()}</p></div>
        <p><button type="button" class="button" on:click=move |_| on_retry(())>"Try again"</button></p>
    }
}

#[component]
fn Claims(account: Account, on_due: impl Fn(()) + 'static) -> impl IntoView {
    let session = Session::expect();
    let life = RwSignal::new(session.token_life());
    Effect::new(move || {
        let ticking =
            set_interval_with_handle(move || life.set(session.token_life()), Duration::from_secs(1));
        on_cleanup(move || {
            if let Ok(ticking) = ticking {
                ticking.clear();
            }
        });
    });
    Effect::new(move || {
        if life.get().1 {
            on_due(());
        }
    });
    view! {
        <p class="lead">"Signed in as " <strong>{account.email}</strong> "."</p>
        <p class="countdown">
            <span class="number">{move || life.get().0}</span>
            " seconds left in this access token"
        </p>
        <p>"The next one is fetched by itself. Sign out, and this one is dead at once, wherever a copy of it may be."</p>
        <dl class="claims">
            <dt>"User" <code>"sub"</code></dt>
            <dd><code>{account.sub}</code></dd>
            <dt>"Session" <code>"sid"</code></dt>
            <dd><code>{account.sid}</code></dd>
            <dt>"Token" <code>"jti"</code></dt>
            <dd><code>{account.jti}</code></dd>
        </dl>
        <p class="actions"><LogoutButton /></p>
    }
}
