//! The wall clock, read once at the door of each call; everything behind it takes `now` as a
//! parameter, so that tests choose the time.

use std::time::SystemTime;

/// Unix time in whole seconds, the unit of `exp` and `iat` (RFC 7519, NumericDate).
pub type UnixSeconds = i64;

#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now() -> UnixSeconds {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => UnixSeconds::try_from(since.as_secs()).unwrap_or(UnixSeconds::MAX),
        // A clock before 1970 would make every token look fresh; at the end of time all are expired.
        Err(_) => UnixSeconds::MAX,
    }
}
