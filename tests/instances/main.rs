//! The guarantee with several instances, held against real processes: a Redis (or several), a
//! PostgreSQL and three instances of their own. One file for each promise; `faults` holds it while
//! things go wrong; `figures` measures what it costs.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod agreement;
mod client;
mod door;
mod faults;
mod figures;
mod guarantee;
mod races;
mod sessions;
mod settings;
mod stream;
mod support;
mod truth;
