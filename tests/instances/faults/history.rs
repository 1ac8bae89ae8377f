//! The history of a run: every call, with the times at which it was sent and at which its response had been
//! read to the end. A single process makes all calls, so one clock orders them.

use std::{
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// The time since the history began.
pub type At = Duration;

/// The expiry of a token whose age does not matter.
pub const NEVER: At = Duration::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Login,
    /// The protected call.
    Me,
    Refresh,
    Logout,
    /// Ends a session from another one of the same user.
    RevokeSession,
    LogoutEverywhere,
    ChangePassword,
    /// Sets the password by the link in a mail: no session authorizes it.
    ResetPassword,
    DeleteAccount,
    /// Adds or removes a passkey, which ends all other sessions of the user.
    ChangeFactor,
    /// Opens the event stream of a session.
    Events,
}

/// The subject of a call. Sessions and users are numbered from 0, so that a report contains no token and no
/// id of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    Session(usize),
    /// A session, on behalf of another one.
    Other {
        session: usize,
        by: usize,
    },
    /// All sessions of a user, on behalf of one of them, which may be kept.
    User {
        user: usize,
        by: usize,
        keeps: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Status(u16),
    /// The connection broke, or the client's timeout passed.
    None,
    /// The client did not wait for the response. The call may be carried out or not.
    HungUp,
}

impl Answer {
    pub fn is_yes(self) -> bool {
        matches!(self, Self::Status(200..=299))
    }

    /// Refused: there was no live session or, at a login, the password was wrong.
    pub fn is_no(self) -> bool {
        self == Self::Status(401)
    }

    /// Refused: the password was wrong, in a call by a signed-in user.
    pub fn is_wrong_password(self) -> bool {
        self == Self::Status(422)
    }

    /// Refused: the account, or what the call was about, has changed meanwhile.
    pub fn is_outdated(self) -> bool {
        matches!(self, Self::Status(404 | 409))
    }

    /// Neither accepted nor refused: the client is to try again.
    pub fn is_unavailable(self) -> bool {
        matches!(self, Self::None | Self::Status(503))
    }

    /// Whether the effect of the call is unknown.
    pub fn is_in_doubt(self) -> bool {
        self.is_unavailable() || self == Self::HungUp
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub kind: Kind,
    pub about: About,
    pub instance: usize,
    pub sent: At,
    pub ended: At,
    pub answer: Answer,
    /// The number of the password that the call presented. A change sets the next one. A reset presents none, and this is
    /// the one before that which it sets.
    pub password: Option<usize>,
    /// Until this time the presented token had certainly not expired, by any clock involved.
    pub good_until: At,
    /// From this time on the presented token had certainly expired.
    pub bad_from: At,
    /// The number of instances and of acknowledgements in the response.
    pub counts: Option<(u64, u64)>,
    /// Whether the call was made after all faults had been healed, with no other call in progress.
    pub is_last: bool,
}

/// A session that a login began.
#[derive(Debug, Clone, Copy)]
pub struct Login {
    pub user: usize,
    /// The current refresh token is unknown: the response to a refresh was lost, and the refresh could not be
    /// repeated in time.
    pub in_doubt: bool,
}

#[derive(Debug, Default, Clone)]
pub struct Events {
    pub calls: Vec<Call>,
    /// All attempted logins. The index is the number of the session.
    pub logins: Vec<Login>,
    /// The times without a fault: start, end, and the number of running instances.
    pub calm: Vec<(At, At, u64)>,
}

pub struct History {
    /// Part of the addresses of its users: a world can have one load after the other.
    pub id: u32,
    begin: Instant,
    events: Mutex<Events>,
}

impl History {
    pub fn begin() -> Self {
        Self { id: fastrand::u32(..), begin: Instant::now(), events: Mutex::default() }
    }

    pub fn now(&self) -> At {
        self.begin.elapsed()
    }

    pub fn record(&self, call: Call) {
        self.events().calls.push(call);
    }

    /// Adds a session before its login is sent, and returns its number.
    pub fn new_session(&self, user: usize) -> usize {
        let logins = &mut self.events().logins;
        logins.push(Login { user, in_doubt: false });
        logins.len() - 1
    }

    pub fn doubt(&self, session: usize) {
        self.events().logins[session].in_doubt = true;
    }

    /// Records that there was no fault from `from` until now.
    pub fn was_calm(&self, from: At, instances: usize) {
        let now = self.now();
        self.events().calm.push((from, now, instances as u64));
    }

    /// The events recorded until now.
    pub fn so_far(&self) -> Events {
        self.events().clone()
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap()
    }
}
