//! Real processes, each with a folder of its own, and links between them that can be disturbed.

pub mod certificate;
pub mod clock;
pub mod cluster;
pub mod gate;
pub mod health;
pub mod instance;
pub mod link;
pub mod mails;
pub mod notes;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod sentinel;
pub mod world;
