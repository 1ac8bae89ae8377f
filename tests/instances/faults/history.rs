//! What happened: every call with the instants at which it was sent and at which its answer had
//! been read to the end. One process makes all calls, so one clock orders them.

use std::{
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// Since the history began.
pub type At = Duration;

/// When a token expires whose age does not matter.
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
    /// A page listens to what becomes of its session.
    Events,
}

/// What a call was about. Sessions and users are counted from 0: no token, no id of the server's
/// gets into a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    Session(usize),
    /// A session, asked for by another one.
    Other {
        session: usize,
        by: usize,
    },
    /// All sessions of a user, asked for by one of them, which may be kept.
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
    /// The client did not wait for one. What it asked for may be carried out or not.
    HungUp,
}

impl Answer {
    pub fn is_yes(self) -> bool {
        matches!(self, Self::Status(200..=299))
    }

    /// No, for want of a live session or, when logging in, of the right password.
    pub fn is_no(self) -> bool {
        self == Self::Status(401)
    }

    /// No, for want of the right password, to somebody who is signed in.
    pub fn is_wrong_password(self) -> bool {
        self == Self::Status(422)
    }

    /// Neither: the client is to try again.
    pub fn is_unavailable(self) -> bool {
        matches!(self, Self::None | Self::Status(503))
    }

    /// Nobody knows what becomes of what was asked for.
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
    /// The number of the password that it presented. A change sets the next.
    pub password: Option<usize>,
    /// Until when the token that it presented had certainly not expired, by any clock involved.
    pub good_until: At,
    /// From when on it certainly had.
    pub bad_from: At,
    /// How many instances there were, and how many had acknowledged, by the answer.
    pub counts: Option<(u64, u64)>,
    /// One of those that are made when all is healed and nothing else is under way.
    pub is_last: bool,
}

/// A session that a log-in began.
#[derive(Debug, Clone, Copy)]
pub struct Login {
    pub user: usize,
    /// Nobody knows any more which refresh token is its current one: the answer to a refresh was
    /// lost, and could not be asked for again in time.
    pub in_doubt: bool,
}

#[derive(Debug, Default, Clone)]
pub struct Events {
    pub calls: Vec<Call>,
    /// One for each log-in that was tried. The session has its place in here as its number.
    pub logins: Vec<Login>,
    /// When nothing was wrong: from, to, and how many instances were running.
    pub calm: Vec<(At, At, u64)>,
}

pub struct History {
    begin: Instant,
    events: Mutex<Events>,
}

impl History {
    pub fn begin() -> Self {
        Self { begin: Instant::now(), events: Mutex::default() }
    }

    pub fn now(&self) -> At {
        self.begin.elapsed()
    }

    pub fn record(&self, call: Call) {
        self.events().calls.push(call);
    }

    /// A session is about to begin: its number.
    pub fn new_session(&self, user: usize) -> usize {
        let logins = &mut self.events().logins;
        logins.push(Login { user, in_doubt: false });
        logins.len() - 1
    }

    pub fn doubt(&self, session: usize) {
        self.events().logins[session].in_doubt = true;
    }

    /// Nothing was wrong from then until now.
    pub fn was_calm(&self, from: At, instances: usize) {
        let now = self.now();
        self.events().calm.push((from, now, instances as u64));
    }

    /// What has been recorded until now.
    pub fn so_far(&self) -> Events {
        self.events().clone()
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap()
    }
}
