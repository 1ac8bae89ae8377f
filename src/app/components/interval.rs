//! Time as it passes.

use std::time::Duration;

use leptos::prelude::*;

/// Calls `tick` each second, in the browser alone, until what it belongs to leaves the page.
pub fn each_second(tick: impl Fn() + Clone + 'static) {
    // An effect, because the server, which draws the page too, has no timers of this kind.
    Effect::new(move || {
        let ticking = set_interval_with_handle(tick.clone(), Duration::from_secs(1));
        on_cleanup(move || {
            if let Ok(ticking) = ticking {
                ticking.clear();
            }
        });
    });
}
