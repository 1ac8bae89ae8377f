//! The notice that a page does not work.

use leptos::prelude::*;

use crate::api::types::Presence;

/// The reasons, as `start.js` names them, with their texts.
const REASONS: [(&str, &str); 5] = [
    (
        "wasm",
        "This page needs WebAssembly, which this browser does not run or does not allow here. Allow it for this site, or use another browser. Signing in, signing out and creating an account work without it.",
    ),
    (
        "load",
        "This page could not start, because a part of it could not be loaded. Check your connection, then reload the page.",
    ),
    (
        "hydration",
        "This page could not start, because something in this browser has changed it, such as an extension or a translation. Reload the page. If that does not help, turn the extension off for this site.",
    ),
    ("panic", "Something went wrong in this page, so it no longer responds. Reload the page."),
    ("part", "A part of this page could not be loaded. Check your connection. The page keeps trying."),
];

/// The notice, which `start.js` shows. It is outside of the element that is hydrated, and works without wasm.
#[component]
pub fn PageErrorNotice() -> impl IntoView {
    let texts = REASONS.map(|(reason, text)| view! { <p class="alert" data-reason=reason hidden>{text}</p> });
    let is_signed_in = use_context() == Some(Presence::SignedIn);
    view! {
        <div id="page-error" class="bar-note page-error" role="alert" hidden>
            {texts.into_iter().collect_view()}
            <div class="actions">
                <button type="button" class="button small" data-reload>"Reload"</button>
                {is_signed_in.then(|| view! { <form method="post" action="/api/auth/logout" class="inline"><button type="submit" class="button small quiet">"Sign out"</button></form> })}
            </div>
        </div>
    }
}
