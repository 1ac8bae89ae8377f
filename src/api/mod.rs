//! What crosses the network: the calls, their types and their one error, compiled on both sides.
//!
//! A call here is a doorway: a contract, a signature and one line into [`crate::server`]. The
//! browser calls the same function and gets the same types.
//!
//! | call | who may make it |
//! |---|---|
//! | [`auth::register`], [`auth::login`] | anyone |
//! | [`auth::refresh`] | the holder of the session's current refresh token |
//! | [`auth::logout`] | the holder of any token of the session, an expired access token included |
//! | [`account::me`], [`account::logout_everywhere`] | the bearer of a live access token |
//!
//! Besides, `GET` [`CLUSTER_EVENTS`] tells the page of a signed-in user how the servers are, as
//! server-sent events.
//!
//! Nothing here may name `app` or `client`, but for the HTTP client that attaches the bearer.

pub mod account;
pub mod auth;
pub mod error;
pub mod protocol;
pub mod types;

/// Server-sent events, each a [`types::ClusterView`]; for the holder of a session's cookie.
pub const CLUSTER_EVENTS: &str = "/api/cluster/events";
