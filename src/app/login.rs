//! The sign-in page.

use leptos::prelude::*;

use super::{
    form::{BrowserLimitation, CredentialsFields, CredentialsForm, OtherForm, SignOutNote, preload_app},
    return_to::has_next,
};
use crate::client::session::Session;

#[component]
pub fn LoginPage() -> impl IntoView {
    let session = Session::expect();
    let form = CredentialsForm::new();
    view! {
        <section class="card">
            <h1>{if has_next() { "Sign in to continue" } else { "Sign in" }}</h1>
            <SignOutNote />
            <BrowserLimitation />
            <form
                method="post"
                action="/api/auth/login"
                novalidate
                on:input=preload_app
                on:submit=move |event| form.submit(&event, move |email, password| session.login(email, password))
            >
                <CredentialsFields form password_autocomplete="current-password" password_hint="" button=("Sign in", "Signing in…") />
            </form>
            <p class="aside"><OtherForm form to="/forgot" words="Forgot your password?" /></p>
            <p class="aside">"New here? " <OtherForm form to="/register" words="Create an account" /></p>
        </section>
    }
}
