//! The buckets in Redis, which all instances share.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use redis::Script;

use super::rate_limit::{BucketKey, MAX_BACKOFF, RateLimit};
use crate::server::auth::allowlist::Allowlist;

static RECORD_ATTEMPT: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/record_attempt.lua")));
static REFUND_ATTEMPT: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/refund_attempt.lua")));

/// The buckets that all instances share, in the Redis that the allowlist uses.
pub struct SharedBuckets(pub Arc<Allowlist>);

impl SharedBuckets {
    /// Records an attempt and returns zero, or returns how long it has to wait. `None` without Redis, or while it
    /// is unreachable.
    pub async fn record_attempt(&self, bucket: BucketKey, limit: RateLimit) -> Option<Duration> {
        let recording = self.0.with_redis(&bucket.0, async |connection, prefix| {
            RECORD_ATTEMPT
                .key(key(prefix, bucket))
                .arg(limit.burst)
                .arg(limit.refill_interval.as_millis().max(1))
                .arg(MAX_BACKOFF.as_millis())
                .invoke_async(connection)
                .await
        });
        recording.await.map(Duration::from_millis)
    }

    /// Takes back an attempt that was recorded. While Redis is unreachable, it may still count.
    pub async fn refund_attempt(&self, bucket: BucketKey) {
        let refunding = self.0.with_redis(&bucket.0, async |connection, prefix| {
            REFUND_ATTEMPT.key(key(prefix, bucket)).invoke_async::<()>(connection).await
        });
        refunding.await;
    }
}

fn key(prefix: &str, bucket: BucketKey) -> String {
    format!("{prefix}attempts:{}", BASE64_URL_SAFE_NO_PAD.encode(bucket.0))
}
