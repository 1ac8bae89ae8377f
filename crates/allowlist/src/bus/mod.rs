//! The bus: what carries events and reports between the instances. Redis is one; a bus in memory serves tests,
//! examples and simulations.
//!
//! The trait-like surface of [`Connection`] is closed on purpose: followers depend on properties that a type
//! cannot express. A connection leads to one server and never reconnects; a report and the entries that answer it
//! are read in one step; entries form a chain.
//!
//! `follower.rs` and `publisher.rs` call this; it calls none of them.

use std::{collections::HashMap, time::Duration};

use self::{
    event::{Link, Nonce, Position},
    memory::MemoryBus,
};
use crate::{
    clock::UnixSeconds,
    id::{SessionId, TokenId, UserId},
    record::TokenRecord,
};

pub mod event;
pub mod memory;
#[cfg(feature = "redis")]
pub mod redis;

/// The number of entries that are read at once.
pub const BATCH: usize = 1000;

/// How long a command may take. No longer than a lease, which has expired by then.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The bus that all instances of an application share. Cheap to clone.
#[derive(Clone)]
pub struct Bus(Kind);

#[derive(Clone)]
enum Kind {
    Memory(MemoryBus),
    #[cfg(feature = "redis")]
    Redis(redis::Topology),
}

impl Bus {
    /// A bus within this process.
    pub fn memory(bus: MemoryBus) -> Self {
        Self(Kind::Memory(bus))
    }

    /// Redis, as a single server, with Sentinels, or as a Redis Cluster. Does not connect.
    ///
    /// # Errors
    /// The options cannot be used.
    #[cfg(feature = "redis")]
    pub fn redis(options: &redis::RedisOptions) -> Result<Self, BusError> {
        Ok(Self(Kind::Redis(redis::Topology::new(options)?)))
    }

    /// The number of partitions.
    pub(crate) fn partitions(&self) -> u16 {
        match &self.0 {
            Kind::Memory(bus) => bus.partitions(),
            #[cfg(feature = "redis")]
            Kind::Redis(topology) => topology.partitions(),
        }
    }

    /// The number of servers that hold the same data: a primary and its replicas together.
    pub(crate) fn nodes(&self) -> usize {
        match &self.0 {
            Kind::Memory(bus) => bus.nodes(),
            #[cfg(feature = "redis")]
            Kind::Redis(topology) => topology.nodes(),
        }
    }

    /// Opens a connection to the partition's primary.
    pub(crate) async fn connect(&self, partition: Partition) -> Result<Connection, BusError> {
        match &self.0 {
            Kind::Memory(bus) => Ok(Connection::Memory(bus.connect(partition).await?)),
            #[cfg(feature = "redis")]
            Kind::Redis(topology) => Ok(Connection::Redis(topology.connect(partition).await?)),
        }
    }

    /// Opens another connection to the server that [`Bus::connect`] last connected to.
    pub(crate) async fn connect_beside(&self, partition: Partition) -> Result<Connection, BusError> {
        match &self.0 {
            Kind::Memory(bus) => Ok(Connection::Memory(bus.connect(partition).await?)),
            #[cfg(feature = "redis")]
            Kind::Redis(topology) => Ok(Connection::Redis(topology.connect_beside(partition).await?)),
        }
    }
}

/// A connection to the primary of one partition. Clones share it.
#[derive(Clone)]
pub(crate) enum Connection {
    Memory(memory::Connection),
    #[cfg(feature = "redis")]
    Redis(redis::Connection),
}

/// Calls the same method of whichever connection it is.
macro_rules! on_either {
    ($self:ident, $connection:ident => $call:expr) => {
        match $self {
            Self::Memory($connection) => $call.await,
            #[cfg(feature = "redis")]
            Self::Redis($connection) => Ok($call.await?),
        }
    };
}

