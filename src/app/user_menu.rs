//! The menu in the bar that says who is signed in.

use leptos::{ev, prelude::*};
use leptos_router::hooks::use_location;
use wasm_bindgen::JsCast;
use web_sys::{Element, EventTarget, HtmlElement};

use crate::client::{session::Session, token::HeldToken};

/// The address in the stored token, with the pages about the account. The menu opens without scripts.
#[component]
pub fn UserMenu() -> impl IntoView {
    let (session, path) = (Session::expect(), use_location().pathname);
    let email = RwSignal::new(None::<String>);
    // Read again on each page, because it may not be there at first.
    Effect::new(move || {
        path.track();
        let token = session.is_signed_in().then(HeldToken::current).flatten();
        email.set(token.and_then(|token| token.email()));
    });
    close_when_left();
    let pages = ["/account", "/sessions", "/security", "/password", "/settings", "/admin"];
    let is_current = move || path.with(|path| pages.contains(&path.as_str()));
    view! {
        <details class="user-menu">
            <summary aria-current=move || is_current().then_some("page")>
                <span class="menu-word">"Account"</span>
                <span class="menu-email">{email}</span>
            </summary>
            <div class="menu">
                <p class="hint">{email}</p>
                <a href="/account">"Token"</a>
                <a href="/sessions">"Sessions"</a>
                <a href="/security">"Security"</a>
                <a href="/password">"Password"</a>
                <a href="/settings">"Settings"</a>
            </div>
        </details>
    }
}

/// Closes the menu when the user is done with it.
fn close_when_left() {
    Effect::new(|| {
        let listeners = [
            // A link in the menu opens a page in the same document, so that it would stay open.
            window_event_listener(ev::click, |event| close_unless_in(".user-menu summary", event.target())),
            window_event_listener(ev::focusin, |event| close_unless_in(".user-menu", event.target())),
            window_event_listener(ev::keydown, |event| {
                if event.key() == "Escape" {
                    close_and_focus();
                }
            }),
        ];
        on_cleanup(move || listeners.into_iter().for_each(|listener| listener.remove()));
    });
}

fn close_unless_in(selector: &str, target: Option<EventTarget>) {
    let element = target.and_then(|target| target.dyn_into::<Element>().ok());
    let is_in = element.is_some_and(|element| element.closest(selector).is_ok_and(|found| found.is_some()));
    if !is_in {
        open_menu().iter().for_each(close);
    }
}

fn close_and_focus() {
    let Some(menu) = open_menu() else { return };
    let button = menu.query_selector("summary").ok().flatten();
    if let Some(button) = button.and_then(|button| button.dyn_into::<HtmlElement>().ok()) {
        let _ = button.focus();
    }
    close(&menu);
}

fn open_menu() -> Option<Element> {
    document().query_selector(".user-menu[open]").ok().flatten()
}

fn close(menu: &Element) {
    let _ = menu.remove_attribute("open");
}
