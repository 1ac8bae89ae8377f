//! A short message about the last action, independent of where on the page that was.

use std::time::Duration;

use leptos::prelude::*;

use crate::app::dom::focus_on_main;

/// How long a message is shown. Messages that must not be missed do not belong here.
const STAYS: Duration = Duration::from_secs(8);

/// The place of the messages: one on a page, around its contents. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Toasts {
    words: RwSignal<Option<String>>,
    count: StoredValue<u32>,
}

impl Toasts {
    /// Creates the place, for [`Toasts::expect`] to find.
    pub fn provide() -> Self {
        let toasts = Self { words: RwSignal::new(None), count: StoredValue::new(0) };
        provide_context(toasts);
        toasts
    }

    pub fn expect() -> Self {
        expect_context()
    }

    /// Shows a message, which replaces the previous one.
    pub fn show(self, words: impl Into<String>) {
        self.words.set(Some(words.into()));
        self.count.update_value(|count| *count += 1);
        let count = self.count.get_value();
        let is_last = move || self.count.try_get_value() == Some(count);
        set_timeout(
            move || {
                if is_last() {
                    self.words.set(None);
                }
            },
            STAYS,
        );
    }

    /// Removes the message.
    pub fn dismiss(self) {
        self.words.set(None);
    }

    /// The view of the place.
    pub fn view(self) -> impl IntoView {
        // A message that contains the focus stays, which would be lost with it.
        let keep = move |_| self.count.update_value(|count| *count += 1);
        let close = move |_| {
            self.dismiss();
            focus_on_main();
        };
        view! {
            <div role="status" class="toast-place">
                {move || self.words.get().map(|words| view! {
                    <div class="toast" on:focusin=keep>
                        <p>{words}</p>
                        <button type="button" class="toast-close" aria-label="Close" on:click=close></button>
                    </div>
                })}
            </div>
        }
    }
}
