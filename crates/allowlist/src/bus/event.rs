//! The events that instances publish, and the chain that reveals missing ones.
//!
//! Each entry of the stream carries a random number of its own, its nonce, and the nonce of the entry
//! before it. An instance that has followed the chain link by link to its head has missed no event, even if
//! Redis lost its data, or was replaced by an older copy of itself, whose next entries look just as new.

use std::{fmt, str::FromStr};

use crate::{
    id::{InvalidId, SessionId},
    random,
    record::TokenRecord,
};

/// The random number of a link: 63 bits, which Redis stores as an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(pub i64);

impl Nonce {
    pub fn random() -> Self {
        Self(i64::from_be_bytes(random::bytes()) & i64::MAX)
    }
}

/// The position of an entry in the stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub milliseconds: u64,
    pub sequence: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.milliseconds, self.sequence)
    }
}

impl FromStr for Position {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let (milliseconds, sequence) = text.split_once('-').ok_or(Unreadable)?;
        Ok(Self {
            milliseconds: milliseconds.parse().map_err(|_| Unreadable)?,
            sequence: sequence.parse().map_err(|_| Unreadable)?,
        })
    }
}

/// A link of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub position: Position,
    pub nonce: Nonce,
    /// The nonce of the entry before it; `None` if a new chain begins with this one.
    pub before: Option<Nonce>,
    pub event: Event,
}

/// An event, in its text form: `issued jti sid sub exp`, or `revoked sid sid …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Issued(TokenRecord),
    Revoked(Vec<SessionId>),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issued(TokenRecord { token_id, session_id, user_id, expires_at }) => {
                write!(f, "issued {token_id} {session_id} {user_id} {expires_at}")
            }
            Self::Revoked(sessions) => {
                f.write_str("revoked")?;
                sessions.iter().try_for_each(|session_id| write!(f, " {session_id}"))
            }
        }
    }
}

impl FromStr for Event {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let mut words = text.split(' ');
        let kind = words.next();
        let words: Vec<&str> = words.collect();
        match (kind, words.as_slice()) {
            (Some("issued"), [token_id, session_id, user_id, expires_at]) => Ok(Self::Issued(TokenRecord {
                token_id: token_id.parse()?,
                session_id: session_id.parse()?,
                user_id: user_id.parse()?,
                expires_at: expires_at.parse().map_err(|_| Unreadable)?,
            })),
            (Some("revoked"), sessions) => Ok(Self::Revoked(
                sessions.iter().map(|session_id| session_id.parse()).collect::<Result<_, _>>()?,
            )),
            _ => Err(Unreadable),
        }
    }
}

/// The text was not written by an instance of this version of the protocol.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot be read")]
pub struct Unreadable;

impl From<InvalidId> for Unreadable {
    fn from(_: InvalidId) -> Self {
        Self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{TokenId, UserId};

    #[test]
    fn an_event_reads_back_as_it_was_written() {
        let issued = Event::Issued(TokenRecord {
            token_id: TokenId::random(),
            session_id: SessionId::random(),
            user_id: UserId::random(),
            expires_at: 1_800_000_000,
        });
        let revoked = Event::Revoked(vec![SessionId::random(), SessionId::random()]);
        for event in [issued, revoked, Event::Revoked(Vec::new())] {
            assert_eq!(event.to_string().parse(), Ok(event));
        }
    }

    #[test]
    fn anything_else_is_unreadable() {
        let id = SessionId::random();
        for text in [
            "",
            "issued",
            "revoked x",
            "revoked ",
            &format!("issued {id} {id} {id} soon"),
            &format!("ended {id}"),
        ] {
            assert_eq!(text.parse::<Event>(), Err(Unreadable), "{text}");
        }
    }

    #[test]
    fn positions_are_ordered_as_numbers() {
        let position = |text: &str| text.parse::<Position>().unwrap();
        assert!(position("9-0") < position("10-0") && position("10-9") < position("10-10"));
        assert_eq!(position("10-3").to_string(), "10-3");
        assert_eq!("10".parse::<Position>(), Err(Unreadable));
    }
}
