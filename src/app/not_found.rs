//! The page for addresses that do not exist.

use leptos::prelude::*;

#[component]
pub fn NotFoundPage() -> impl IntoView {
    view! {
        <section class="card">
            <h1>"Page not found"</h1>
            <p>"The address may be mistyped, or the page has moved."</p>
            <p><a href="/" rel="external" class="button">"Go to the home page"</a></p>
        </section>
    }
}
