//! The metrics, which are recorded where their event happens. Without the feature `metrics` they do nothing.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

#[cfg(feature = "metrics")]
pub use metrics::{counter, gauge, histogram};

/// Accepts what a metric accepts.
#[cfg(not(feature = "metrics"))]
pub struct Nothing;

#[cfg(not(feature = "metrics"))]
impl Nothing {
    pub fn increment(&self, _: u64) {}

    pub fn set(&self, _: f64) {}

    pub fn record<T>(&self, _: T) {}
}

#[cfg(not(feature = "metrics"))]
macro_rules! nothing {
    ($name:literal $(, $label:literal => $value:expr)*) => {{
        $(let _ = $value;)*
        $crate::metrics::Nothing
    }};
}

#[cfg(not(feature = "metrics"))]
pub(crate) use {nothing as counter, nothing as gauge, nothing as histogram};

const SHARDS: usize = 32;

/// A part of a counter, aligned so that no two cores write to the same cache line.
#[repr(align(128))]
struct Shard(AtomicU64);

static HITS: [Shard; SHARDS] = [const { Shard(AtomicU64::new(0)) }; SHARDS];

/// Counts a request that was authorized from the mirror. The threads count in different shards, because all
/// cores would contend for a single counter.
pub fn count_hit() {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static SHARD: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
    SHARD.with(|shard| HITS[*shard].0.fetch_add(1, Ordering::Relaxed));
}

/// The number of requests that were authorized from a mirror in this process.
pub fn mirror_hits() -> u64 {
    HITS.iter().map(|shard| shard.0.load(Ordering::Relaxed)).sum()
}
