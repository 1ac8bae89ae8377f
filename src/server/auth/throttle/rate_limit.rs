//! Rate limits, and the keys of the buckets that they apply to. The counting is in `mod.rs` and, for
//! all instances together, in `redis.rs`.

use std::time::Duration;

use aws_lc_rs::digest;

/// The longest wait between two attempts.
pub const MAX_BACKOFF: Duration = Duration::from_mins(1);

/// A number of free attempts, and the rate at which they become free again.
#[derive(Debug, Clone, Copy)]
pub struct RateLimit {
    /// The number of attempts that need not wait.
    pub burst: u32,
    /// The time after which one more attempt is free.
    pub refill_interval: Duration,
}

impl RateLimit {
    /// A limit of `burst` attempts at once, and as many in each `period`.
    pub fn per(period: Duration, burst: u32) -> Self {
        Self { burst, refill_interval: period / burst.max(1) }
    }
}

/// The key of a bucket: a hash of what it counts for, so that addresses and accounts cannot be read where
/// attempts are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BucketKey(pub [u8; 16]);

impl BucketKey {
    pub fn of(kind: &str, parts: &[&str]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [&kind].into_iter().chain(parts) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut name = [0; 16];
        name.copy_from_slice(&context.finish().as_ref()[..16]);
        Self(name)
    }
}
