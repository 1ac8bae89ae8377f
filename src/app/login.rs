//! The sign-in page.

use leptos::prelude::*;

use super::{
    form::{
        BrowserLimitation, CredentialsFields, CredentialsForm, OtherForm, PasskeyButton, SignOutNote, Typed,
        on_typing,
    },
    return_to::has_next,
};
use crate::client::lazy_app::Beginning;

#[component]
pub fn LoginPage() -> impl IntoView {
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
                on:input=on_typing
                on:pointerdown=move |_| form.suggest_passkeys()
                on:submit=move |event| {
                    form.submit(&event, |Typed { email, password, code }| Beginning::Login { email, password, code });
                }
            >
                <CredentialsFields form is_new=false button=("Sign in", "Signing in…") />
            </form>
            <PasskeyButton form />
            <p class="aside"><OtherForm form to="/forgot" words="Forgot your password?" /></p>
            <p class="aside">"New here? " <OtherForm form to="/register" words="Create an account" /></p>
        </section>
    }
}
