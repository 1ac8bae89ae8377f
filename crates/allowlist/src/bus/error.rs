//! The errors of a bus, by what they mean for the connection.

/// The reason why a command failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct BusError {
    kind: BusErrorKind,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BusErrorKind {
    /// The settings are wrong, so that trying again will not help.
    Final,
    /// The connection is closed.
    Closed,
    /// The connection is open and cannot be used: there was no answer in time, or the server is not, or no
    /// longer, the right one.
    Unusable,
    /// The server rejected the command, and may accept the next.
    Rejected,
}

impl BusError {
    /// The connection is closed.
    pub fn closed() -> Self {
        Self::new(BusErrorKind::Closed, "the connection is closed")
    }

    pub(crate) fn new(kind: BusErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    pub(crate) fn timed_out() -> Self {
        Self::new(BusErrorKind::Unusable, "timed out")
    }

    /// Whether the settings are wrong, so that trying again will not help.
    pub fn is_final(&self) -> bool {
        self.kind == BusErrorKind::Final
    }

    /// Whether the connection was closed, maybe while it was idle.
    pub(crate) fn is_closed(&self) -> bool {
        self.kind == BusErrorKind::Closed
    }

    /// Whether the connection cannot be used any more.
    pub(crate) fn is_connection_lost(&self) -> bool {
        matches!(self.kind, BusErrorKind::Closed | BusErrorKind::Unusable)
    }
}
