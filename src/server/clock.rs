//! The wall clock. Handlers read it and pass `now` on as a parameter, so that tests can choose the time.

use std::time::SystemTime;

/// Unix time in whole seconds, the unit of `exp` and `iat` (RFC 7519, NumericDate).
pub type UnixSeconds = i64;

#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now() -> UnixSeconds {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since_epoch.as_secs().cast_signed()
}
