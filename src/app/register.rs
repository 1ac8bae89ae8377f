//! The page for creating an account.

use leptos::prelude::*;

use super::form::{BrowserLimitation, CredentialsFields, CredentialsForm, OtherForm, Typed, on_typing};
use crate::client::lazy_app::Beginning;

#[component]
pub fn RegisterPage() -> impl IntoView {
    let form = CredentialsForm::new();
    view! {
        <section class="card">
            <h1>"Create an account"</h1>
            <BrowserLimitation />
            <form
                method="post"
                action="/api/auth/register"
                novalidate
                on:input=on_typing
                on:submit=move |event| {
                    form.submit(&event, |Typed { email, password, .. }| Beginning::Register { email, password });
                }
            >
                <CredentialsFields form is_new=true button=("Create account", "Creating account…") />
            </form>
            <p class="aside">"Have an account? " <OtherForm form to="/login" words="Sign in" /></p>
        </section>
    }
}