impl Connection {
    /// Reads the position of the newest event, the membership, and the identity of this bus. Creates the chain
    /// and the identity if they do not exist.
    pub async fn join(&mut self) -> Result<(Position, Register, String), BusError> {
        on_either!(self, connection => connection.join())
    }

    /// Stores the report of `instance`, and returns the entries after `position` and the membership, in one
    /// step. Removes the `lapsed` members that have not reported again.
    pub async fn renew(
        &mut self,
        instance: &[u8],
        report: &str,
        position: Position,
        lapsed: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(Vec<Entry>, Register), BusError> {
        on_either!(self, connection => connection.renew(instance, report, position, lapsed))
    }

    /// Waits until `replicas` replicas have received everything that was written on this connection.
    ///
    /// # Errors
    /// Fewer replicas have, within the timeout.
    pub async fn wait_for_replicas(&mut self, replicas: usize) -> Result<(), BusError> {
        if replicas == 0 {
            return Ok(());
        }
        on_either!(self, connection => connection.wait_for_replicas(replicas))
    }

    /// Waits for entries after `position`, for at most `timeout`.
    pub async fn wait_for_entries(
        &mut self,
        position: Position,
        timeout: Duration,
    ) -> Result<Vec<Entry>, BusError> {
        on_either!(self, connection => connection.wait_for_entries(position, timeout))
    }

    /// Checks that the server responds.
    pub async fn ping(&mut self) -> Result<(), BusError> {
        on_either!(self, connection => connection.ping())
    }

    /// Removes an instance that stops from the membership.
    pub async fn leave(&mut self, instance: &[u8]) -> Result<(), BusError> {
        on_either!(self, connection => connection.leave(instance))
    }

    /// Adds a token to the list and publishes an event.
    pub async fn allow(&mut self, entry: &TokenRecord, now: UnixSeconds) -> Result<(), BusError> {
        on_either!(self, connection => connection.allow(entry, now))
    }

    /// Removes tokens from the list, and publishes the revocation of these sessions in an event with this nonce.
    pub async fn revoke(
        &mut self,
        nonce: Nonce,
        sessions: &[SessionId],
        tokens: &[TokenId],
    ) -> Result<(), BusError> {
        on_either!(self, connection => connection.revoke(nonce, sessions, tokens))
    }

    /// Whether the token is on the list.
    pub async fn contains(&mut self, entry: &TokenRecord) -> Result<bool, BusError> {
        on_either!(self, connection => connection.contains(entry))
    }

    /// The warnings about settings of this server that put its data or confirmed revocations at risk.
    pub async fn config_warnings(&mut self, nodes: usize) -> Result<Vec<String>, BusError> {
        on_either!(self, connection => connection.config_warnings(nodes))
    }
}

/// The reason why a command failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct BusError {
    kind: BusErrorKind,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BusErrorKind {
    /// The settings are wrong, so that trying again will not help.
    Final,
    /// The connection is closed.
    Closed,
    /// The connection is open and cannot be used: there was no answer in time, or the server is not, or no
    /// longer, the right one.
    Unusable,
    /// The server rejected the command, and may accept the next.
    Rejected,
}

impl BusError {
    /// The connection is closed.
    pub fn closed() -> Self {
        Self::new(BusErrorKind::Closed, "the connection is closed")
    }

    pub(crate) fn new(kind: BusErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    pub(crate) fn timed_out() -> Self {
        Self::new(BusErrorKind::Unusable, "timed out")
    }

    /// Whether the settings are wrong, so that trying again will not help.
    pub fn is_final(&self) -> bool {
        self.kind == BusErrorKind::Final
    }

    /// Whether the connection was closed, maybe while it was idle.
    pub(crate) fn is_closed(&self) -> bool {
        self.kind == BusErrorKind::Closed
    }

    /// Whether the connection cannot be used any more.
    pub(crate) fn is_connection_lost(&self) -> bool {
        matches!(self.kind, BusErrorKind::Closed | BusErrorKind::Unusable)
    }
}

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
