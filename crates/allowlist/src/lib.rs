//! The allowlist: the set of live tokens, in the memory of each instance of an application.
//!
//! A token is valid only while its id is listed here. There are three tiers:
//!
//! | tier | what it is | read by |
//! |---|---|---|
//! | the [store](SessionStore) | the source of truth, which the application implements on its database | login, refresh, logout |
//! | the [bus](Bus), with several instances | the shared list, and the events that keep the mirrors in step | lookups of tokens that the mirror does not hold |
//! | the mirror | this instance's memory | every request that presents a token |
//!
//! Every revocation goes to the store first, to the own mirror second, to the other instances third, and is
//! answered last ("truth first"). Once [`Allowlist::revoke`] has returned `Ok`, no instance accepts a token of the
//! session any more, whatever fails afterwards; and [`Allowlist::check`] needs no network call for a token that it
//! has met.
//!
//! Reading order: `lease.rs` (when a mirror may be used), `mirror.rs` ("dead wins"), `bus/event.rs` (the chain that
//! reveals missing events), `follower.rs` (how mirrors are kept in step), `pending.rs` (when a revocation may be
//! answered), `membership.rs` (which instances a revocation waits for), `publisher.rs`, `agreement.rs` (what all
//! instances have to agree on), `allowlist.rs` (the whole), `bus/redis/` (keys and scripts).
//!
//! It handles ids. What a token looks like and how it is signed, HTTP, and SQL are the application's.

#![warn(missing_docs)]

mod agreement;
mod allowlist;
mod bus;
mod clock;
mod cluster;
mod follower;
#[doc(hidden)]
pub mod id;
mod lease;
mod membership;
mod metrics;
mod mirror;
mod notifier;
mod pending;
mod publisher;
mod random;
mod record;
mod single_flight;
mod snapshot;
mod store;

#[cfg(feature = "redis")]
pub use self::bus::redis::RedisOptions;
#[cfg(all(feature = "redis", feature = "test-util"))]
pub use self::bus::redis::metered::{Message, Meter, MeteredBus};
#[cfg(feature = "test-util")]
pub use self::random::seeded::seed;
/// The program in the README is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use self::{
    agreement::{Conflict, SharedSettings},
    allowlist::{Allowlist, RevokeError, StartError, Undetermined},
    bus::{
        Bus, BusError,
        memory::{MemoryBus, MemoryServer, Network},
    },
    clock::{Clock, SystemClock, UnixSeconds, Uptime},
    cluster::{ClusterOptions, JoinError},
    follower::ReconcileError,
    id::{InstanceId, InvalidId, SessionId, TokenId, UserId},
    metrics::mirror_hits,
    publisher::Unconfirmed,
    record::{MAX_TOKEN_LIFE, RETENTION, Recorded, Revocation, RevokedSession, TokenRecord, Whose},
    snapshot::{ClusterSnapshot, CompletedRevocation, InstanceSnapshot, MemberKind},
    store::{InstanceRow, LiveTokens, SessionStore},
};
#[doc(hidden)]
pub use serde;
