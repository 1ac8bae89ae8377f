//! The records that the application and the allowlist exchange.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    clock::UnixSeconds,
    id::{SessionId, TokenId, UserId},
};

/// The longest life of an access token. The application must not issue one that lives longer: revocations are
/// remembered for [`RETENTION`].
pub const MAX_TOKEN_LIFE: Duration = Duration::from_mins(5);

/// How long a revocation is remembered, in memory and on the bus: twice the longest life of a token.
pub const RETENTION: Duration = MAX_TOKEN_LIFE.saturating_mul(2);

/// The ids and the expiry of an access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The id of the token.
    pub token_id: TokenId,
    /// The session for which it was issued.
    pub session_id: SessionId,
    /// The user of the session.
    pub user_id: UserId,
    /// The time from which it is no longer accepted.
    pub expires_at: UnixSeconds,
}

/// A revoked session, with what has to be propagated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedSession {
    /// The id of the session.
    pub session_id: SessionId,
    /// The user of the session; `None` if it is neither in the store nor in this instance's mirror.
    pub user_id: Option<UserId>,
    /// The access tokens of the session that the bus may still list.
    pub tokens: Vec<TokenId>,
}

/// The result of recording the revocation of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The session.
    pub session: RevokedSession,
    /// True if the session was not revoked before.
    pub is_new: bool,
}

/// The sessions that a revocation applies to.
#[derive(Debug, Clone, Copy)]
pub enum Whose {
    /// Those of one user, except one of them.
    User {
        /// The user.
        user_id: UserId,
        /// The session that continues.
        except: Option<SessionId>,
    },
    /// All sessions of all users.
    Everyone,
}

/// A confirmed revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// The number of instances that were running.
    pub instances: u32,
    /// The number of them that have acknowledged it. The leases of the others had expired.
    pub acknowledged: u32,
    /// From the call to the confirmation.
    pub elapsed: Duration,
}
