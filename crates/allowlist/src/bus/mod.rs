//! The bus: what carries events and reports between the instances. Redis is one; a bus in memory serves tests,
//! examples and simulations.
//!
//! The trait-like surface of [`Connection`] is closed on purpose: followers depend on properties that a type
//! cannot express. A connection leads to one server and never reconnects; a report is stored and answered in
//! one step; entries form a chain.
//!
//! `follower.rs` and `publisher.rs` call this; it calls none of them.

pub use self::error::BusError;
pub(crate) use self::stream::{
    Awaited, BATCH, Entry, Head, Partition, Read, Register, Renewed, Report, Reported,
};
use self::{
    event::{Nonce, Position},
    memory::MemoryBus,
};
use crate::{
    clock::UnixSeconds,
    id::{InstanceId, SessionId, TokenId},
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
    #[cfg(all(feature = "redis", feature = "test-util"))]
    Metered(redis::metered::MeteredBus),
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

    /// A bus in memory that measures what would be exchanged with Redis.
    #[cfg(all(feature = "redis", feature = "test-util"))]
    pub fn metered(bus: redis::metered::MeteredBus) -> Self {
        Self(Kind::Metered(bus))
    }

    /// The number of partitions.
    pub(crate) fn partitions(&self) -> u16 {
        match &self.0 {
            Kind::Memory(bus) => bus.partitions(),
            #[cfg(feature = "redis")]
            Kind::Redis(topology) => topology.partitions(),
            #[cfg(all(feature = "redis", feature = "test-util"))]
            Kind::Metered(bus) => bus.partitions(),
        }
    }

    /// The number of servers that hold the same data: a primary and its replicas together.
    pub(crate) fn nodes(&self) -> usize {
        match &self.0 {
            Kind::Memory(bus) => bus.nodes(),
            #[cfg(feature = "redis")]
            Kind::Redis(topology) => topology.nodes(),
            #[cfg(all(feature = "redis", feature = "test-util"))]
            Kind::Metered(_) => 1,
        }
    }

    /// Opens a connection to the partition's primary.
    pub(crate) async fn connect(&self, partition: Partition) -> Result<Connection, BusError> {
        match &self.0 {
            Kind::Memory(bus) => Ok(Connection::Memory(bus.connect(partition).await?)),
            #[cfg(feature = "redis")]
            Kind::Redis(topology) => Ok(Connection::Redis(topology.connect(partition).await?)),
            #[cfg(all(feature = "redis", feature = "test-util"))]
            Kind::Metered(bus) => Ok(Connection::Metered(bus.connect(partition).await?)),
        }
    }

    /// Opens another connection to the server that [`Bus::connect`] last connected to.
    pub(crate) async fn connect_beside(&self, partition: Partition) -> Result<Connection, BusError> {
        match &self.0 {
            Kind::Memory(bus) => Ok(Connection::Memory(bus.connect(partition).await?)),
            #[cfg(feature = "redis")]
            Kind::Redis(topology) => Ok(Connection::Redis(topology.connect_beside(partition).await?)),
            #[cfg(all(feature = "redis", feature = "test-util"))]
            Kind::Metered(bus) => Ok(Connection::Metered(bus.connect(partition).await?)),
        }
    }
}

/// A connection to the primary of one partition. Clones share it.
#[derive(Clone)]
pub(crate) enum Connection {
    Memory(memory::Connection),
    #[cfg(feature = "redis")]
    Redis(redis::Connection),
    #[cfg(all(feature = "redis", feature = "test-util"))]
    Metered(redis::metered::Connection),
}

/// Calls the same method of whichever connection it is.
macro_rules! on_either {
    ($self:ident, $connection:ident => $call:expr) => {
        match $self {
            Self::Memory($connection) => $call.await,
            #[cfg(feature = "redis")]
            Self::Redis($connection) => Ok($call.await?),
            #[cfg(all(feature = "redis", feature = "test-util"))]
            Self::Metered($connection) => $call.await,
        }
    };
}

impl Connection {
    /// Reads the position of the newest event, the head of the chain, and the identity of this bus. Creates the
    /// chain and the identity if they do not exist.
    pub async fn join(&mut self) -> Result<(Position, Head, String), BusError> {
        on_either!(self, connection => connection.join())
    }

    /// Stores the report of a member, removes those that have lapsed, and reads the head and what all have applied,
    /// in one step. `None`, and no effect, if the register is not one of the reported chain.
    pub async fn renew(&mut self, report: &Report) -> Result<Option<Renewed>, BusError> {
        on_either!(self, connection => connection.renew(report))
    }

    /// Reads the membership.
    pub async fn register(&mut self) -> Result<Register, BusError> {
        on_either!(self, connection => connection.register())
    }

    /// Stores what is shown of an instance, and removes that of instances that departed long ago.
    pub async fn show(
        &mut self,
        instance: InstanceId,
        profile: &str,
        departed: &[Vec<u8>],
    ) -> Result<(), BusError> {
        on_either!(self, connection => connection.show(instance, profile, departed))
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

    /// Reads the entries after a position, and waits for some if there are none.
    pub async fn wait_for_entries(&mut self, awaited: &Awaited) -> Result<Read, BusError> {
        on_either!(self, connection => connection.wait_for_entries(awaited))
    }

    /// Checks that the server responds.
    pub async fn ping(&mut self) -> Result<(), BusError> {
        on_either!(self, connection => connection.ping())
    }

    /// Removes an instance that stops from the membership.
    pub async fn leave(&mut self, instance: InstanceId, partitions: u16) -> Result<(), BusError> {
        on_either!(self, connection => connection.leave(instance, partitions))
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
