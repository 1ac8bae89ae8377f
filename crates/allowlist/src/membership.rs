//! The membership: which instances are running, and how far each has applied the events, as one instance read it
//! last.
//!
//! An instance is a member before it holds a lease. Each report gets a *beat* that is higher than those of all
//! reports before it. A member whose beat is below one that this instance got [`LEASE_EXPIRY_BOUND`] ago has not
//! reported since, so it has no lease left: it no longer counts, and is removed.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    bus::{Register, Reported},
    clock::Uptime,
    id::InstanceId,
    lease::LEASE_EXPIRY_BOUND,
    snapshot::{CompletedRevocation, MemberKind},
};

/// The most recent revocations, the newest first.
pub type Recent = Arc<Mutex<Vec<CompletedRevocation>>>;

/// What an instance shows of itself. Only displays and warnings depend on it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Profile {
    /// The name that its operator gave it.
    pub name: String,
    /// What it does; an earlier version does not say it.
    #[serde(default)]
    pub kind: MemberKind,
    /// The number of sessions in its mirror.
    pub sessions: usize,
    /// The most recent revocations that were requested on it.
    pub revocations: Vec<CompletedRevocation>,
}

/// The time between two beats that are remembered.
const BEAT_SPACING: Duration = Duration::from_millis(50);

/// The beats of this instance's own reports in one epoch, and when each was received.
#[derive(Default)]
pub struct Beats(VecDeque<(u64, Uptime)>);

impl Beats {
    /// Remembers a beat that was received at `now`.
    pub fn record(&mut self, beat: u64, now: Uptime) {
        if self.0.back().is_none_or(|(_, last)| now.since(*last) >= BEAT_SPACING) {
            self.0.push_back((beat, now));
        }
        while self.0.get(1).is_some_and(|(_, at)| now.since(*at) >= LEASE_EXPIRY_BOUND) {
            self.0.pop_front();
        }
    }

    /// The beat below which members have lapsed.
    pub fn lapsed_below(&self, now: Uptime) -> Option<u64> {
        let old = self.0.iter().rev().find(|(_, at)| now.since(*at) >= LEASE_EXPIRY_BOUND);
        old.map(|(beat, _)| *beat)
    }

    /// For how long a member has not reported, whose last report got this beat.
    fn silence(&self, beat: u64, now: Uptime) -> Duration {
        let missed = self.0.iter().find(|(own, _)| *own > beat);
        missed.map_or(Duration::ZERO, |(_, at)| now.since(*at))
    }
}

/// An instance in the membership.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its last report.
    pub reported: Reported,
    /// How long it had not reported when the membership was read.
    pub silence: Duration,
    /// How many times it was seen to have reported again.
    changes: u64,
    /// What it shows of itself; `None` if that cannot be read, so that nothing but its existence is known.
    pub profile: Option<Profile>,
}

impl Member {
    /// The name that its operator gave it.
    fn name(&self) -> Option<&str> {
        self.profile.as_ref().map(|profile| profile.name.as_str())
    }
}

/// An instance whose profile is left, and which is not a member.
#[derive(Debug)]
struct Departed {
    /// The instance as it was; `None` if it was gone before this instance joined.
    member: Option<Member>,
    since: Uptime,
}

/// How long a departed instance is still shown.
const DEPARTED_RETENTION: Duration = Duration::from_secs(30);

/// The members of the cluster by instance id, and instances that have departed silently.
#[derive(Debug, Default)]
pub struct Members {
    members: HashMap<Vec<u8>, Member>,
    departed: HashMap<Vec<u8>, Departed>,
    /// When the membership was read.
    read: Option<Uptime>,
}

impl Members {
    /// Updates the members to the register that was received at `now`.
    pub fn observe(&mut self, register: Register, beats: &Beats, now: Uptime) {
        let Register { reports, profiles } = register;
        self.read = Some(now);
        let mut before = std::mem::take(&mut self.members);
        for (instance, reported) in reports {
            let changes = before
                .remove(&instance)
                .map_or(0, |member| member.changes + u64::from(member.reported.beat != reported.beat));
            let silence = beats.silence(reported.beat, now);
            let profile = profiles.get(&instance).and_then(|text| serde_json::from_slice(text).ok());
            self.members.insert(instance, Member { reported, silence, changes, profile });
        }
        // An instance that stops removes its profile.
        self.departed.retain(|instance, _| profiles.contains_key(instance));
        for instance in profiles.into_keys() {
            if self.members.contains_key(&instance) {
                self.departed.remove(&instance);
            } else {
                let member = before.remove(&instance);
                self.departed.entry(instance).or_insert(Departed { member, since: now });
            }
        }
    }

