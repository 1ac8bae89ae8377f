//! The clocks: wall time, and the time since the machine was started.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// Unix time in whole seconds, the unit of `exp` and `iat` (RFC 7519, NumericDate).
pub type UnixSeconds = i64;

/// A source of time. [`SystemClock`] is the one to use; a simulation has others, which drift.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock. Only for display, and to compare it with the clock of the [store](crate::SessionStore).
    fn now(&self) -> UnixSeconds;

    /// A clock that cannot be set, and that continues while the machine is suspended. Leases are measured by it.
    fn uptime(&self) -> Uptime;
}

/// The clocks of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    fn now(&self) -> UnixSeconds {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        since_epoch.as_secs().cast_signed()
    }

    fn uptime(&self) -> Uptime {
        #[cfg(target_os = "linux")]
        const CLOCK: ClockId = ClockId::Boottime;
        // On other systems, this is the clock that continues during sleep.
        #[cfg(not(target_os = "linux"))]
        const CLOCK: ClockId = ClockId::Monotonic;
        let now = clock_gettime(CLOCK);
        Uptime(now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned())
    }
}

/// An instant, in nanoseconds since the machine was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uptime(pub(crate) u64);

impl Uptime {
    /// The instant at which the machine had been running for this long.
    pub fn after(uptime: Duration) -> Self {
        Self(u64::try_from(uptime.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The instant in milliseconds.
    pub fn milliseconds(self) -> i64 {
        (self.0 / 1_000_000).cast_signed()
    }

    /// The time from `earlier` to this instant; zero if this is before it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    #[cfg(test)]
    pub(crate) fn plus(self, duration: Duration) -> Self {
        Self(self.0 + u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}
