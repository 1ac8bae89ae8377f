//! The queue of jobs for the password workers: first come, first served. When it is full, the share with
//! the most jobs loses its last one, so that a flood of logins from one network, or to one account, leaves
//! room for the logins of others.
//!
//! Only `password.rs` calls this.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Condvar, Mutex, PoisonError},
};

use ipnet::IpNet;

use crate::server::{db::users::Email, ids::UserId};

/// The number of started jobs that still count toward their share. Without them, shares with one job each
/// would be equal, however often they return.
const RECENT_JOBS: usize = 64;

/// The unit of fairness between jobs: a network and, within it, an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Share {
    network: String,
    account: String,
}

impl Share {
    /// The share of a login from a network
    /// ([`ClientInfo::rate_limit_prefix`](crate::server::client_info::ClientInfo::rate_limit_prefix)) to an
    /// account.
    pub fn of(network: IpNet, account: &Email) -> Self {
        Self { network: network.to_string(), account: account.as_str().to_owned() }
    }

    /// The share of a user who is signed in, from any network.
    pub fn of_user(user_id: UserId) -> Self {
        Self { network: user_id.to_string(), account: String::new() }
    }
}

/// The queue of jobs. Dropping a job closes its channel, which notifies the request that waits for it.
pub struct Queue<Job> {
    state: Mutex<State<Job>>,
    changed: Condvar,
    capacity: usize,
}

struct State<Job> {
    waiting: VecDeque<(Share, Job)>,
    started: VecDeque<Share>,
    idle_workers: usize,
    is_closed: bool,
}

impl<Job> Queue<Job> {
    /// Makes a queue with room for `capacity` jobs in addition to one for each idle worker.
    pub fn new(capacity: usize) -> Self {
        let state =
            State { waiting: VecDeque::new(), started: VecDeque::new(), idle_workers: 0, is_closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), capacity }
    }

    /// Adds a job. If there is no room, the last job of the share with the most jobs is dropped, or this
    /// job if no other share has more.
    pub fn push(&self, share: Share, job: Job) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.waiting.len() >= self.capacity + state.idle_workers {
            match state.heaviest(&share) {
                Some(place) => drop(state.waiting.remove(place)),
                None => return,
            }
        }
        state.waiting.push_back((share, job));
        self.changed.notify_one();
    }

    /// Waits for the next job; `None` once the queue is closed.
    pub fn next(&self) -> Option<Job> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.is_closed {
                return None;
            }
            if let Some((share, job)) = state.waiting.pop_front() {
                state.started.push_back(share);
                if state.started.len() > RECENT_JOBS {
                    state.started.pop_front();
                }
                return Some(job);
            }
            state.idle_workers += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle_workers -= 1;
        }
    }

    /// Stops the workers once they have finished their current jobs.
    pub fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        self.changed.notify_all();
    }
}

impl<Job> State<Job> {
    /// The index of the last job of the share with the most jobs; `None` if no share has more than `new`.
    fn heaviest(&self, new: &Share) -> Option<usize> {
        let mut networks: HashMap<&str, usize> = HashMap::new();
        let mut accounts: HashMap<&Share, usize> = HashMap::new();
        let waiting = self.waiting.iter().map(|(share, _)| share);
        for share in waiting.clone().chain(&self.started).chain([new]) {
            *networks.entry(&share.network).or_default() += 1;
            *accounts.entry(share).or_default() += 1;
        }
        let weight = |share: &Share| (networks[share.network.as_str()], accounts[share]);
        // `max_by_key` returns the last of several maxima.
        let heaviest = waiting.enumerate().max_by_key(|(_, share)| weight(share));
        heaviest.filter(|(_, share)| weight(share) > weight(new)).map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(network: &str, account: &str) -> Share {
        let network = format!("{network}/32").parse().unwrap();
        Share::of(network, &Email::parse(&format!("{account}@example.com")).unwrap())
    }

    const ATTACKERS: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
    const VICTIM: &str = "198.51.100.1";

    fn waiting(queue: &Queue<usize>) -> Vec<usize> {
        queue.state.lock().unwrap().waiting.iter().map(|(_, job)| *job).collect()
    }

    #[test]
    fn flood_from_a_few_networks_leaves_room_for_others() {
        let queue = Queue::new(4);
        for job in 0..100 {
            queue.push(share(ATTACKERS[job % 2], &format!("mallory{job}")), job);
        }
        queue.push(share(VICTIM, "ann"), 1000);
        for job in 100..200 {
            queue.push(share(ATTACKERS[job % 2], &format!("mallory{job}")), job);
        }
        assert_eq!(waiting(&queue).len(), 4);
        let mut next = std::iter::from_fn(|| queue.next());
        assert!(next.by_ref().take(4).any(|job| job == 1000));
    }

    /// There is room for one job of each network, so all weigh the same except for those that keep coming.
    #[test]
    fn flood_from_as_many_networks_as_there_is_room_leaves_room_for_others() {
        let queue = Queue::new(4);
        let attack = |job: usize| queue.push(share(&format!("192.0.2.{}", job % 8), "mallory"), job);
        for job in 0..100 {
            attack(job);
            if job % 2 == 0 {
                queue.next();
            }
        }
        (100..200).for_each(attack);
        queue.push(share(VICTIM, "ann"), 1000);
        (200..300).for_each(attack);
        assert!(waiting(&queue).contains(&1000));
    }

    #[test]
    fn flood_at_one_account_leaves_room_for_the_others_of_its_network() {
        let queue = Queue::new(4);
        (0..100).for_each(|job| queue.push(share(VICTIM, "mallory"), job));
        queue.push(share(VICTIM, "ann"), 1000);
        (100..200).for_each(|job| queue.push(share(VICTIM, "mallory"), job));
        assert_eq!(waiting(&queue), [0, 1, 2, 1000]);
    }

    #[test]
    fn network_that_is_alone_has_all_of_the_room() {
        let queue = Queue::new(4);
        (0..4).for_each(|job| queue.push(share(VICTIM, &format!("user{job}")), job));
        assert_eq!(waiting(&queue), [0, 1, 2, 3]);
    }

    #[test]
    fn closed_queue_has_no_next_job() {
        let queue = Queue::<usize>::new(4);
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| queue.next());
            queue.close();
            assert_eq!(worker.join().unwrap(), None);
        });
    }
}
