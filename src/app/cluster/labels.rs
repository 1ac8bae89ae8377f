//! The labels that the diagram and the tables share.

use crate::api::types::RecentRevocation;

/// Whether an instance has a lease, and so may answer from its memory.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum LeaseStatus {
    #[default]
    Leased,
    Lapsed,
    /// The instance that sends the view has no lease itself, so it does not have the state of the others.
    Unknown,
}

impl LeaseStatus {
    pub fn lease(self) -> &'static str {
        match self {
            Self::Leased => "lease held",
            Self::Lapsed => "lease lost",
            Self::Unknown => "lease unknown",
        }
    }

    /// Where the instance checks tokens.
    pub fn memory(self) -> &'static str {
        match self {
            Self::Leased => "in memory",
            Self::Lapsed => "asks the database",
            Self::Unknown => "unknown",
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

/// Microseconds as milliseconds, with one decimal.
pub fn millis(us: u64) -> String {
    format!("{}.{} ms", us / 1000, us % 1000 / 100)
}

/// How many of the instances have confirmed a revocation.
pub fn confirmed(revocation: &RecentRevocation) -> String {
    format!("{} of {}", revocation.acknowledged, revocation.instances)
}
