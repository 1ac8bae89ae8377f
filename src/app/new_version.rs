//! The notice that the server has a newer version of the site than this page.

use leptos::prelude::*;

use crate::client::new_version::NewVersion;

/// The page is not reloaded without a click, because something may have been typed into it.
#[component]
pub fn NewVersionNotice() -> impl IntoView {
    let version = NewVersion::expect();
    view! {
        <div class="bar-note" role="status">
            {move || version.is_available().then(|| view! {
                <p class="note">
                    "A new version of this site is available. "
                    <button type="button" class="link" data-reload>"Reload"</button> " "
                    <button type="button" class="link" on:click=move |_| version.dismiss()>"Not now"</button>
                </p>
            })}
        </div>
    }
}
