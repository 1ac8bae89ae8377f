//! Who is running, and how far each has followed the events: the register, as one instance has
//! watched it since it joined.
//!
//! An instance is in the register from the moment it may trust its mirror. One whose report has
//! not changed for as long as a lease takes to lapse has no lease left: it does not count any
//! more, and is dropped.

use std::{collections::HashMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    event::Position,
    lease::{LEASE_EXPIRY_BOUND, Uptime},
};
use crate::{api::types::RecentRevocation, server::ids::InstanceId};

/// What an instance tells the others about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// What its operator calls it.
    pub name: String,
    /// Up to where it has applied the events.
    pub position: String,
    /// Goes up by one each time, so that no two reports are the same.
    pub count: u64,
    /// How many partitions it deals the users out to.
    pub partitions: u16,
    /// How many sessions its mirror knows.
    pub sessions: usize,
    /// Those it has asked for last.
    pub revocations: Vec<RecentRevocation>,
}

/// An instance in the register.
#[derive(Debug, Clone)]
pub struct Peer {
    /// As it stands there.
    text: Vec<u8>,
    /// Since when it has not changed.
    since: Uptime,
    /// How often it has.
    changes: u64,
    /// `None` if it cannot be read: then it is known only that there is someone.
    pub report: Option<Report>,
}

impl Peer {
    /// How long ago it was seen to report.
    pub fn silence(&self, now: Uptime) -> Duration {
        now.since(self.since)
    }

    /// What its operator calls it.
    pub fn name(&self) -> Option<&str> {
        self.report.as_ref().map(|report| report.name.as_str())
    }

    fn has_lapsed(&self, now: Uptime) -> bool {
        self.silence(now) >= LEASE_EXPIRY_BOUND
    }

    fn has_applied(&self, position: Position) -> bool {
        let reported = self.report.as_ref().and_then(|report| report.position.parse::<Position>().ok());
        reported.is_some_and(|reported| reported >= position)
    }
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub struct Peers(HashMap<Vec<u8>, Peer>);

impl Peers {
    /// Takes in the reports as they were answered at `now`, by the instance's id.
    pub fn observe(&mut self, reports: HashMap<Vec<u8>, Vec<u8>>, now: Uptime) {
        self.0.retain(|instance, _| reports.contains_key(instance));
        for (instance, text) in reports {
            let known = self.0.get(&instance);
            if known.is_none_or(|peer| peer.text != text) {
                let changes = known.map_or(0, |peer| peer.changes + 1);
                let report = serde_json::from_slice(&text).ok();
                self.0.insert(instance, Peer { text, since: now, changes, report });
            }
        }
    }

    /// Everyone in the register, by their ids.
    pub fn all(&self) -> impl Iterator<Item = (&[u8], &Peer)> {
        self.0.iter().map(|(instance, peer)| (instance.as_slice(), peer))
    }

    pub fn has(&self, instance: &[u8]) -> bool {
        self.0.contains_key(instance)
    }

    /// Those who may still trust their mirrors.
    pub fn running(&self, now: Uptime) -> impl Iterator<Item = (&[u8], &Peer)> {
        let running = self.0.iter().filter(move |(_, peer)| !peer.has_lapsed(now));
        running.map(|(instance, peer)| (instance.as_slice(), peer))
    }

    /// Those who may not, as they were last seen.
    pub fn lapsed(&self, now: Uptime) -> Vec<(Vec<u8>, Vec<u8>)> {
        let lapsed = self.0.iter().filter(|(_, peer)| peer.has_lapsed(now));
        lapsed.map(|(instance, peer)| (instance.clone(), peer.text.clone())).collect()
    }

    /// How many are running, and how many of them have applied the event at `position`.
    pub fn applied(&self, position: Position, now: Uptime) -> (u32, u32) {
        self.running(now).fold((0, 0), |(all, applied), (_, peer)| {
            (all + 1, applied + u32::from(peer.has_applied(position)))
        })
    }

    /// The name of a running instance that deals users out to another number of partitions than `own`.
    pub fn with_other_partitions(&self, own: u16, now: Uptime) -> Option<&str> {
        let mut reports = self.running(now).filter_map(|(_, peer)| peer.report.as_ref());
        reports.find(|report| report.partitions != own).map(|report| report.name.as_str())
    }

    /// Whether another instance than `own` goes by this name, too: seen to report twice, so that
    /// it is not what is left of an earlier run.
    pub fn has_namesake(&self, own: InstanceId, name: &str) -> bool {
        self.0.iter().any(|(instance, peer)| {
            *instance != own.to_string().into_bytes()
                && peer.changes >= 2
                && peer.report.as_ref().is_some_and(|report| report.name == name)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(position: &str, count: u64) -> Vec<u8> {
        let (name, position) = ("a".to_owned(), position.to_owned());
        serde_json::to_vec(&Report {
            name,
            position,
            count,
            partitions: 1,
            sessions: 0,
            revocations: Vec::new(),
        })
        .unwrap()
    }

    fn register(reports: &[(&str, Vec<u8>)]) -> HashMap<Vec<u8>, Vec<u8>> {
        reports.iter().map(|(instance, text)| (instance.as_bytes().to_vec(), text.clone())).collect()
    }

    #[test]
    fn all_count_until_they_have_applied_or_lapsed() {
        let (mut peers, start) = (Peers::default(), Uptime::now());
        let position: Position = "5-0".parse().unwrap();
        peers.observe(register(&[("a", report("5-0", 1)), ("b", report("4-9", 1))]), start);
        assert_eq!(peers.applied(position, start), (2, 1));
        let later = start.plus(LEASE_EXPIRY_BOUND / 2);
        peers.observe(register(&[("a", report("5-0", 2)), ("b", report("4-9", 1))]), later);
        assert_eq!(peers.applied(position, later), (2, 1));
        assert!(peers.lapsed(later).is_empty());
        let later = start.plus(LEASE_EXPIRY_BOUND);
        assert_eq!(peers.applied(position, later), (1, 1), "the silent one has no lease any more");
        assert_eq!(peers.lapsed(later), [(b"b".to_vec(), report("4-9", 1))]);
        peers.observe(register(&[("a", report("5-0", 3))]), later);
        assert!(peers.lapsed(later).is_empty());
    }

    #[test]
    fn who_cannot_be_read_counts_and_has_applied_nothing() {
        let (mut peers, now) = (Peers::default(), Uptime::now());
        peers.observe(register(&[("a", report("5-0", 1)), ("b", b"\xff".to_vec())]), now);
        assert_eq!(peers.applied("1-0".parse().unwrap(), now), (2, 1));
        assert_eq!(peers.applied("1-0".parse().unwrap(), now.plus(LEASE_EXPIRY_BOUND)), (0, 0));
    }

    #[test]
    fn a_namesake_is_one_that_reports_itself() {
        let (mut peers, now, own) = (Peers::default(), Uptime::now(), InstanceId::random());
        let me = own.to_string();
        for count in 0..3 {
            peers.observe(register(&[(&me, report("1-0", count)), ("left behind", report("1-0", 0))]), now);
        }
        assert!(!peers.has_namesake(own, "a"));
        for count in 0..3 {
            peers.observe(register(&[("other", report("1-0", count))]), now);
        }
        assert!(peers.has_namesake(own, "a") && !peers.has_namesake(own, "b"));
    }
}
