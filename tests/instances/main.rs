#![allow(dead_code, clippy::unwrap_used)]
mod client;
#[path = "../faults/clock.rs"]
mod clock;
#[path = "../faults/cluster.rs"]
mod cluster;
mod guarantee;
#[path = "../faults/instance.rs"]
mod instance;
#[path = "../faults/link.rs"]
mod link;
#[path = "../faults/postgres.rs"]
mod postgres;
#[path = "../faults/process.rs"]
mod process;
mod races;
#[path = "../faults/redis.rs"]
mod redis;
#[path = "../faults/sentinel.rs"]
mod sentinel;
mod settings;
mod stream;
#[path = "../faults/world.rs"]
mod world;
