//! The accounts that the load has made.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use fastrand::Rng;

/// Sessions of these accounts are ended.
const BUSY: usize = 6;
/// Sessions of these are not: they have to outlive every fault.
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
    /// The numbers of the passwords of those that have changed theirs.
    passwords: HashMap<usize, usize>,
}

impl Users {
    /// The number of an account that nobody has tried to register before: after a try without an
    /// answer nobody knows whether it exists.
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

    /// The number of the last password that the server is known to have taken over.
    pub fn password(&self, user: usize) -> usize {
        self.lists.lock().unwrap().passwords.get(&user).copied().unwrap_or(0)
    }

    pub fn set_password(&self, user: usize, number: usize) {
        self.lists.lock().unwrap().passwords.insert(user, number);
    }

    /// Nobody logs in to this account any more.
    pub fn retire(&self, user: usize) {
        self.lists.lock().unwrap().busy.retain(|other| *other != user);
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
