//! The log-in page.

use leptos::prelude::*;
use leptos_meta::Title;
use leptos_router::components::A;

use super::form::{CredentialsFields, CredentialsForm, FarewellNote};
use crate::client::session::Session;

#[component]
pub fn LoginPage() -> impl IntoView {
    let session = Session::expect();
    let form = CredentialsForm::new();
    view! {
        <Title text="Sign in" />
        <section class="card">
            <h1>"Sign in"</h1>
            <FarewellNote />
            <form
                method="post"
                action="/api/auth/login"
                novalidate
                on:submit=move |event| form.submit(&event, move |email, password| session.login(email, password))
            >
                <CredentialsFields form password_autocomplete="current-password" password_hint="" button=("Sign in", "Signing in…") />
            </form>
            <p class="aside">"New here? " <A href="/register">"Create an account"</A></p>
        </section>
    }
}
