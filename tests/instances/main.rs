//! Tests of the guarantee with several instances, as real processes: a Redis (or several), a PostgreSQL and
//! three instances. Each file tests one promise; `faults` tests the guarantee under faults; `figures`
//! measures.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "../common/authenticator.rs"]
mod authenticator;
#[path = "../common/totp.rs"]
mod totp;

mod agreement;
mod client;
mod door;
mod factors;
mod faults;
mod figures;
mod gate;
mod guarantee;
mod guards;
mod keys;
mod mails;
mod proxies;
mod races;
mod requests;
mod sessions;
mod settings;
mod stream;
mod support;
mod truth;
mod upgrades;
