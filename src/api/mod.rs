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
//! | [`token::check_statelessly`] | the holder of an access token, dead or alive |
//! | those of [`account`] | the bearer of a live access token |
//! | those of [`admin`] | an administrator with one |
//!
//! Besides, there are server-sent events for the pages of signed-in users: `GET` [`SESSION_EVENTS`]
//! tells when their session has ended, `GET` [`CLUSTER_EVENTS`] how the servers are.
//!
//! The doc comments here, of calls, of what they take and of the types, are what `/docs` says: they are
//! written for those who call. A new call gets an entry in `server/http/openapi/operations.rs`.
//!
//! Nothing here may name `app` or `client`, but for the HTTP client that attaches the bearer.

pub mod account;
pub mod admin;
pub mod auth;
pub mod error;
pub mod protocol;
pub mod token;
pub mod types;

/// Server-sent events, each a [`types::ClusterView`]; for the holder of a session's cookie.
pub const CLUSTER_EVENTS: &str = "/api/cluster/events";

/// The response header of each answer to a call: the name of the instance that gave it.
pub const INSTANCE_HEADER: &str = "hallpass-instance";

/// A cookie that a page sets when its user has signed out and no server has confirmed it yet: until one has,
/// pages are drawn for someone who is not signed in. `service` is one of the names in [`SERVICES_ATTRIBUTE`];
/// in a page that came by https no other host can set it.
pub fn logout_pending_cookie(https: bool, service: &str) -> String {
    cookie_name("hallpass-logout-pending", https, service)
}

/// The name of a cookie of ours. Cookies know no ports, so that two services on one host would take each
/// other's: each has its own name in it. Without one, it is as earlier versions had it.
pub fn cookie_name(kind: &str, https: bool, service: &str) -> String {
    let prefix = if https { "__Host-" } else { "" };
    let separator = if service.is_empty() { "" } else { "-" };
    format!("{prefix}{kind}{separator}{service}")
}

/// The attribute of `<html>` with the names of this service in its cookies, the one for new cookies first.
pub const SERVICES_ATTRIBUTE: &str = "data-services";

/// Server-sent events: a first one named `live`, and one named `ended` with an
/// [`types::EndReason`], which is the last; for the holder of a session's cookie.
pub const SESSION_EVENTS: &str = "/api/session/events";
