//! What all documents have around their main part, and in their titles.

use leptos::prelude::*;

/// The title of a document, from that of its page.
pub fn titled(page: &str) -> String {
    if page.is_empty() { "Hallpass".to_owned() } else { format!("{page} · Hallpass") }
}

/// A link that leads the keyboard past the navigation.
#[component]
pub fn SkipLink() -> impl IntoView {
    view! { <a class="skip" href="#main" rel="external">"Skip to the content"</a> }
}

/// What stands below every page; `children` are for those that are live.
#[component]
pub fn Foot(#[prop(optional)] children: Option<Children>) -> impl IntoView {
    view! {
        <footer class="foot">
            <p>"Hallpass: JWT login whose logout works at once, on every server."</p>
            <p><a href="/docs" rel="external">"API"</a></p>
            {children.map(|children| children())}
        </footer>
    }
}
