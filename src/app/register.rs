//! The page for creating an account.

use leptos::prelude::*;

use super::form::{BrowserLimitation, CredentialsFields, CredentialsForm, OtherForm, preload_app};
use crate::client::session::Session;

#[component]
pub fn RegisterPage() -> impl IntoView {
    let session = Session::expect();
    let form = CredentialsForm::new();
    view! {
        <section class="card">
            <h1>"Create an account"</h1>
            <BrowserLimitation />
            <form
                method="post"
                action="/api/auth/register"
                novalidate
                on:input=preload_app
                on:submit=move |event| form.submit(&event, move |email, password| session.register(email, password))
            >
                <CredentialsFields
                    form
                    password_autocomplete="new-password"
                    password_hint="At least 8 characters. A few words work well."
                    button=("Create account", "Creating account…")
                />
            </form>
            <p class="aside">"Have an account? " <OtherForm form to="/login" words="Sign in" /></p>
        </section>
    }
}
