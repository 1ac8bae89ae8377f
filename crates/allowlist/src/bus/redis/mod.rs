//! The bus in Redis: how the primary of a partition is found ([`topology`]), the commands and scripts
//! ([`connection`]), what its errors mean ([`error`]). Nothing else uses the `redis` crate.
//!
//! Users are assigned to *partitions*. All keys of a partition have one hash tag, so that they are on one
//! node of a Redis Cluster, and one script can change them together:
//!
//! | key | type | holds |
//! |---|---|---|
//! | `{hp:N}:token:<jti>` | string | the session's id, for as long as the token lives: the allowlist |
//! | `{hp:N}:events` | stream | the issued tokens and revoked sessions of the last ten minutes, twice the longest life of a token |
//! | `{hp:N}:identity` | string | the identity of this Redis: a random value made once. All instances follow the same |
//! | `{hp:N}:members` | sorted set | the *register*: the serial number that each running instance has reported, and the head of the chain: see `scripts/register.lua` |
//! | `{hp:N}:acks` | stream | one entry, whose id is the serial number that all instances have reported, with the chain: those who wait for it are woken |
//! | `{hp:N}:profiles` | hash | what pages show of each instance |
//!
//! An application may keep other keys of a partition there (`Allowlist::with_redis`).
//!
//! The head of the chain is an element of the register, so that neither can be lost without the other: no
//! revocation would wait for an instance that is missing there.
//!
//! A connection here always leads directly to the one node that is the primary of a partition, also with
//! Sentinels or in a Redis Cluster, and it never reconnects: a follower has to notice when it may be
//! connected to another node.

pub use self::options::RedisOptions;
pub(super) use self::{connection::Connection, topology::Topology};

mod connection;
mod error;
#[cfg(feature = "test-util")]
pub mod metered;
mod options;
mod topology;
