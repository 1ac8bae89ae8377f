//! What this instance knows of all running instances, for display. Nothing is decided by it; see `membership.rs`.

use serde::{Deserialize, Serialize};

use crate::clock::UnixSeconds;

/// A revocation that an instance has completed. Part of what instances report to each other: a field can be added
/// with a default, and none can be renamed without a new version of the protocol (`agreement.rs`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletedRevocation {
    /// The number of the revocation on the instance that made it, from 1 on; 0 from an older version that does
    /// not count.
    #[serde(default)]
    pub number: u64,
    /// The time of the answer.
    pub at: UnixSeconds,
    /// The number of instances that were running.
    pub instances: u32,
    /// The number of instances that confirmed the revocation.
    pub acknowledged: u32,
    /// The duration of the revocation, in microseconds.
    pub elapsed_us: u64,
}

/// What a member does. Only displays depend on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberKind {
    /// It issues and checks tokens, and revokes sessions.
    #[default]
    Instance,
    /// It tells proxies which tokens are live.
    Gate,
    /// It checks the tokens of another service.
    Guard,
}

/// One instance.
#[derive(Debug, Clone)]
pub struct InstanceSnapshot {
    /// The name that its operator gave it.
    pub name: String,
    /// What it does.
    pub kind: MemberKind,
    /// Whether it is this instance.
    pub is_this: bool,
    /// Whether it has a lease in all partitions. Exact for this instance, and inferred from the last reports of
    /// the others.
    pub is_leased: bool,
    /// The time since the last report of it that was seen, in milliseconds.
    pub renewed_ms: u64,
    /// The serial number of the last event that it has applied, in each partition.
    pub positions: Vec<String>,
    /// The number of sessions in its mirror, including ended ones.
    pub sessions: usize,
    /// Its most recent revocations, newest first.
    pub revocations: Vec<CompletedRevocation>,
}

/// All instances, ordered by name.
#[derive(Debug, Clone)]
pub struct ClusterSnapshot {
    /// Whether the instances share a Redis; false for a single instance.
    pub is_shared: bool,
    /// The time of this instance.
    pub now: UnixSeconds,
    /// The instances, running or recently departed.
    pub instances: Vec<InstanceSnapshot>,
}
