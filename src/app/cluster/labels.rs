//! What the picture and the tables call the same things by.

use crate::api::types::RecentRevocation;

/// Whether a server may trust its memory.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum LeaseStatus {
    #[default]
    Leased,
    Lapsed,
    /// The server that tells hears of nobody, so it cannot tell.
    Unknown,
}

impl LeaseStatus {
    pub fn lease(self) -> &'static str {
        match self {
            Self::Leased => "in lease",
            Self::Lapsed => "lease lost",
            Self::Unknown => "not heard of",
        }
    }

    pub fn memory(self) -> &'static str {
        match self {
            Self::Leased => "trusted",
            Self::Lapsed => "asks the database",
            Self::Unknown => "not known",
        }
    }

    pub fn class(self) -> &'static str {
        match self {
            Self::Leased => "good",
            Self::Lapsed => "warn",
            Self::Unknown => "unknown",
        }
    }
}

/// Microseconds as milliseconds, with a tenth.
pub fn millis(us: u64) -> String {
    format!("{}.{} ms", us / 1000, us % 1000 / 100)
}

/// Of how many a log-out was confirmed.
pub fn confirmed(revocation: &RecentRevocation) -> String {
    format!("{} of {}", revocation.acknowledged, revocation.instances)
}
