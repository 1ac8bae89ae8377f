//! Pending revocations, which wait to be confirmed by the other instances.
//!
//! A revocation is recognized among the events by its nonce. Once this instance has applied it, the
//! revocation is checked each time that the membership is received:
//! - All members have applied the event: it is confirmed, if this instance has followed this Redis node for
//!   longer than a lease. The membership of a node that has just lost its data may lack an instance that
//!   still holds a lease from before.
//! - A whole lease has passed since then: instances that have not applied the event have no lease any more,
//!   so it is confirmed.
//! - The chain was broken: the event may be lost, and has to be published again.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::{
    bus::event::{Nonce, Position},
    clock::Uptime,
    lease::LEASE_EXPIRY_BOUND,
    membership::Members,
};

/// The instances that have confirmed a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// The number of instances that were running.
    pub instances: u32,
    /// The number of them that have applied the revocation.
    pub acknowledged: u32,
}

/// The chain to which the event was published is no longer followed.
#[derive(Debug, PartialEq, Eq)]
pub struct Interrupted;

#[derive(Default)]
pub struct PendingRevocations {
    /// Never locked across an `await`.
    waiting: Mutex<BTreeMap<Nonce, Waiting>>,
}

struct Waiting {
    /// The position of the event, and when it was applied here.
    applied: Option<(Position, Uptime)>,
    answer: oneshot::Sender<Result<Acknowledged, Interrupted>>,
}

impl PendingRevocations {
    /// Begins to wait for the event with this nonce. To be called before the event is published.
    pub fn begin(&self, nonce: Nonce) -> oneshot::Receiver<Result<Acknowledged, Interrupted>> {
        let (answer, receiver) = oneshot::channel();
        self.waiting().insert(nonce, Waiting { applied: None, answer });
        receiver
    }

    /// Records that the event with this nonce has been applied here.
    pub fn applied(&self, nonce: Nonce, position: Position, now: Uptime) {
        if let Some(waiting) = self.waiting().get_mut(&nonce) {
            waiting.applied = Some((position, now));
        }
    }

    /// Answers the revocations that are confirmed by the reports of `members` at `now`, from a Redis node
    /// that this instance has followed since `since`.
    pub fn settle(&self, members: &Members, since: Uptime, now: Uptime) {
        let mut waiting = self.waiting();
        let settled = waiting.extract_if(.., |_, waiting| {
            waiting.answer.is_closed()
                || waiting.applied.is_some_and(|(position, applied)| {
                    let (instances, acknowledged) = members.applied(position, now);
                    let all = acknowledged == instances && now.since(since) >= LEASE_EXPIRY_BOUND;
                    all || now.since(applied) >= LEASE_EXPIRY_BOUND
                })
        });
        for (_, waiting) in settled {
            if let Some((position, _)) = waiting.applied {
                let (instances, acknowledged) = members.applied(position, now);
                let _ = waiting.answer.send(Ok(Acknowledged { instances, acknowledged }));
            }
        }
    }

    /// Whether any revocation is waiting for the other instances.
    pub fn is_any_applied(&self) -> bool {
        self.waiting().values().any(|waiting| waiting.applied.is_some())
    }

    /// Answers all pending revocations with [`Interrupted`].
    pub fn interrupt(&self) {
        for (_, waiting) in mem::take(&mut *self.waiting()) {
            let _ = waiting.answer.send(Err(Interrupted));
        }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<Nonce, Waiting>> {
        // Each critical section leaves the map consistent at every step, so a panic in one does no harm.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::membership::Report;

    const SHORT: Duration = Duration::from_millis(5);

    /// A membership with one instance at each of these positions.
    fn members(positions: &[&str], now: Uptime) -> Members {
        let mut members = Members::default();
        let reports = positions.iter().enumerate().map(|(index, position)| {
            let report = Report {
                name: index.to_string(),
                position: (*position).to_owned(),
                count: 0,
                partitions: 1,
                sessions: 0,
                revocations: Vec::new(),
            };
            (vec![index as u8], serde_json::to_vec(&report).unwrap())
        });
        members.observe(reports.collect(), now);
        members
    }

    fn applied(
        pending: &PendingRevocations,
        now: Uptime,
    ) -> oneshot::Receiver<Result<Acknowledged, Interrupted>> {
        let nonce = Nonce::random();
        let answer = pending.begin(nonce);
        assert!(!pending.is_any_applied());
        pending.applied(nonce, "5-0".parse().unwrap(), now);
        answer
    }

    #[test]
    fn it_is_answered_once_everyone_has_applied_it() {
        let (pending, joined) = (PendingRevocations::default(), Uptime::after(Duration::from_secs(1000)));
        let now = joined.plus(LEASE_EXPIRY_BOUND);
        let mut answer = applied(&pending, now);
        pending.settle(&members(&["5-0", "4-0"], now), joined, now);
        assert!(answer.try_recv().is_err() && pending.is_any_applied());
        pending.settle(&members(&["5-0", "6-0"], now), joined, now);
        assert_eq!(answer.try_recv(), Ok(Ok(Acknowledged { instances: 2, acknowledged: 2 })));
        assert!(!pending.is_any_applied());
    }

    #[test]
    fn a_lapsed_lease_is_as_good_as_an_acknowledgement() {
        let (pending, joined) = (PendingRevocations::default(), Uptime::after(Duration::from_secs(1000)));
        let now = joined.plus(LEASE_EXPIRY_BOUND);
        let mut answer = applied(&pending, now);
        let just_before = now.plus(LEASE_EXPIRY_BOUND - SHORT);
        pending.settle(&members(&["5-0", "4-0"], just_before), joined, just_before);
        assert!(answer.try_recv().is_err());
        let later = now.plus(LEASE_EXPIRY_BOUND);
        pending.settle(&members(&["5-0", "4-0"], later), joined, later);
        assert_eq!(answer.try_recv(), Ok(Ok(Acknowledged { instances: 2, acknowledged: 1 })));
    }

    #[test]
    fn the_register_of_a_server_that_is_new_to_us_does_not_count() {
        let (pending, joined) = (PendingRevocations::default(), Uptime::after(Duration::from_secs(1000)));
        let mut answer = applied(&pending, joined);
        let just_before = joined.plus(LEASE_EXPIRY_BOUND - SHORT);
        pending.settle(&members(&["5-0"], just_before), joined, just_before);
        assert!(answer.try_recv().is_err());
        let later = joined.plus(LEASE_EXPIRY_BOUND);
        pending.settle(&members(&["5-0"], later), joined, later);
        assert_eq!(answer.try_recv(), Ok(Ok(Acknowledged { instances: 1, acknowledged: 1 })));
    }

    #[test]
    fn what_was_not_applied_is_not_answered_until_the_chain_breaks() {
        let (pending, joined) = (PendingRevocations::default(), Uptime::after(Duration::from_secs(1000)));
        let mut answer = pending.begin(Nonce::random());
        let later = joined.plus(LEASE_EXPIRY_BOUND * 10);
        pending.settle(&members(&[], later), joined, later);
        assert!(answer.try_recv().is_err());
        pending.interrupt();
        assert_eq!(answer.try_recv(), Ok(Err(Interrupted)));
    }

    #[test]
    fn nobody_waits_for_a_request_that_is_gone() {
        let (pending, now) = (PendingRevocations::default(), Uptime::after(Duration::from_secs(1000)));
        drop(applied(&pending, now));
        pending.settle(&Members::default(), now, now);
        assert!(!pending.is_any_applied());
    }
}
