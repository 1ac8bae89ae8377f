//! The parts that all documents share: the title, the skip link and the footer.

use leptos::prelude::*;

/// The title of a document, made from the title of its page.
pub fn titled(page: &str) -> String {
    if page.is_empty() { "Hallpass".to_owned() } else { format!("{page} · Hallpass") }
}

/// A link with which keyboard users skip the navigation.
#[component]
pub fn SkipLink() -> impl IntoView {
    view! { <a class="skip" href="#main" rel="external">"Skip to the content"</a> }
}

/// The footer of every page. `children` are for hydrated pages only.
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
