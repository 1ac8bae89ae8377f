//! The bar at the top of every page: navigation, signing in and signing out.

use leptos::{
    ev::{self, SubmitEvent},
    prelude::*,
    task::spawn_local,
};

use super::query::is_failed_logout;
use crate::client::session::Session;

/// An alert that a logout, posted as a plain form, was not confirmed.
#[component]
fn LogoutTrouble() -> impl IntoView {
    let session = Session::expect();
    // As the server has parsed it: another parser may differ on an address that anyone can have written.
    let failed = SharedValue::new_str(is_failed_logout);
    let remedy = move || if session.is_signed_in() { "Try again." } else { "Sign in, then sign out again." };
    failed.into_inner().then(|| {
        view! {
            <p role="alert" class="alert">
                "The server could not confirm your sign-out, so your session may not have ended. " {remedy}
            </p>
        }
    })
}

/// A note while the device is offline.
#[component]
fn Offline() -> impl IntoView {
    let is_offline = RwSignal::new(false);
    Effect::new(move || {
        is_offline.set(!window().navigator().on_line());
        let listeners = [
            window_event_listener(ev::offline, move |_| is_offline.set(true)),
            window_event_listener(ev::online, move |_| is_offline.set(false)),
        ];
        on_cleanup(move || listeners.into_iter().for_each(|listener| listener.remove()));
    });
    view! {
        <div role="status">
            {move || is_offline.get().then(|| view! { <p class="note">"You are offline. This page may be out of date, and changes cannot be saved."</p> })}
        </div>
    }
}

/// A note on pages that are empty without scripts.
#[component]
pub fn NeedsScripts() -> impl IntoView {
    // As text: a browser that runs scripts does not parse the contents of `<noscript>`.
    view! {
        <noscript inner_html="<p class=\"note\">This page needs JavaScript. Signing in, signing out and creating an account work without it.</p>"></noscript>
    }
}

#[component]
pub fn Nav(
    /// The path of the current page.
    path: Signal<String>,
    /// The place of the pages about the account: a link to the first of them, or the app's menu.
    #[prop(default = (|| view! { <a href="/account">"Account"</a> }).into(), into)]
    account: ViewFn,
) -> impl IntoView {
    let session = Session::expect();
    let current = move |link: &'static str| move || path.with(|path| path == link).then_some("page");
    view! {
        <header class="bar">
            <a href="/" rel="external" class="brand">
                <svg viewBox="0 0 24 24" aria-hidden="true" class="mark">
                    <path d="M3 6a2 2 0 0 1 2-2h14a2 2 0 0 1 2 2v3a3 3 0 0 0 0 6v3a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2v-3a3 3 0 0 0 0-6z" />
                    <path d="m8.5 12.2 2.4 2.4 4.8-5.2" class="tick" />
                </svg>
                <span class="brand-name">"Hallpass"</span>
            </a>
            <nav aria-label="Main">
                <Show
                    when=move || session.is_signed_in()
                    fallback=move || {
                        view! {
                            <a href="/login" rel="external" aria-current=current("/login")>"Sign in"</a>
                            <a href="/register" rel="external" class="button small" aria-current=current("/register")>"Create account"</a>
                        }
                    }
                >
                    {account.run()}
                    <a href="/cluster" aria-current=current("/cluster")>"Servers"</a>
                    <LogoutButton />
                </Show>
            </nav>
        </header>
        <div class="bar-note"><LogoutTrouble /><Offline /></div>
    }
}

/// The sign-out button. It is a form, so that it also works before the page is hydrated.
#[component]
pub fn LogoutButton() -> impl IntoView {
    let session = Session::expect();
    let busy = RwSignal::new(false);
    let end = move |event: SubmitEvent| {
        event.prevent_default();
        if busy.get_untracked() {
            return;
        }
        busy.set(true);
        spawn_local(async move {
            session.end().await;
            busy.try_set(false);
        });
    };
    view! {
        <form method="post" action="/api/auth/logout" class="inline" on:submit=end>
            <button type="submit" class="button small quiet" aria-disabled=move || busy.get().to_string()>
                {move || if busy.get() { "Signing out…" } else { "Sign out" }}
            </button>
        </form>
    }
}
