//! The membership: which instances are running, and how far each has applied the events, as observed by one
//! instance since it joined.
//!
//! An instance is a member before it holds a lease. One whose report has not changed for
//! [`LEASE_EXPIRY_BOUND`] has no lease left: it no longer counts, and is dropped.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    bus::event::Position, clock::Uptime, id::InstanceId, lease::LEASE_EXPIRY_BOUND,
    snapshot::CompletedRevocation,
};

/// The most recent revocations, the newest first.
pub type Recent = Arc<Mutex<Vec<CompletedRevocation>>>;

/// The report of an instance about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The name that its operator gave it.
    pub name: String,
    /// The position up to which it has applied the events.
    pub position: String,
    /// A counter that is incremented with each report, so that no two are the same.
    pub count: u64,
    /// The number of partitions to which it assigns the users.
    pub partitions: u16,
    /// The number of sessions in its mirror.
    pub sessions: usize,
    /// The most recent revocations that were requested on it.
    pub revocations: Vec<CompletedRevocation>,
}

/// An instance in the membership.
#[derive(Debug, Clone)]
pub struct Member {
    /// The raw report, compared to detect changes.
    text: Vec<u8>,
    /// When the report was last seen to change.
    since: Uptime,
    /// How many times the report has been seen to change.
    changes: u64,
    /// The parsed report; `None` if it cannot be parsed, so that nothing but the existence of the instance
    /// is known.
    pub report: Option<Report>,
}

impl Member {
    /// The time since the report was last seen to change.
    pub fn silence(&self, now: Uptime) -> Duration {
        now.since(self.since)
    }

    /// The name that its operator gave it.
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

/// The members of the cluster, by instance id.
#[derive(Debug, Clone, Default)]
pub struct Members(HashMap<Vec<u8>, Member>);

impl Members {
    /// Updates the members to the reports that were received at `now`, by instance id.
    pub fn observe(&mut self, reports: HashMap<Vec<u8>, Vec<u8>>, now: Uptime) {
        self.0.retain(|instance, _| reports.contains_key(instance));
        for (instance, text) in reports {
            let known = self.0.get(&instance);
            if known.is_none_or(|member| member.text != text) {
                let changes = known.map_or(0, |member| member.changes + 1);
                let report = serde_json::from_slice(&text).ok();
                self.0.insert(instance, Member { text, since: now, changes, report });
            }
        }
    }

    /// All members, by instance id.
    pub fn all(&self) -> impl Iterator<Item = (&[u8], &Member)> {
        self.0.iter().map(|(instance, member)| (instance.as_slice(), member))
    }

    pub fn has(&self, instance: &[u8]) -> bool {
        self.0.contains_key(instance)
    }

    /// The members that may still hold a lease.
    pub fn running(&self, now: Uptime) -> impl Iterator<Item = (&[u8], &Member)> {
        let running = self.0.iter().filter(move |(_, member)| !member.has_lapsed(now));
        running.map(|(instance, member)| (instance.as_slice(), member))
    }

    /// The members that cannot hold a lease any more, with their last reports.
    pub fn lapsed(&self, now: Uptime) -> Vec<(Vec<u8>, Vec<u8>)> {
        let lapsed = self.0.iter().filter(|(_, member)| member.has_lapsed(now));
        lapsed.map(|(instance, member)| (instance.clone(), member.text.clone())).collect()
    }

    /// The number of running members, and how many of them have applied the event at `position`.
    pub fn applied(&self, position: Position, now: Uptime) -> (u32, u32) {
        self.running(now).fold((0, 0), |(all, applied), (_, member)| {
            (all + 1, applied + u32::from(member.has_applied(position)))
        })
    }

    /// The name of a running instance whose number of partitions differs from `own`.
    pub fn with_other_partitions(&self, own: u16, now: Uptime) -> Option<&str> {
        let mut reports = self.running(now).filter_map(|(_, member)| member.report.as_ref());
        reports.find(|report| report.partitions != own).map(|report| report.name.as_str())
    }

    /// Whether another instance than `own` has the same name. It must have been seen to report at least
    /// twice more, because the report of an earlier run may be left over.
    pub fn has_namesake(&self, own: InstanceId, name: &str) -> bool {
        self.0.iter().any(|(instance, member)| {
            *instance != own.to_string().into_bytes()
                && member.changes >= 2
                && member.report.as_ref().is_some_and(|report| report.name == name)
        })
    }
}

/// How long a departed instance is still shown after its last report.
const DEPARTED_RETENTION: Duration = Duration::from_secs(30);

/// The longest time since the last report of an instance that left cleanly. One that is dropped has not
/// reported for longer than a lease, by the clock of the instance that drops it.
const CLEAN_LEAVE_WINDOW: Duration = Duration::from_millis(500);

#[derive(Default)]
pub struct RecentMembers {
    members: Members,
    silent: HashMap<Vec<u8>, Member>,
}

impl RecentMembers {
    /// Updates the members to those that were received at `now`.
    pub fn observe(&mut self, members: &Members, now: Uptime) {
        for (id, member) in self.members.all() {
            if !members.has(id) && member.silence(now) >= CLEAN_LEAVE_WINDOW {
                self.silent.insert(id.to_vec(), member.clone());
            }
        }
        // A restarted instance has a new id, but the same name.
        let is_back = |id: &[u8], gone: &Member| {
            members.has(id)
                || members.all().any(|(_, member)| member.name().is_some() && member.name() == gone.name())
        };
        self.silent.retain(|id, member| !is_back(id, member) && member.silence(now) < DEPARTED_RETENTION);
        self.members.clone_from(members);
    }

