//! The token page: the access token of this browser, its remaining life, and the walk.

use leptos::prelude::*;
use leptos_meta::Title;
use leptos_router::components::A;

use super::{
    components::{ActionButton, Later, each_second},
    form::BrowserLimitation,
    nav::{LogoutButton, NeedsScripts},
    resource_view::Latest,
    token::{DecodedToken, EncodedToken, Exchange, minutes},
    walk::{Step, WalkStep},
};
use crate::{
    api::{
        self,
        error::ApiError,
        types::{Account, Role},
    },
    client::{
        session::Session,
        token::{Answer, HeldToken, ProtectedCall, keep_copy, kept_copy},
    },
};

/// Seconds between two attempts to renew a token that is due.
const RETRY_AFTER: u32 = 10;

#[component]
pub fn AccountPage() -> impl IntoView {
    let answer = ask_account();
    let account = Latest::of(answer);
    let token = RwSignal::new(None::<HeldToken>);
    // A token has arrived after an error, so the account can be loaded.
    Effect::new(move || {
        if token.with(Option::is_some) && account.has_failed() {
            account.ask_again();
        }
    });
    let email = move || account.found.get().unwrap_or_default().email;
    view! {
        <Title text="Your token" />
        <section class="card full">
            <h1>"Your access token"</h1>
            <AccountNav account=answer />
            <NeedsScripts />
            <BrowserLimitation />
            <p class="lead">"An access token says who you are. Your browser sends it with every API request. Every server accepts it until it expires, which takes five minutes at most, or until you sign out."</p>
            {account.state("Loading your token…")}
            <Show when=move || account.found.with(Option::is_some)>
                <p>"Signed in as " <strong>{email}</strong> "."</p>
                <Life token on_due=move || account.ask_again() />
                <EncodedToken token />
                <div class="columns">
                    <Later><Walk token /></Later>
                    <Later><div><DecodedToken token /></div></Later>
                </div>
            </Show>
        </section>
    }
}

/// The account of the signed-in user. Only the browser has the token, so the server renders the frame of the
/// page, and the browser loads this.
pub fn ask_account() -> LocalResource<Result<Account, ApiError>> {
    let session = Session::expect();
    LocalResource::new(move || session.call(api::account::me))
}

/// The address of the account, hidden: password managers need it to know whose password a form is about.
#[component]
pub fn Username(account: LocalResource<Result<Account, ApiError>>) -> impl IntoView {
    let email = move || account.get().and_then(Result::ok).map(|account| account.email);
    // In a wrapper, as every input: see `components/field.rs`.
    view! { <span class="input" hidden><input type="text" autocomplete="username" value=email readonly hidden /></span> }
}

/// The tabs that link the pages about the user's account.
#[component]
pub fn AccountNav(account: LocalResource<Result<Account, ApiError>>) -> impl IntoView {
    let is_admin = move || matches!(account.get(), Some(Ok(account)) if account.role == Role::Admin);
    view! {
        <nav class="tabs" aria-label="Account">
            <A href="/account">"Token"</A>
            <A href="/sessions">"Sessions"</A>
            <A href="/security">"Security"</A>
            <A href="/password">"Password"</A>
            <A href="/settings">"Settings"</A>
            <Show when=is_admin>
                <A href="/admin">"Users"</A>
            </Show>
        </nav>
    }
}

