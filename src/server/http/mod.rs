//! HTTP: the routes, the middleware, the handlers, and what is read from requests and written to responses.
//!
//! `server/mod.rs` calls this, and `api/` calls the handlers. This folder calls `auth/`, and has no rules
//! about accounts, sessions or tokens.

pub mod assets;
mod calls;
mod client_ip;
mod cookie;
pub mod csrf;
mod dev_mail;
mod error_response;
mod forms;
pub mod gate;
mod guards;
pub mod handlers;
mod health;
mod oauth;
mod openapi;
mod other_versions;
mod request_context;
pub mod router;
mod sse;
mod streams;
mod well_known;
