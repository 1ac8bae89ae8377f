//! Pending revocations, which wait to be confirmed by the other instances.
//!
//! A revocation is recognized among the events by its nonce. Once this instance has applied it, the
//! revocation is checked each time that a report of this instance is answered:
//! - All members have reported the event: it is confirmed, if this instance has followed this Redis node for
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

use crate::{bus::event::Nonce, clock::Uptime, lease::LEASE_EXPIRY_BOUND, membership::Members};

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

/// What a revocation resolves to.
pub type Answer = Result<Acknowledged, Interrupted>;

struct Waiting {
    /// The serial number of the event, and when it was applied here.
    applied: Option<(u64, Uptime)>,
    /// One for each revocation in the event.
    answers: Vec<oneshot::Sender<Answer>>,
}

impl PendingRevocations {
    /// Begins to wait for the event with this nonce. To be called before the event is published, once for each
    /// revocation in it.
    pub fn begin(&self, nonce: Nonce) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        let mut waiting = self.waiting();
        let event = waiting.entry(nonce).or_insert(Waiting { applied: None, answers: Vec::new() });
        event.answers.push(answer);
        receiver
    }

    /// Records that the event with this nonce has been applied here.
    pub fn applied(&self, nonce: Nonce, serial: u64, now: Uptime) {
        if let Some(waiting) = self.waiting().get_mut(&nonce) {
            waiting.applied = Some((serial, now));
        }
    }

    /// Answers the revocations that are confirmed at `now`, when all members had reported `applied_by_all` to a Redis
    /// node that this instance has followed since `since`.
    pub fn settle(&self, applied_by_all: u64, members: &Members, since: Uptime, now: Uptime) {
        let mut waiting = self.waiting();
        let is_old = now.since(since) >= LEASE_EXPIRY_BOUND;
        let settled = waiting.extract_if(.., |_, waiting| {
            waiting.answers.iter().all(oneshot::Sender::is_closed)
                || waiting.applied.is_some_and(|(serial, applied)| {
                    serial <= applied_by_all && is_old || members.are_read_after_leases_of(applied)
                })
        });
        for (_, waiting) in settled {
            let Some((serial, _)) = waiting.applied else { continue };
            let acknowledged = if serial <= applied_by_all {
                let instances = members.count().try_into().unwrap_or(u32::MAX);
                Acknowledged { instances, acknowledged: instances }
            } else {
                let (instances, acknowledged) = members.applied(serial);
                Acknowledged { instances, acknowledged }
            };
            for answer in waiting.answers {
                let _ = answer.send(Ok(acknowledged));
            }
        }
    }

    /// Whether any revocation is waiting for the other instances.
    pub fn is_any_applied(&self) -> bool {
        self.waiting().values().any(|waiting| waiting.applied.is_some())
    }

    /// Whether instances that have not reported a revocation have no lease any more.
    pub fn is_any_overdue(&self, now: Uptime) -> bool {
        let applied = |waiting: &Waiting| waiting.applied.map(|(_, applied)| applied);
        self.waiting().values().filter_map(applied).any(|applied| now.since(applied) >= LEASE_EXPIRY_BOUND)
    }

    /// The lowest serial number above this one that a revocation waits for.
    pub fn next_above(&self, applied_by_all: u64) -> Option<u64> {
        let waiting = self.waiting();
        let serials = waiting.values().filter_map(|waiting| waiting.applied.map(|(serial, _)| serial));
        serials.filter(|serial| *serial > applied_by_all).min()
    }

    /// Interrupts all revocations, whose events may have been lost with the chain.
    pub fn interrupt(&self) {
        for waiting in mem::take(&mut *self.waiting()).into_values() {
            for answer in waiting.answers {
                let _ = answer.send(Err(Interrupted));
            }
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
    use crate::{
        bus::{Register, Reported},
        membership::Beats,
    };

    const SHORT: Duration = Duration::from_millis(5);

    /// A membership with one instance at each of these serial numbers, and the lowest of them.
    fn members(applied: &[u64], now: Uptime) -> (u64, Members) {
        let mut members = Members::default();
        let report = |applied: &u64| Reported { applied: *applied, beat: 1, partitions: 1 };
        let reports = applied.iter().map(report).enumerate().map(|(id, report)| (vec![id as u8], report));
        let register = Register { reports: reports.collect(), ..Register::default() };
        members.observe(register, &Beats::default(), now);
        (applied.iter().copied().min().unwrap_or_default(), members)
    }

    fn settle(pending: &PendingRevocations, applied: &[u64], since: Uptime, now: Uptime) {
        let (applied_by_all, members) = members(applied, now);
        pending.settle(applied_by_all, &members, since, now);
    }

    fn applied(pending: &PendingRevocations, now: Uptime) -> oneshot::Receiver<Answer> {
        let nonce = Nonce::random();
        let answer = pending.begin(nonce);
        assert!(!pending.is_any_applied());
        pending.applied(nonce, 5, now);
        answer
    }

    #[test]
    fn it_is_answered_once_everyone_has_applied_it() {
        let (pending, joined) = (PendingRevocations::default(), Uptime::after(Duration::from_secs(1000)));
        let now = joined.plus(LEASE_EXPIRY_BOUND);
        let mut answer = applied(&pending, now);
        settle(&pending, &[5, 4], joined, now);
        assert!(answer.try_recv().is_err() && pending.is_any_applied());
        assert_eq!((pending.next_above(4), pending.next_above(5)), (Some(5), None));
        settle(&pending, &[5, 6], joined, now);
        assert_eq!(answer.try_recv(), Ok(Ok(Acknowledged { instances: 2, acknowledged: 2 })));
        assert!(!pending.is_any_applied());
    }

    #[test]
    fn all_revocations_in_an_event_are_answered() {
        let (pending, joined) = (PendingRevocations::default(), Uptime::after(Duration::from_secs(1000)));
        let now = joined.plus(LEASE_EXPIRY_BOUND);
        let nonce = Nonce::random();
        let (mut first, gone, mut last) = (pending.begin(nonce), pending.begin(nonce), pending.begin(nonce));
        drop(gone);
        pending.applied(nonce, 5, now);
        settle(&pending, &[5], joined, now);
        for answer in [&mut first, &mut last] {
            assert_eq!(answer.try_recv(), Ok(Ok(Acknowledged { instances: 1, acknowledged: 1 })));
        }
    }

    #[test]
    fn a_lapsed_lease_is_as_good_as_an_acknowledgement() {
        let (pending, joined) = (PendingRevocations::default(), Uptime::after(Duration::from_secs(1000)));
        let now = joined.plus(LEASE_EXPIRY_BOUND);
        let mut answer = applied(&pending, now);
        let just_before = now.plus(LEASE_EXPIRY_BOUND - SHORT);
        settle(&pending, &[5, 4], joined, just_before);
        assert!(answer.try_recv().is_err() && !pending.is_any_overdue(just_before));
        let later = now.plus(LEASE_EXPIRY_BOUND);
        assert!(pending.is_any_overdue(later));
        settle(&pending, &[5, 4], joined, later);
        assert_eq!(answer.try_recv(), Ok(Ok(Acknowledged { instances: 2, acknowledged: 1 })));
    }

    #[test]
    fn the_register_of_a_server_that_is_new_to_us_does_not_count() {
        let (pending, joined) = (PendingRevocations::default(), Uptime::after(Duration::from_secs(1000)));
        let mut answer = applied(&pending, joined);
        settle(&pending, &[5], joined, joined.plus(LEASE_EXPIRY_BOUND - SHORT));
        assert!(answer.try_recv().is_err());
        settle(&pending, &[5], joined, joined.plus(LEASE_EXPIRY_BOUND));
        assert_eq!(answer.try_recv(), Ok(Ok(Acknowledged { instances: 1, acknowledged: 1 })));
    }

    #[test]
    fn what_was_not_applied_is_not_answered_until_the_chain_breaks() {
        let (pending, joined) = (PendingRevocations::default(), Uptime::after(Duration::from_secs(1000)));
        let mut answer = pending.begin(Nonce::random());
        settle(&pending, &[9], joined, joined.plus(LEASE_EXPIRY_BOUND * 10));
        assert!(answer.try_recv().is_err());
        pending.interrupt();
        assert_eq!(answer.try_recv(), Ok(Err(Interrupted)));
    }

    #[test]
    fn nobody_waits_for_a_request_that_is_gone() {
        let (pending, now) = (PendingRevocations::default(), Uptime::after(Duration::from_secs(1000)));
        drop(applied(&pending, now));
        settle(&pending, &[0], now, now);
        assert!(!pending.is_any_applied());
    }
}