/// The remaining life of the token, and its renewals, updated each second. Only texts change.
#[component]
fn Life(token: RwSignal<Option<HeldToken>>, on_due: impl Fn() + Clone + 'static) -> impl IntoView {
    let session = Session::expect();
    let (left, to_refresh) = (RwSignal::new(0), RwSignal::new(0));
    let renewals = RwSignal::new(0_u32);
    let look = move || {
        // The page may have been left since the last tick.
        let Some(shown) = token.try_get_untracked() else { return };
        let now = HeldToken::current();
        left.set(now.as_ref().map_or(0, HeldToken::seconds_left));
        to_refresh.set(now.as_ref().map_or(0, HeldToken::seconds_to_refresh));
        match (shown, now) {
            (_, None) => {}
            (Some(shown), Some(now)) if now.is_same(&shown) => {}
            (shown, now) => {
                renewals.update(|count| *count += u32::from(shown.is_some()));
                token.set(now);
            }
        }
    };
    look();
    let seconds_since_try = StoredValue::new(RETRY_AFTER);
    let tick = move || {
        look();
        seconds_since_try.update_value(|seconds| *seconds += 1);
        if to_refresh.get_untracked() == 0 && seconds_since_try.get_value() > RETRY_AFTER {
            seconds_since_try.set_value(0);
            on_due();
        }
    };
    each_second(tick);
    let renew = move || async move {
        let _ = session.renew().await;
        look();
    };
    let lifetime = move || token.get().map_or(0, |token| token.lifetime());
    view! {
        <p class="countdown">
            <span class="number">{move || left.get()}</span>
            " seconds until this token expires"
        </p>
        <progress class="life" max=lifetime value=move || left.get() aria-label="Time until this token expires"></progress>
        <p class="life-next">
            <span class="hint">{move || format!("Renews automatically in {}.", minutes(to_refresh.get()))}</span>
            <ActionButton class="link" words=("Renew now", "Renewing…") action=renew />
        </p>
        <p class="hint" role="status">
            {move || match renewals.get() {
                0 => String::new(),
                1 => "Renewed once: this is a new token in the same session.".to_owned(),
                count => format!("Renewed {count} times: this is a new token in the same session."),
            }}
        </p>
    }
}

/// The steps of the walk. The fourth is only announced: the page that signing out leads to has it.
#[component]
fn Walk(token: RwSignal<Option<HeldToken>>) -> impl IntoView {
    let exchanges = RwSignal::new(Vec::<(HeldToken, Answer)>::new());
    let notes = StoredValue::new(ProtectedCall::notes());
    let trouble = RwSignal::new(None::<ApiError>);
    let copy = RwSignal::new(kept_copy());
    let step =
        Memo::new(move |_| match (copy.with(Option::is_some), exchanges.with(|made| !made.is_empty())) {
            (true, _) => Step::SignOut,
            (false, true) => Step::KeepCopy,
            (false, false) => Step::Call,
        });
    let call = move || async move {
        let Some(held) = token.get_untracked() else { return };
        let calls = [Some(ProtectedCall::Account), notes.get_value()];
        let mut made = Vec::new();
        for call in calls.into_iter().flatten() {
            match held.call(&call).await {
                Ok(answer) => made.push((held.clone(), answer)),
                Err(error) => {
                    trouble.try_set(Some(error));
                    return;
                }
            }
        }
        trouble.try_set(None);
        exchanges.try_set(made);
    };
    let keep = move |_| {
        if let Some(token) = token.get_untracked() {
            keep_copy(token);
            copy.set(kept_copy());
        }
    };
    view! {
        <div>
            <h2 class="walk-title">"Steal your own token"</h2>
            <p class="hint">"Copy it as a thief would, sign out, and see whether the copy still works. It takes a minute."</p>
            <ol class="walk">
                <WalkStep step=Step::Call current=step title="Call the protected API">
                    <p>
                        {match notes.with_value(Option::is_some) {
                            true => "Two requests carry the token, and no cookie: one to Hallpass, one to notes, a service of its own that has no part in the login.",
                            false => "The request carries the token, and no cookie.",
                        }}
                    </p>
                    <ActionButton words=("Call the API", "Calling…") action=call class="button small" />
                    <div aria-live="polite">
                        {move || trouble.get().map(|error| view! { <p class="alert">{error.to_string()}</p> })}
                        {move || exchanges.get().into_iter().map(|(token, answer)| view! { <Exchange token answer /> }).collect_view()}
                    </div>
                </WalkStep>
                <WalkStep step=Step::KeepCopy current=step title="Keep a copy">
                    <p>"When you sign out, your browser deletes its token. A thief would still have a copy."</p>
                    <button type="button" class="button small" on:click=keep>"Keep a copy"</button>
                    <p class="hint" role="status">
                        {move || copy.get().map(|copy| {
                            let time = copy.expiry();
                            format!("Kept, in this tab only, until you reload it. The copy expires at {time}.")
                        })}
                    </p>
                </WalkStep>
                <WalkStep step=Step::SignOut current=step title="Sign out">
                    <p>"Use this button or the one at the top. The confirmation comes when every server refuses the token."</p>
                    <LogoutButton />
                </WalkStep>
                <WalkStep step=Step::Replay current=step title="Send the copy">
                    <p>"On the next page, once you are signed out."</p>
                </WalkStep>
            </ol>
        </div>
    }
}
