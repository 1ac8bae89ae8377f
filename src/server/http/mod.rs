//! HTTP: routes, middleware, the bodies of the server functions, and what is read from a request or written
//! to a response.
//!
//! Called by `server/mod.rs`, and by `api/` for the bodies. It calls `auth/`, and holds no rule about
//! accounts, sessions or tokens.

pub mod assets;
mod client_ip;
mod cookie;
pub mod csrf;
mod error_response;
mod forms;
pub mod handlers;
mod health;
mod openapi;
pub mod router;
mod sse;
mod streams;
