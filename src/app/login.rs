//! The log-in page.

use leptos::prelude::*;
use leptos_meta::Title;
use leptos_router::components::A;

use super::{
    form::{CredentialsFields, CredentialsForm, FarewellNote, Shortcomings},
    next::with_next,
};
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
            <Shortcomings />
            <form
                method="post"
                action="/api/auth/login"
                novalidate
                on:submit=move |event| form.submit(&event, move |email, password| session.login(email, password))
            >
                <CredentialsFields form password_autocomplete="current-password" password_hint="" button=("Sign in", "Signing in…") />
            </form>
            <p class="aside">"New here? " <A href=with_next("/register")>"Create an account"</A></p>
        </section>
    }
}