    /// The number of members.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// The members that may still have held a lease when the membership was read.
    fn running(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.silence < LEASE_EXPIRY_BOUND)
    }

    /// The number of running members, and how many of them have applied the event with this serial number.
    pub fn applied(&self, serial: u64) -> (u32, u32) {
        self.running().fold((0, 0), |(all, applied), member| {
            (all + 1, applied + u32::from(member.reported.applied >= serial))
        })
    }

    /// The name of a running instance whose number of partitions differs from `own`.
    pub fn with_other_partitions(&self, own: u16) -> Option<String> {
        let other = self.running().find(|member| member.reported.partitions != own)?;
        Some(other.name().unwrap_or("of unknown name").to_owned())
    }

    /// Whether another instance than `own` has the same name. `None` if that is uncertain, because it may be left
    /// over from an earlier run: it must be seen to report twice more.
    pub fn has_namesake(&self, own: InstanceId, name: &str) -> Option<bool> {
        let own = own.to_string();
        let namesakes = self
            .members
            .iter()
            .filter(|(instance, member)| *instance != own.as_bytes() && member.name() == Some(name));
        match namesakes.map(|(_, member)| member.changes).max() {
            None => Some(false),
            Some(2..) => Some(true),
            Some(_) => None,
        }
    }

    /// Forgets the departed instances that need not be shown any more, and returns them.
    pub fn forget_departed(&mut self, now: Uptime) -> Vec<Vec<u8>> {
        let old = self.departed.extract_if(|_, departed| now.since(departed.since) >= DEPARTED_RETENTION);
        old.map(|(instance, _)| instance).collect()
    }

    /// Whether the membership was read when every lease had expired that was granted before `then`.
    pub fn are_read_after_leases_of(&self, then: Uptime) -> bool {
        self.read.is_some_and(|read| read.since(then) >= LEASE_EXPIRY_BOUND)
    }

    /// All instances to show, with their ids and the time for which each had been silent when the membership was
    /// read.
    pub fn all(&self, now: Uptime) -> impl Iterator<Item = (&[u8], &Member, Duration)> {
        let members =
            self.members.iter().map(|(instance, member)| (instance.as_slice(), member, member.silence));
        let departed = self.departed.iter().filter_map(move |(instance, departed)| {
            let member = departed.member.as_ref()?;
            let silence = now.since(departed.since);
            // A restarted instance has a new id, but the same name.
            let is_back =
                self.members.values().any(|other| other.name().is_some() && other.name() == member.name());
            (!is_back && silence < DEPARTED_RETENTION).then_some((
                instance.as_slice(),
                member,
                LEASE_EXPIRY_BOUND + silence,
            ))
        });
        members.chain(departed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::LEASE;

    fn profile(name: &str) -> Vec<u8> {
        serde_json::to_vec(&Profile {
            name: name.to_owned(),
            kind: MemberKind::Instance,
            sessions: 0,
            revocations: Vec::new(),
        })
        .unwrap()
    }

    /// A register with these instances: id, name, serial number, beat.
    fn register(instances: &[(&str, &str, u64, u64)]) -> Register {
        let mut register = Register::default();
        for (id, name, applied, beat) in instances {
            let reported = Reported { applied: *applied, beat: *beat, partitions: 1 };
            register.reports.insert(id.as_bytes().to_vec(), reported);
            register.profiles.insert(id.as_bytes().to_vec(), profile(name));
        }
        register
    }

    fn start() -> Uptime {
        Uptime::after(Duration::from_secs(1000))
    }

    #[test]
    fn members_lapse_that_have_not_reported_since_an_old_beat() {
        let (mut beats, start) = (Beats::default(), start());
        beats.record(10, start);
        let just_before = start.plus(LEASE_EXPIRY_BOUND - Duration::from_nanos(1));
        assert_eq!(beats.lapsed_below(just_before), None);
        beats.record(20, start.plus(LEASE_EXPIRY_BOUND / 2));
        let later = start.plus(LEASE_EXPIRY_BOUND);
        beats.record(30, later);
        assert_eq!(beats.lapsed_below(later), Some(10), "beat 20 is too young");
        assert_eq!(beats.silence(9, later), LEASE_EXPIRY_BOUND);
        assert_eq!(beats.silence(10, later), LEASE_EXPIRY_BOUND / 2);
        assert_eq!(beats.silence(31, later), Duration::ZERO);
        beats.record(40, later.plus(LEASE_EXPIRY_BOUND));
        assert_eq!(beats.lapsed_below(later.plus(LEASE_EXPIRY_BOUND)), Some(30));
    }

    #[test]
    fn all_count_until_they_have_lapsed() {
        let (mut members, mut beats, start) = (Members::default(), Beats::default(), start());
        beats.record(10, start);
        let members_of = [("a", "a", 5, 11), ("b", "b", 4, 9)];
        members.observe(register(&members_of), &beats, start);
        assert_eq!(members.applied(5), (2, 1));
        members.observe(register(&members_of), &beats, start.plus(LEASE_EXPIRY_BOUND));
        assert_eq!(members.applied(5), (1, 1), "the silent one has no lease any more");
    }

    #[test]
    fn member_without_a_profile_counts() {
        let (mut members, now) = (Members::default(), start());
        let mut register = register(&[("a", "a", 5, 1), ("b", "b", 0, 2)]);
        register.profiles.clear();
        register.reports.get_mut(b"b".as_slice()).unwrap().partitions = 2;
        members.observe(register, &Beats::default(), now);
        assert_eq!(members.applied(1), (2, 1));
        assert!(members.with_other_partitions(1).is_some());
    }

    #[test]
    fn namesake_is_an_instance_that_goes_on_reporting() {
        let (mut members, now, own) = (Members::default(), start(), InstanceId::random());
        let me = own.to_string();
        let mut look = |beat, name| {
            let all = register(&[(&me, "a", 0, beat), ("other", name, 0, beat), ("left", "b", 0, 1)]);
            members.observe(all, &Beats::default(), now);
            (members.has_namesake(own, "a"), members.has_namesake(own, "b"))
        };
        assert_eq!(look(10, "a"), (None, None));
        assert_eq!(look(11, "a"), (None, None));
        assert_eq!(look(12, "a"), (Some(true), None));
        assert_eq!(look(13, "c"), (Some(false), None));
    }

    fn shown(members: &Members, now: Uptime) -> Vec<&str> {
        let mut ids: Vec<_> = members.all(now).filter_map(|(id, _, _)| str::from_utf8(id).ok()).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn silent_instance_is_shown_for_a_while() {
        let (mut members, beats, start) = (Members::default(), Beats::default(), start());
        members.observe(register(&[("1", "a", 0, 1), ("2", "b", 0, 2)]), &beats, start);
        let mut without = register(&[("1", "a", 0, 3), ("2", "b", 0, 2)]);
        without.reports.remove(b"2".as_slice());
        members.observe(without, &beats, start);
        assert_eq!(shown(&members, start), ["1", "2"]);
        assert!(members.forget_departed(start).is_empty());
        let later = start.plus(DEPARTED_RETENTION);
        assert_eq!(shown(&members, later), ["1"]);
        assert_eq!(members.forget_departed(later), [b"2"]);
    }

    #[test]
    fn returning_instance_is_shown_once() {
        for (id, what) in [("2", "it went on"), ("3", "it was started again")] {
            let (mut members, beats, start) = (Members::default(), Beats::default(), start());
            members.observe(register(&[("1", "a", 0, 1), ("2", "b", 0, 2)]), &beats, start);
            let mut without = register(&[("1", "a", 0, 3), ("2", "b", 0, 2)]);
            without.reports.remove(b"2".as_slice());
            members.observe(without, &beats, start);
            let mut back = register(&[("1", "a", 0, 3), (id, "b", 0, 4)]);
            back.profiles.insert(b"2".to_vec(), profile("b"));
            members.observe(back, &beats, start.plus(LEASE));
            assert_eq!(shown(&members, start.plus(LEASE)), ["1", id], "{what}");
        }
    }

    #[test]
    fn leaving_instance_is_gone_at_once() {
        let (mut members, beats, start) = (Members::default(), Beats::default(), start());
        members.observe(register(&[("1", "a", 0, 1), ("2", "b", 0, 2)]), &beats, start);
        members.observe(register(&[("1", "a", 0, 3)]), &beats, start);
        assert_eq!(shown(&members, start), ["1"]);
    }
}
