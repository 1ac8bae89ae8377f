//! The wall clock. Handlers read it and pass `now` on as a parameter, so that tests can choose the time.

pub use hallpass_allowlist::UnixSeconds;
use hallpass_allowlist::{Clock, SystemClock};

/// The time now.
pub fn now() -> UnixSeconds {
    SystemClock.now()
}
