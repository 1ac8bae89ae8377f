//! The button that ends the sessions of all users. Asks for confirmation, because it cannot be undone.

use leptos::prelude::*;

use crate::{
    api::{self, error::ApiError},
    app::{
        components::{ActionButton, Dialog},
        reauthentication::Reauthentication,
        resource_view::or_unconfirmed,
    },
    client::session::Session,
};

/// The message for a call that was not confirmed in time. The server then goes on, and the end of this session, too, reaches
/// the page as an event. Recording may take ten minutes, and an access token lives for five at most.
const UNCONFIRMED: &str = "The servers have not confirmed this yet. With many sessions it takes longer and may go on: you are signed out as soon as it is recorded, and every session that began before ends within five minutes. If you are still signed in after 15 minutes, it has not taken effect. Then try again.";

#[component]
pub fn EndAll() -> impl IntoView {
    let (session, reauthentication) = (Session::expect(), Reauthentication::expect());
    let asks = RwSignal::new(false);
    let error = RwSignal::new(None::<ApiError>);
    let end = move || async move {
        let answer = reauthentication.run(|| session.end_by(api::admin::revoke_all_sessions)).await;
        if let Err(failure) = answer {
            error.try_set(Some(or_unconfirmed(failure, UNCONFIRMED)));
        }
    };
    view! {
        <section class="card full" aria-labelledby="everyone">
            <h2 id="everyone">"All users"</h2>
            <p>"End the sessions of all users, including your own. Everyone can sign in again."</p>
            <button type="button" class="button small quiet" on:click=move |_| asks.set(true)>"End all sessions of all users"</button>
            <Dialog open=asks title="End all sessions of all users?">
                <p>"Everyone will have to sign in again, including you."</p>
                <div role="alert">{move || error.get().map(|error| view! { <p class="alert">{error.to_string()}</p> })}</div>
                <p class="actions">
                    <ActionButton class="button small danger" words=("Yes, end all sessions", "Ending…") action=end />
                    <button type="button" class="button small quiet" autofocus on:click=move |_| asks.set(false)>"Cancel"</button>
                </p>
            </Dialog>
        </section>
    }
}
