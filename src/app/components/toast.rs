//! A word about what has just been done, wherever on the page that was.

use std::time::Duration;

use leptos::prelude::*;

/// How long it stays. What one must not miss does not belong here.
const STAYS: Duration = Duration::from_secs(8);

/// The place of the words: one on a page, around its contents. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Toasts {
    words: RwSignal<Option<String>>,
    count: StoredValue<u32>,
}

impl Toasts {
    /// Makes the place, for [`Toasts::expect`] to find.
    pub fn provide() -> Self {
        let toasts = Self { words: RwSignal::new(None), count: StoredValue::new(0) };
        provide_context(toasts);
        toasts
    }

    pub fn expect() -> Self {
        expect_context()
    }

    /// Shows the words, instead of those before.
    pub fn show(self, words: impl Into<String>) {
        self.words.set(Some(words.into()));
        self.count.update_value(|count| *count += 1);
        let count = self.count.get_value();
        let is_last = move || self.count.try_get_value() == Some(count);
        set_timeout(
            move || {
                if is_last() {
                    self.words.set(None)
                }
            },
            STAYS,
        );
    }

    /// Draws the place.
    pub fn view(self) -> impl IntoView {
        view! {
            <div role="status" class="toast-place">
                {move || self.words.get().map(|words| view! { <p class="toast">{words}</p> })}
            </div>
        }
    }
}
