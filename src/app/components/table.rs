//! Tables.

use leptos::prelude::*;

/// A table that scrolls in its frame where it is wider than the screen.
#[component]
pub fn TableFrame(
    /// The id of the caption.
    id: &'static str,
    caption: &'static str,
    /// Additional class names.
    #[prop(default = "")]
    class: &'static str,
    /// The `thead` and the `tbody`.
    children: Children,
) -> impl IntoView {
    view! {
        <div class=format!("table-frame {class}") tabindex="0" role="group" aria-labelledby=id>
            <table role="table">
                <caption id=id>{caption}</caption>
                {children()}
            </table>
        </div>
    }
}
