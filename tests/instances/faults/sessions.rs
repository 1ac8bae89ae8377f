//! What the client knows of its sessions: their tokens, and whether they live.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fastrand::Rng;

use crate::faults::{caller::Pair, history::At};

/// A token is presented for a live session only while it has this much left.
const ENOUGH: Duration = Duration::from_secs(15);
/// How many access tokens of a session are remembered.
const TOKENS: usize = 4;

pub struct Session {
    pub number: usize,
    /// What the server calls it.
    pub id: String,
    pub user: usize,
    /// Held by whoever refreshes the session or ends it: a client does one at a time.
    pub refreshing: tokio::sync::Mutex<Refreshing>,
    access: Mutex<VecDeque<Access>>,
    /// The one that expires first.
    first: Access,
    /// Any refresh token of it.
    cookie: String,
}

pub struct Refreshing {
    /// None when nobody knows the current one any more.
    pub token: Option<String>,
    /// A session is not refreshed all the time: not before.
    pub rests_until: At,
    /// No other refresh before: one whose answer was not waited for may still be carried out, and would
    /// be taken for a thief's.
    pub not_before: At,
}

#[derive(Clone)]
pub struct Access {
    pub token: String,
    /// Until then it has certainly not expired.
    pub good_until: At,
    /// From then on it has.
    pub bad_from: At,
}

impl Session {
    pub fn new(number: usize, user: usize, pair: Pair) -> Self {
        Self {
            first: pair.access.clone(),
            cookie: pair.refresh.clone(),
            number,
            id: pair.session_id,
            user,
            refreshing: Refreshing { token: Some(pair.refresh), rests_until: At::ZERO, not_before: At::ZERO }
                .into(),
            access: Mutex::new([pair.access].into()),
        }
    }

    pub fn add(&self, access: Access) {
        let mut tokens = self.access.lock().unwrap();
        tokens.push_front(access);
        tokens.truncate(TOKENS);
    }

    pub fn newest(&self) -> Access {
        self.access.lock().unwrap()[0].clone()
    }

    pub fn first(&self) -> Access {
        self.first.clone()
    }

    pub fn cookie(&self) -> &str {
        &self.cookie
    }

    pub fn tokens(&self) -> Vec<Access> {
        self.access.lock().unwrap().iter().cloned().collect()
    }

    /// One of those that do not expire soon.
    pub fn any_good(&self, now: At, rng: &mut Rng) -> Option<Access> {
        let mut tokens = self.tokens();
        tokens.retain(|access| access.good_until > now + ENOUGH);
        rng.choice(tokens)
    }
}

/// All sessions that a log-in has begun, by what became of them.
#[derive(Default)]
pub struct Sessions(Mutex<Lists>);

#[derive(Default)]
pub struct Lists {
    pub live: Vec<Arc<Session>>,
    /// Somebody has tried to end them, and has not been told that they have ended.
    pub ending: Vec<Arc<Session>>,
    pub ended: Vec<Arc<Session>>,
}

impl Sessions {
    pub fn lists(&self) -> MutexGuard<'_, Lists> {
        self.0.lock().unwrap()
    }

    pub fn begin(&self, session: Session) -> Arc<Session> {
        let session = Arc::new(session);
        self.lists().live.push(Arc::clone(&session));
        session
    }

    /// The first try to end it is about to be sent.
    pub fn set_ending(&self, session: &Arc<Session>) {
        let mut lists = self.lists();
        if take(&mut lists.live, session) {
            lists.ending.push(Arc::clone(session));
        }
    }

    /// It has ended, and we have been told so.
    pub fn set_ended(&self, session: &Arc<Session>) {
        let mut lists = self.lists();
        if take(&mut lists.live, session) | take(&mut lists.ending, session) {
            lists.ended.push(Arc::clone(session));
        }
    }

    /// The one that should be refreshed next: one whose newest token is the oldest of all.
    pub fn to_refresh(&self, now: At) -> Option<Arc<Session>> {
        let lists = self.lists();
        let is_free = |session: &&Arc<Session>| {
            let refreshing = session.refreshing.try_lock();
            let is_due = |state: &Refreshing| state.not_before.max(state.rests_until) <= now;
            refreshing.is_ok_and(|state| state.token.is_some() && is_due(&state))
        };
        let free = lists.live.iter().filter(is_free);
        free.min_by_key(|session| session.newest().good_until).cloned()
    }

    /// From when on each of these may be refreshed.
    pub async fn all_quiet_at(&self) -> At {
        let sessions: Vec<_> = {
            let lists = self.lists();
            lists.live.iter().chain(&lists.ending).chain(&lists.ended).cloned().collect()
        };
        let mut quiet = At::ZERO;
        for session in sessions {
            quiet = quiet.max(session.refreshing.lock().await.not_before);
        }
        quiet
    }

    pub fn of_user(&self, user: usize) -> Vec<Arc<Session>> {
        self.lists().live.iter().filter(|session| session.user == user).cloned().collect()
    }
}

fn take(list: &mut Vec<Arc<Session>>, session: &Arc<Session>) -> bool {
    let place = list.iter().position(|other| Arc::ptr_eq(other, session));
    place.map(|place| list.swap_remove(place)).is_some()
}
