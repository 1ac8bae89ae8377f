//! What is read from a bus: the entries of a partition's stream, and its register.

use std::{collections::HashMap, time::Duration};

#[cfg(feature = "redis")]
use crate::bus::event::Position;
use crate::{
    bus::event::{Link, Nonce},
    id::UserId,
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

/// The membership and the head of the chain.
pub(crate) struct Register {
    /// The nonce of the newest event; `None` if there is no chain.
    pub head: Option<Nonce>,
    /// The report of each instance, by instance id.
    pub reports: HashMap<Vec<u8>, Vec<u8>>,
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
