//! The browser's half: keeps the access token, attaches it, renews it, forgets it.
//!
//! The life of a session in one tab: the server draws the page knowing from the cookie whether
//! someone is signed in ([`session`]). Logging in fetches the app ([`lazy_app`]) and stores the access token
//! ([`storage`]). Each protected call renews it first if little of its life is left ([`refresh`]), and attaches it
//! ([`bearer`]), one tab at a time ([`refresh_lock`]). While the page is looked at, the server tells it when the
//! session ends ([`sse`]). Its owner can look at the token, and copy it ([`token`]).
//! A refusal with 401 ends the session here; anything less certain keeps it. Logging out always
//! finishes here, whatever the server answers.
//!
//! All of it compiles on the server too, where it is never called: the types of the calls name it.

pub mod bearer;
pub mod cookie;
pub mod lazy_app;
pub mod refresh;
mod refresh_lock;
pub mod session;
pub mod sse;
pub mod storage;
mod timeout;
pub mod token;
