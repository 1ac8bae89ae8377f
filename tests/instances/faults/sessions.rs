//! The client's knowledge of its sessions: their tokens, and whether they are live.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fastrand::Rng;

use crate::faults::{caller::Pair, history::At};

/// The remaining lifetime that a token needs to be presented for a live session.
const ENOUGH: Duration = Duration::from_secs(15);
/// The number of access tokens that are kept for each session.
const TOKENS: usize = 4;

pub struct Session {
    pub number: usize,
    /// The id that the server gave the session.
    pub id: String,
    pub user: usize,
    /// Locked while the session is refreshed or ended: a client does one at a time.
    pub refreshing: tokio::sync::Mutex<Refreshing>,
    access: Mutex<VecDeque<Access>>,
    /// The access token that expires first.
    first: Access,
    /// Any refresh token of the session.
    cookie: String,
}

pub struct Refreshing {
    /// `None` if the current refresh token is unknown.
    pub token: Option<String>,
    /// The pause between two refreshes: none before this time.
    pub rests_until: At,
    /// No other refresh before this time: one that was not waited for may still be carried out, and would
    /// look like reuse.
    pub not_before: At,
}

#[derive(Clone)]
pub struct Access {
    pub token: String,
    /// Until this time the token has certainly not expired.
    pub good_until: At,
    /// From this time on the token has certainly expired.
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

    /// A random token that does not expire soon.
    pub fn any_good(&self, now: At, rng: &mut Rng) -> Option<Access> {
        let mut tokens = self.tokens();
        tokens.retain(|access| access.good_until > now + ENOUGH);
        rng.choice(tokens)
    }
}

/// All sessions that a login has begun, by their state.
#[derive(Default)]
pub struct Sessions(Mutex<Lists>);

#[derive(Default)]
pub struct Lists {
    pub live: Vec<Arc<Session>>,
    /// Sessions that a call was to end, without a confirmation so far.
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

    /// Marks the session before the first call that is to end it.
    pub fn set_ending(&self, session: &Arc<Session>) {
        let mut lists = self.lists();
        if take(&mut lists.live, session) {
            lists.ending.push(Arc::clone(session));
        }
    }

    /// Marks the session after its end has been confirmed.
    pub fn set_ended(&self, session: &Arc<Session>) {
        let mut lists = self.lists();
        if take(&mut lists.live, session) | take(&mut lists.ending, session) {
            lists.ended.push(Arc::clone(session));
        }
    }

    /// The session to refresh next: the one whose newest token is the oldest of all.
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

    /// The time from which every session may be refreshed.
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
