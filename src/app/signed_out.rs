//! The notice that replaces a page of the app once the session has ended.

use leptos::prelude::*;
use leptos_meta::Title;

use super::{dom::focus_on_main, form::SignOutNote, return_to::sign_in_first};

#[component]
pub fn SignedOut(
    /// The path of the page that was replaced.
    path: String,
) -> impl IntoView {
    Effect::new(focus_on_main);
    view! {
        <Title text="Signed out" />
        <section class="card">
            <h1>"Signed out"</h1>
            <SignOutNote />
            <p class="actions"><a href=sign_in_first(&path) rel="external" class="button">"Sign in again"</a></p>
        </section>
    }
}
