//! The code for the browser: stores the access token, attaches it to calls, renews it and deletes it.
//!
//! The life of a session in one tab: the server renders the page, knowing from the cookie whether a user is
//! signed in ([`session`]). A login loads the app ([`lazy_app`]) and stores the access token ([`storage`]).
//! Each protected call first renews the token if little of its life is left ([`refresh`]), in one tab at a
//! time ([`refresh_lock`]), and then attaches it ([`bearer`]). While the page is visible, the server notifies
//! it when the session ends ([`sse`]). The token page shows the token and lets its owner copy it ([`token`]).
//! A 401 ends the session here; any other error keeps it. A logout always completes here, whatever the server
//! answers.
//!
//! All of it compiles on the server too, because the types of the calls refer to it. There it only sets up
//! signals: rendering a page uses no browser API.

pub mod bearer;
pub mod cookie;
pub mod lazy_app;
pub mod new_version;
pub mod page_error;
pub mod passkeys;
pub mod refresh;
mod refresh_lock;
pub mod session;
mod shared_stream;
pub mod sse;
pub mod storage;
mod timeout;
pub mod token;
pub mod typed_email;
mod web_lock;
