//! The labels that the diagram and the tables share.

use crate::api::types::{InstanceView, MemberKind, RecentRevocation};

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

    /// Where a process of this kind checks tokens.
    pub fn memory(self, kind: MemberKind) -> &'static str {
        match (self, kind) {
            (Self::Leased, _) => "in memory",
            (Self::Lapsed, MemberKind::Guard) => "asks Hallpass",
            (Self::Lapsed, _) => "asks the database",
            (Self::Unknown, _) => "unknown",
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

/// What the picture says of a process that serves no pages, or serves this one.
pub fn role(instance: &InstanceView) -> &'static str {
    match instance.kind {
        MemberKind::Gate => "gate",
        MemberKind::Guard => "guard",
        MemberKind::Instance if instance.is_this => "you",
        MemberKind::Instance => "",
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
