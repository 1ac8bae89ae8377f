//! What is read from a bus: the entries of a partition's stream, and its register.

use std::{collections::HashMap, time::Duration};

use crate::{
    bus::event::{Link, Nonce, Position},
    id::{InstanceId, UserId},
};

/// The number of entries that are read at once.
pub const BATCH: usize = 1000;

/// How long a command may take. No longer than a lease, which has expired by then.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// A share of the users, and their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Partition(u16);

impl Partition {
    pub(crate) fn all(count: u16) -> impl Iterator<Item = Self> {
        (0..count).map(Self)
    }

    /// The partition of a user, of `count`: the same on every instance.
    pub(crate) fn of(user_id: UserId, count: u16) -> Self {
        Self::by(user_id.as_bytes(), count)
    }

    /// The partition for 16 bytes that are already random.
    pub(crate) fn by(bytes: &[u8; 16], count: u16) -> Self {
        Self(u16::from_be_bytes([bytes[0], bytes[1]]) % count)
    }

    pub(crate) fn index(self) -> usize {
        self.0.into()
    }
}

/// The newest link of a chain, as the register has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// The nonce with which the chain began: a chain that begins because data was lost has another one.
    pub chain: Nonce,
    /// The serial number of the newest link.
    pub serial: u64,
    /// The nonce of the newest link.
    pub nonce: Nonce,
    /// The number of times that the membership has changed.
    pub version: u64,
}

impl Head {
    /// The head of a chain without links.
    pub fn first(chain: Nonce) -> Self {
        Self { chain, serial: 0, nonce: chain, version: 0 }
    }
}

/// The report of a member about itself.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub instance: InstanceId,
    pub partitions: u16,
    /// The chain that it follows. A register of another chain does not accept the report.
    pub chain: Nonce,
    /// The serial number of the last link that it has applied.
    pub applied: u64,
    /// The serial number in its last report, if there was one.
    pub reported: Option<u64>,
    /// Members with a lower beat are removed.
    pub lapsed_below: Option<u64>,
}

/// The answer to a report.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Renewed {
    pub head: Head,
    /// The lowest serial number that a member has reported.
    pub applied_by_all: u64,
    /// The beat of this report: higher than those of all reports before it.
    pub beat: u64,
}

/// A report as the register has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reported {
    pub applied: u64,
    pub beat: u64,
    pub partitions: u16,
}

/// The membership, by instance id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Register {
    pub reports: HashMap<Vec<u8>, Reported>,
    /// What is shown of each instance, including those that have departed without removing it.
    pub profiles: HashMap<Vec<u8>, Vec<u8>>,
}

/// All members have reported that they have applied the link with this serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AllApplied {
    pub chain: Nonce,
    pub serial: u64,
    /// The version of the membership whose members have reported it.
    pub version: u64,
}

/// What a follower has read.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub entries: Vec<Entry>,
    /// The serial number that all members have reported, if it was waited for.
    pub applied_by_all: Option<AllApplied>,
}

/// What a follower waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Awaited {
    /// Entries after this position.
    pub after: Position,
    /// Or that all members have reported this serial number.
    pub applied_by_all: Option<u64>,
    /// Or that this time has passed.
    pub timeout: Duration,
}

/// An entry of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Link(Link),
    /// Part of the chain, but its event cannot be parsed.
    #[cfg(feature = "redis")]
    Unreadable(Position),
    /// Not written by an instance.
    #[cfg(feature = "redis")]
    Foreign(Position),
}