    /// The members that were received last.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// All instances to show, including departed ones, by instance id.
    pub fn all(&self) -> impl Iterator<Item = (&[u8], &Member)> {
        self.members.all().chain(self.silent.iter().map(|(id, member)| (id.as_slice(), member)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::LEASE;

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
        let (mut members, start) = (Members::default(), Uptime::after(Duration::from_secs(1000)));
        let position: Position = "5-0".parse().unwrap();
        members.observe(register(&[("a", report("5-0", 1)), ("b", report("4-9", 1))]), start);
        assert_eq!(members.applied(position, start), (2, 1));
        let later = start.plus(LEASE_EXPIRY_BOUND / 2);
        members.observe(register(&[("a", report("5-0", 2)), ("b", report("4-9", 1))]), later);
        assert_eq!(members.applied(position, later), (2, 1));
        assert!(members.lapsed(later).is_empty());
        let later = start.plus(LEASE_EXPIRY_BOUND);
        assert_eq!(members.applied(position, later), (1, 1), "the silent one has no lease any more");
        assert_eq!(members.lapsed(later), [(b"b".to_vec(), report("4-9", 1))]);
        members.observe(register(&[("a", report("5-0", 3))]), later);
        assert!(members.lapsed(later).is_empty());
    }

    #[test]
    fn who_cannot_be_read_counts_and_has_applied_nothing() {
        let (mut members, now) = (Members::default(), Uptime::after(Duration::from_secs(1000)));
        members.observe(register(&[("a", report("5-0", 1)), ("b", b"\xff".to_vec())]), now);
        assert_eq!(members.applied("1-0".parse().unwrap(), now), (2, 1));
        assert_eq!(members.applied("1-0".parse().unwrap(), now.plus(LEASE_EXPIRY_BOUND)), (0, 0));
    }

    #[test]
    fn a_namesake_is_one_that_reports_itself() {
        let (mut members, now, own) =
            (Members::default(), Uptime::after(Duration::from_secs(1000)), InstanceId::random());
        let me = own.to_string();
        for count in 0..3 {
            members.observe(register(&[(&me, report("1-0", count)), ("left behind", report("1-0", 0))]), now);
        }
        assert!(!members.has_namesake(own, "a"));
        for count in 0..3 {
            members.observe(register(&[("other", report("1-0", count))]), now);
        }
        assert!(members.has_namesake(own, "a") && !members.has_namesake(own, "b"));
    }

    fn members(names: &[(&str, &str)], now: Uptime) -> Members {
        let report = |name: &str| Report {
            name: name.to_owned(),
            position: "1-0".to_owned(),
            count: 1,
            partitions: 1,
            sessions: 0,
            revocations: Vec::new(),
        };
        let mut members = Members::default();
        let texts = names.iter().map(|(id, name)| {
            (id.as_bytes().to_vec(), serde_json::to_vec(&report(name)).unwrap_or_default())
        });
        members.observe(texts.collect(), now);
        members
    }

    fn seen(seen: &RecentMembers) -> Vec<&str> {
        let mut ids: Vec<_> = seen.all().filter_map(|(id, _)| std::str::from_utf8(id).ok()).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn who_falls_silent_is_shown_for_a_while() {
        let (mut all, start) = (RecentMembers::default(), Uptime::after(Duration::from_secs(1000)));
        all.observe(&members(&[("1", "a"), ("2", "b")], start), start);
        let dropped = start.plus(LEASE);
        all.observe(&members(&[("1", "a")], dropped), dropped);
        assert_eq!(seen(&all), ["1", "2"]);
        let later = start.plus(DEPARTED_RETENTION);
        all.observe(&members(&[("1", "a")], later), later);
        assert_eq!(seen(&all), ["1"]);
    }

    #[test]
    fn who_comes_back_is_shown_once() {
        for (id, what) in [("2", "it went on"), ("3", "it was started again")] {
            let (mut all, start) = (RecentMembers::default(), Uptime::after(Duration::from_secs(1000)));
            all.observe(&members(&[("1", "a"), ("2", "b")], start), start);
            let dropped = start.plus(LEASE);
            all.observe(&members(&[("1", "a")], dropped), dropped);
            all.observe(&members(&[("1", "a"), (id, "b")], dropped), dropped);
            assert_eq!(seen(&all), ["1", id], "{what}");
        }
    }

    #[test]
    fn who_leaves_is_gone_at_once() {
        let (mut all, start) = (RecentMembers::default(), Uptime::after(Duration::from_secs(1000)));
        all.observe(&members(&[("1", "a"), ("2", "b")], start), start);
        let left = start.plus(LEASE / 5);
        all.observe(&members(&[("1", "a")], left), left);
        assert_eq!(seen(&all), ["1"]);
    }
}
