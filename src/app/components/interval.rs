//! A timer for components.

use std::time::Duration;

use leptos::prelude::*;

/// Calls `tick` each second, in the browser only, until its component is removed from the page.
pub fn each_second(tick: impl Fn() + Clone + 'static) {
    // In an effect, because effects do not run on the server, which has no timers of this kind.
    Effect::new(move || {
        let ticking = set_interval_with_handle(tick.clone(), Duration::from_secs(1));
        on_cleanup(move || {
            if let Ok(ticking) = ticking {
                ticking.clear();
            }
        });
    });
}
