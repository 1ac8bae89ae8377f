//! The bus: what carries events and reports between the instances. Redis is one; a bus in memory serves tests,
//! examples and simulations.
//!
//! The trait-like surface of [`Connection`] is closed on purpose: followers depend on properties that a type
//! cannot express. A connection leads to one server and never reconnects; a report and the entries that answer it
//! are read in one step; entries form a chain.
//!
//! `follower.rs` and `publisher.rs` call this; it calls none of them.

use std::time::Duration;

pub use self::error::BusError;
pub(crate) use self::stream::{BATCH, Entry, Partition, Register};
use self::{
    event::{Nonce, Position},
    memory::MemoryBus,
};
use crate::{
    clock::UnixSeconds,
    id::{SessionId, TokenId},
    record::TokenRecord,
};

mod error;
pub mod event;
pub mod memory;
#[cfg(feature = "redis")]
pub mod redis;
mod stream;

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
