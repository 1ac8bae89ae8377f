//! The accounts that the load has created.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use fastrand::Rng;

/// The number of accounts whose sessions are ended.
const BUSY: usize = 6;
/// The number of accounts whose sessions are never ended: they have to survive every fault.
const QUIET: usize = 3;

#[derive(Default)]
pub struct Users {
    count: AtomicUsize,
    lists: Mutex<Lists>,
}

#[derive(Default)]
struct Lists {
    busy: Vec<usize>,
    quiet: Vec<usize>,
    /// The numbers of the current passwords, for users that have changed theirs.
    passwords: HashMap<usize, usize>,
}

impl Users {
    /// A number that no registration has used before: an unanswered registration may have created the
    /// account.
    pub fn new_number(&self) -> usize {
        self.count.fetch_add(1, Ordering::Relaxed)
    }

    pub fn are_too_few(&self) -> bool {
        let lists = self.lists.lock().unwrap();
        lists.busy.len() < BUSY || lists.quiet.len() < QUIET
    }

    pub fn add(&self, user: usize) {
        let mut lists = self.lists.lock().unwrap();
        if lists.quiet.len() < QUIET { lists.quiet.push(user) } else { lists.busy.push(user) }
    }

    /// The number of the last password whose change was confirmed.
    pub fn password(&self, user: usize) -> usize {
        self.lists.lock().unwrap().passwords.get(&user).copied().unwrap_or(0)
    }

    pub fn set_password(&self, user: usize, number: usize) {
        self.lists.lock().unwrap().passwords.insert(user, number);
    }

    /// Stops using the account for logins. Returns whether it was in use.
    pub fn retire(&self, user: usize) -> bool {
        let busy = &mut self.lists.lock().unwrap().busy;
        let place = busy.iter().position(|other| *other == user);
        place.map(|place| busy.swap_remove(place)).is_some()
    }

    pub fn any_busy(&self, rng: &mut Rng) -> Option<usize> {
        rng.choice(&self.lists.lock().unwrap().busy).copied()
    }

    pub fn any_quiet(&self, rng: &mut Rng) -> Option<usize> {
        rng.choice(&self.lists.lock().unwrap().quiet).copied()
    }

    pub fn is_quiet(&self, user: usize) -> bool {
        self.lists.lock().unwrap().quiet.contains(&user)
    }
}
