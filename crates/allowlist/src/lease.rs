//! The lease: how long this instance may answer from its mirror.
//!
//! While the lease holds, the mirror contains every revocation that has been answered with 2xx: a
//! revocation is answered only when each instance has applied it, or has no lease any more (Gray and
//! Cheriton, SOSP 1989; Chubby, OSDI 2006, 2.7). A process that was stopped, or cut off from Redis, stops
//! using its mirror without being notified.
//!
//! Only `follower.rs` renews a lease; `allowlist.rs` checks it before it reads the mirror.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::clock::Uptime;

/// How long a lease holds, counted from when the request that renews it was *sent*. A constant and not a
/// setting, because all instances have to agree on it.
pub const LEASE: Duration = Duration::from_secs(1);

/// The time after which a lease that was granted before some instant has surely expired, by a clock that
/// may run faster than its holder's: by a factor of 1.1/0.9, because the kernel lets NTP slew each by 10 %
/// (chrony's default is 8.3 %).
pub const LEASE_EXPIRY_BOUND: Duration = LEASE.saturating_add(Duration::from_millis(230));

/// The lease of one partition. Read by every protected request, so without a lock.
#[derive(Default)]
pub struct Lease {
    /// The `Uptime` at which the request that renewed the lease was sent; zero if there is no lease.
    renewed: AtomicU64,
}

impl Lease {
    /// Whether the mirror may be used at `now`. Check this first, then read the mirror: in the other order,
    /// a revocation could come between the two unseen ("lease first").
    pub fn holds(&self, now: Uptime) -> bool {
        // Pairs with the release in `renew`: a reader that sees the lease also sees all that the mirror
        // contained by then.
        let renewed = self.renewed.load(Ordering::Acquire);
        renewed != 0 && now.since(Uptime(renewed)) < LEASE
    }

    /// Renews the lease, based on the response to a request that was sent at `sent`. All events in that
    /// response must have been applied to the mirror before.
    pub fn renew(&self, sent: Uptime) {
        self.renewed.store(sent.0, Ordering::Release);
    }

    /// Ends the lease at once.
    pub fn end(&self) {
        self.renewed.store(0, Ordering::Release);
    }

    /// The time since the request that renewed the lease was sent; `None` if there is no lease.
    pub fn age(&self, now: Uptime) -> Option<Duration> {
        let renewed = self.renewed.load(Ordering::Acquire);
        (renewed != 0).then(|| now.since(Uptime(renewed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_from_the_request_and_lapses_by_itself() {
        let lease = Lease::default();
        let sent = Uptime(5_000_000_000);
        let after = |duration| sent.plus(duration);
        assert!(!lease.holds(sent), "a new one holds nothing");
        lease.renew(sent);
        assert!(lease.holds(sent) && lease.holds(after(LEASE - Duration::from_nanos(1))));
        assert!(!lease.holds(after(LEASE)));
        lease.renew(after(LEASE));
        assert!(lease.holds(after(LEASE)));
        lease.end();
        assert!(!lease.holds(after(LEASE)));
    }

    #[test]
    fn expiry_bound_holds_for_clocks_slewed_in_opposite_directions() {
        assert!(LEASE_EXPIRY_BOUND >= LEASE.mul_f64(1.1 / 0.9));
    }
}
