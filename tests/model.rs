//! A model of the revocation protocol, checked in every order of events.
//!
//! The other tests run a few orders of events; the protocol must be correct in all of them. This model is
//! small enough for a model checker to visit every state that can be reached.
//!
//! # The protocol
//!
//! SQL is the truth. Each instance keeps a *mirror* in memory, and answers from it alone while it holds a
//! *lease*. A *follower* obtains the lease: it joins Redis, reconciles the mirror with SQL, and then sends
//! renewals. A renewal returns the events after the follower's place, writes a report of that place to the
//! *register*, and is good for one lease, counted from the moment it was sent. Every event names the one
//! before it, so that a follower detects a broken *chain* when Redis has lost data, and joins again.
//! An *epoch* is the time of a follower on one connection.
//!
//! A revocation commits to SQL, publishes an event, and is acknowledged when every instance has reported the
//! event, or when those that have not can have no lease any more. The guarantee: **a request that starts
//! after the acknowledgement is not let in, on any instance.**
//!
//! # What the model leaves out
//!
//! - There is one token, one partition, and two instances, of which the first revokes. Only one request is in
//!   progress at a time: requests meet only in the mirror, and a slow one may still be in progress when
//!   everything else has advanced.
//! - Time advances only in [`Protocol::tick`], and anything may take any number of ticks: a slow network, a
//!   partition and a paused process are the same here. The model stores ages, not moments, and none above a
//!   lease, where more makes no difference. So the number of states is finite although time has no end, and
//!   all of them are visited.
//! - `XREAD` between renewals is a renewal whose response comes too late to extend the lease.
//! - Ticks are those of the slowest clock. A faster one considers a lease expired a tick too soon, unless a
//!   margin is added for it (`MarginForDrift`), which makes all clocks alike here. `WAIT`, and two primaries
//!   at a time, are not modeled: Redis has one life after the other, and a new one may start from an older
//!   copy.
//!
//! Then each [`Rule`] is left out in turn, and the checker must find a violation. To see how it comes about:
//! `cargo test --test model -- --nocapture`.

use std::collections::BTreeSet;

use Mishap::*;
use Rule::*;
use stateright::{Checker, HasDiscoveries, Model, Property};

const INSTANCES: usize = 2;
const REVOKER: Instance = 0;
const OTHER: Instance = 1;

const PROMISE: &str = "no request that starts after the acknowledgement is let in";
const SECOND_LOOK: &str = "no second look that starts after the acknowledgement lets a request in";
const NOT_UNASKED: &str = "no request is refused while nobody has asked for the revocation";

type Instance = usize;
type Ticks = u8;

/// A random number in the server. Here nonces count up, so that the nonce of an event is also its place in
/// the stream.
type Nonce = u8;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    TruthFirst,
    WaitForTheOthers,
    LeaseFromTheSend,
    LeaseBeforeTheLookUp,
    LeaseAgainAfterAFill,
    DeadWins,
    UnlistedIsNotDead,
    ReconcileBeforeTrust,
    Chain,
    OldEpochToCountReports,
    ForgetOnlyTheSilent,
    ConnectionEndsWithRedis,
    HeadInTheRegister,
    MarginForDrift,
    StopFollowingBeforeLeaving,
}

/// A failure that happens once, at any moment. Delay is not listed, because it is possible everywhere.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mishap {
    Crash(Instance),
    Disconnect(Instance),
    /// All data is lost, and the connections survive.
    Flush,
    /// An older copy takes over: without the newest event and all reports, and with the token listed.
    FailOver,
    /// One key is lost, as when Redis evicts it.
    LoseRegister,
    /// An instance stops: it removes its report from the register, while requests in progress continue.
    Leave(Instance),
}

struct Protocol {
    lease: Ticks,
    left_out: Option<Rule>,
    mishaps: &'static [Mishap],
}

#[derive(Clone, Debug, Default, PartialEq, Hash)]
struct World {
    revoked_in_sql: bool,
    redis: Redis,
    mirrors: [Mirror; INSTANCES],
    leases: [Ticks; INSTANCES],
    epochs: [Option<Epoch>; INSTANCES],
    revocation: Revocation,
    request: Option<Request>,
    nonces_used: Nonce,
    mishaps_left: u8,
    broken: Option<&'static str>,
}

#[derive(Clone, Debug, Default, PartialEq, Hash)]
struct Redis {
    life: u8,
    /// The first nonce is the head that a follower has created, the others are events. Empty after a loss.
    chain: Vec<Nonce>,
    lists_the_token: bool,
    register: [Option<Report>; INSTANCES],
}

#[derive(Clone, Copy, Debug, PartialEq, Hash)]
struct Report {
    place: Nonce,
    age: Ticks,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Hash)]
enum Mirror {
    #[default]
    Unknown,
    Live,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Hash)]
struct Epoch {
    life: u8,
    age: Ticks,
    place: Nonce,
    reconciled: bool,
    renewal: Option<Renewal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Hash)]
struct Renewal {
    age: Ticks,
    answer: Option<Answer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Hash)]
struct Answer {
    chain_holds: bool,
    newest_event: Option<Nonce>,
    all_report_it: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Hash)]
enum Revocation {
    #[default]
    NotAsked,
    Committed,
    /// `applied`: the time since the revoker's own follower received the event.
    Published {
        event: Nonce,
        applied: Option<Ticks>,
    },
    Acknowledged {
        all_have_heard: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Hash)]
struct Request {
    at: Instance,
    stage: Stage,
    /// The property that is violated if this request is let in.
    forbidden: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Hash)]
enum Stage {
    LookUp,
    LeaseAfterTheLookUp,
    AskRedis,
    AskSqlToFill,
    Fill,
    AskSql,
    LetIn,
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Tick,
    Join(Instance),
    Reconcile(Instance),
    SendRenewal(Instance),
    RedisAnswers(Instance),
    ApplyAnswer(Instance),
    ForgetReport(Instance),
    Revoke,
    Publish,
    Request(Instance),
    RequestGoesOn,
    RequestGivesUp,
    Suffer(Mishap),
}

fn only_if(condition: bool) -> Option<()> {
    condition.then_some(())
}

impl World {
    fn add_to_the_chain(&mut self) -> Nonce {
        self.nonces_used += 1;
        self.redis.chain.push(self.nonces_used);
        self.nonces_used
    }

    fn acknowledged(&self) -> bool {
        matches!(self.revocation, Revocation::Acknowledged { .. })
    }

    fn end_epoch(&mut self, of: Instance) {
        self.epochs[of] = None;
        if of == REVOKER && matches!(self.revocation, Revocation::Published { .. }) {
            self.revocation = Revocation::Committed;
        }
    }

    fn end_request(&mut self, broken: Option<&'static str>) {
        self.request = None;
        self.broken = broken;
    }
}

/// The steps of the protocol, in order. Each returns `None` if it is not possible in this state.
impl Protocol {
    fn keeps(&self, rule: Rule) -> bool {
        self.left_out != Some(rule)
    }

    /// Whether a lease granted that long ago has certainly expired.
    fn has_expired(&self, age: Ticks) -> bool {
        age + Ticks::from(!self.keeps(MarginForDrift)) >= self.lease
    }

    fn tick(&self, world: &mut World) -> Option<()> {
        let grow = |age: &mut Ticks| *age = self.lease.min(*age + 1);
        for lease in &mut world.leases {
            *lease = lease.saturating_sub(1);
        }
        for epoch in world.epochs.iter_mut().flatten() {
            grow(&mut epoch.age);
            epoch.renewal.iter_mut().for_each(|renewal| grow(&mut renewal.age));
        }
        world.redis.register.iter_mut().flatten().for_each(|report| grow(&mut report.age));
        if let Revocation::Published { applied: Some(age), .. } = &mut world.revocation {
            grow(age);
        }
        Some(())
    }

    fn connected(&self, world: &World, who: Instance) -> Option<Epoch> {
        world.epochs[who]
            .filter(|epoch| epoch.life == world.redis.life || !self.keeps(ConnectionEndsWithRedis))
    }

    fn join(&self, world: &mut World, who: Instance) -> Option<()> {
        only_if(self.connected(world, who).is_none())?;
        world.end_epoch(who);
        if world.redis.chain.is_empty() {
            world.add_to_the_chain();
        }
        let place = *world.redis.chain.last()?;
        // Only the age of the revoker's epoch matters; the other epoch starts old, which saves states.
        let age = if who == REVOKER { 0 } else { self.lease };
        let reconciled = !self.keeps(ReconcileBeforeTrust);
        world.epochs[who] = Some(Epoch { life: world.redis.life, age, place, reconciled, renewal: None });
        Some(())
    }

    fn reconcile(&self, world: &mut World, who: Instance) -> Option<()> {
        let epoch = world.epochs[who].as_mut().filter(|epoch| !epoch.reconciled)?;
        epoch.reconciled = true;
        if world.revoked_in_sql {
            world.mirrors[who] = Mirror::Dead;
        }
        Some(())
    }

    fn send_renewal(&self, world: &mut World, who: Instance) -> Option<()> {
        let epoch = self.connected(world, who)?;
        only_if(epoch.reconciled && epoch.renewal.is_none())?;
        world.epochs[who] = Some(Epoch { renewal: Some(Renewal { age: 0, answer: None }), ..epoch });
        Some(())
    }

    fn redis_answers(&self, world: &mut World, who: Instance) -> Option<()> {
        let epoch = self.connected(world, who)?;
        let renewal = epoch.renewal.filter(|renewal| renewal.answer.is_none())?;
        let redis = &mut world.redis;
        let newest_event = redis.chain.last().copied().filter(|&event| event > epoch.place);
        let chain_holds = redis.chain.contains(&epoch.place);
        let all_report_it = match world.revocation {
            // The revoker needs no report of its own, because it makes this request.
            Revocation::Published { event, .. } if who == REVOKER => {
                redis.chain.contains(&event)
                    && redis.register.iter().flatten().all(|report| report.place >= event)
            }
            _ => false,
        };
        if who != REVOKER {
            redis.register[who] = Some(Report { place: epoch.place, age: 0 });
        }
        let answer = Some(Answer { chain_holds, newest_event, all_report_it });
        world.epochs[who] = Some(Epoch { renewal: Some(Renewal { answer, ..renewal }), ..epoch });
        Some(())
    }

    fn apply_answer(&self, world: &mut World, who: Instance) -> Option<()> {
        let epoch = world.epochs[who].as_mut()?;
        let Renewal { age, answer } = epoch.renewal?;
        let answer = answer?;
        epoch.renewal = None;
        if !answer.chain_holds && self.keeps(Chain) {
            world.end_epoch(who);
            return Some(());
        }
        if let Some(event) = answer.newest_event {
            epoch.place = event;
            world.mirrors[who] = Mirror::Dead;
        }
        world.leases[who] = if self.keeps(LeaseFromTheSend) { self.lease - age } else { self.lease };
        if who == REVOKER {
            let epoch = *epoch;
            self.acknowledge(world, epoch, answer);
        }
        Some(())
    }

    fn forget_report(&self, world: &mut World, of: Instance) -> Option<()> {
        let report = world.redis.register[of]?;
        only_if(self.has_expired(report.age) || !self.keeps(ForgetOnlyTheSilent))?;
        world.redis.register[of] = None;
        Some(())
    }

    fn revoke(&self, world: &mut World) -> Option<()> {
        only_if(world.revocation == Revocation::NotAsked)?;
        world.revoked_in_sql = self.keeps(TruthFirst);
        world.mirrors[REVOKER] = Mirror::Dead;
        world.revocation = Revocation::Committed;
        Some(())
    }

    fn publish(&self, world: &mut World) -> Option<()> {
        self.connected(world, REVOKER)?;
        only_if(world.revocation == Revocation::Committed)?;
        let event = world.add_to_the_chain();
        world.redis.lists_the_token = false;
        world.revocation = match self.keeps(WaitForTheOthers) {
            true => Revocation::Published { event, applied: None },
            false => Revocation::Acknowledged { all_have_heard: false },
        };
        Some(())
    }

    fn acknowledge(&self, world: &mut World, epoch: Epoch, answer: Answer) {
        let Revocation::Published { event, applied } = world.revocation else { return };
        let came_back_now = (answer.newest_event >= Some(event)).then_some(0);
        let Some(age) = applied.or(came_back_now) else { return };
        // A young epoch may read a register that has lost an instance whose lease is still valid.
        let reports_count = self.has_expired(epoch.age) || !self.keeps(OldEpochToCountReports);
        let all_have_heard = answer.all_report_it && reports_count;
        let leases_have_lapsed = self.has_expired(age);
        if all_have_heard || leases_have_lapsed {
            world.revoked_in_sql = true; // already true, unless `TruthFirst` is left out
            world.revocation = Revocation::Acknowledged { all_have_heard };
        } else {
            world.revocation = Revocation::Published { event, applied: Some(age) };
        }
    }

    fn request(&self, world: &mut World, at: Instance) -> Option<()> {
        only_if(world.request.is_none())?;
        let leased = world.leases[at] > 0 || !self.keeps(LeaseBeforeTheLookUp);
        let stage = if leased { Stage::LookUp } else { Stage::AskSql };
        world.request = Some(Request { at, stage, forbidden: world.acknowledged().then_some(PROMISE) });
        Some(())
    }

    fn request_goes_on(&self, world: &mut World) -> Option<()> {
        let request = world.request?;
        let next = match request.stage {
            Stage::LookUp => match world.mirrors[request.at] {
                Mirror::Unknown => Stage::AskRedis,
                Mirror::Live if self.keeps(LeaseBeforeTheLookUp) => Stage::LetIn,
                Mirror::Live => Stage::LeaseAfterTheLookUp,
                Mirror::Dead => Stage::Refused,
            },
            Stage::LeaseAfterTheLookUp if world.leases[request.at] > 0 => Stage::LetIn,
            Stage::LeaseAfterTheLookUp => Stage::AskSql,
            Stage::AskRedis if world.redis.lists_the_token => Stage::Fill,
            Stage::AskRedis if self.keeps(UnlistedIsNotDead) => Stage::AskSqlToFill,
            Stage::AskSqlToFill if !world.revoked_in_sql => Stage::Fill,
            Stage::AskSql if !world.revoked_in_sql => Stage::LetIn,
            Stage::AskRedis | Stage::AskSqlToFill | Stage::AskSql => Stage::Refused,
            Stage::Fill => return self.fill(world, request),
            Stage::LetIn | Stage::Refused => return None,
        };
        match next {
            Stage::LetIn => world.end_request(request.forbidden),
            Stage::Refused => world.end_request((!world.revoked_in_sql).then_some(NOT_UNASKED)),
            stage => world.request = Some(Request { stage, ..request }),
        }
        Some(())
    }

    /// The response of Redis or SQL may be outdated by now, so the request looks again as if it had just
    /// started.
    fn fill(&self, world: &mut World, request: Request) -> Option<()> {
        let mirror = &mut world.mirrors[request.at];
        if *mirror == Mirror::Unknown || !self.keeps(DeadWins) {
            *mirror = Mirror::Live;
        }
        let leased = world.leases[request.at] > 0 || !self.keeps(LeaseAgainAfterAFill);
        let stage = if leased { Stage::LookUp } else { Stage::AskSql };
        let forbidden = request.forbidden.or(world.acknowledged().then_some(SECOND_LOOK));
        world.request = Some(Request { stage, forbidden, ..request });
        Some(())
    }

    /// SQL is not reachable: 503, which is not a refusal.
    fn request_gives_up(&self, world: &mut World) -> Option<()> {
        world.request.take().map(drop)
    }

    fn suffer(&self, world: &mut World, mishap: Mishap) -> Option<()> {
        world.mishaps_left = world.mishaps_left.checked_sub(1)?;
        match mishap {
            Crash(who) => {
                world.end_epoch(who);
                world.mirrors[who] = Mirror::Unknown;
                world.leases[who] = 0;
                world.request = world.request.filter(|request| request.at != who);
                if who == REVOKER && !world.acknowledged() {
                    world.revocation = Revocation::NotAsked;
                }
            }
            Disconnect(who) => world.end_epoch(who),
            Flush => world.redis = Redis { life: world.redis.life, ..Redis::default() },
            FailOver => {
                world.redis.life += 1;
                world.redis.chain.pop();
                world.redis.lists_the_token = true;
                world.redis.register = [None; INSTANCES];
            }
            Leave(who) => {
                world.leases[who] = 0;
                world.redis.register[who] = None;
                if self.keeps(StopFollowingBeforeLeaving) {
                    world.end_epoch(who);
                }
            }
            LoseRegister => {
                world.redis.register = [None; INSTANCES];
                if self.keeps(HeadInTheRegister) {
                    world.redis.chain.clear();
                }
            }
        }
        Some(())
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let redis = Redis { lists_the_token: true, ..Redis::default() };
        let mirrors = [Mirror::Live, Mirror::Unknown];
        vec![World { redis, mirrors, mishaps_left: 1, ..World::default() }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.broken.is_some() {
            return;
        }
        steps.extend([Step::Tick, Step::Revoke, Step::Publish, Step::RequestGoesOn, Step::RequestGivesUp]);
        for who in 0..INSTANCES {
            steps.extend([
                Step::Join(who),
                Step::Reconcile(who),
                Step::SendRenewal(who),
                Step::RedisAnswers(who),
            ]);
            steps.extend([Step::ApplyAnswer(who), Step::ForgetReport(who), Step::Request(who)]);
        }
        steps.extend(self.mishaps.iter().copied().map(Step::Suffer));
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = last.clone();
        match step {
            Step::Tick => self.tick(&mut world),
            Step::Join(who) => self.join(&mut world, who),
            Step::Reconcile(who) => self.reconcile(&mut world, who),
            Step::SendRenewal(who) => self.send_renewal(&mut world, who),
            Step::RedisAnswers(who) => self.redis_answers(&mut world, who),
            Step::ApplyAnswer(who) => self.apply_answer(&mut world, who),
            Step::ForgetReport(of) => self.forget_report(&mut world, of),
            Step::Revoke => self.revoke(&mut world),
            Step::Publish => self.publish(&mut world),
            Step::Request(at) => self.request(&mut world, at),
            Step::RequestGoesOn => self.request_goes_on(&mut world),
            Step::RequestGivesUp => self.request_gives_up(&mut world),
            Step::Suffer(mishap) => self.suffer(&mut world, mishap),
        }?;
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(PROMISE, |_, world: &World| world.broken != Some(PROMISE)),
            Property::always(SECOND_LOOK, |_, world: &World| world.broken != Some(SECOND_LOOK)),
            Property::always(NOT_UNASKED, |_, world: &World| world.broken != Some(NOT_UNASKED)),
            Property::sometimes("a miss is filled", |_, world: &World| world.mirrors[OTHER] == Mirror::Live),
            Property::sometimes("a revocation is acknowledged by all", |_, world: &World| {
                world.revocation == Revocation::Acknowledged { all_have_heard: true }
            }),
            Property::sometimes("a revocation is acknowledged after the lease", |_, world: &World| {
                world.acknowledged() && world.mirrors[OTHER] == Mirror::Live
            }),
        ]
    }
}

fn holds(lease: Ticks, mishaps: &'static [Mishap]) {
    let protocol = Protocol { lease, left_out: None, mishaps };
    let checker = protocol.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    println!("{} states with a lease of {lease} and {mishaps:?}", checker.unique_state_count());
    checker.assert_properties();
}

fn breaks(promise: &'static str, left_out: Rule, mishaps: &'static [Mishap]) {
    let protocol = Protocol { lease: 1, left_out: Some(left_out), mishaps };
    let first = HasDiscoveries::AnyOf(BTreeSet::from([promise]));
    // One thread, so that the path found is close to the shortest.
    let checker = protocol.checker().finish_when(first).spawn_bfs().join();
    let way = checker.discovery(promise).expect("a rule that can be left out").into_actions();
    println!("{} states without {left_out:?}, {}: {way:?}", checker.unique_state_count(), way.len());
}

#[test]
fn requests_after_the_acknowledgement_are_refused() {
    holds(2, &[]);
}

#[test]
fn guarantee_survives_crashes_lost_connections_and_data_loss() {
    holds(
        1,
        &[
            Crash(0),
            Crash(1),
            Disconnect(0),
            Disconnect(1),
            Flush,
            FailOver,
            LoseRegister,
            Leave(0),
            Leave(1),
        ],
    );
}

/// One test for each line: without the rule, and with these mishaps, the property is violated.
macro_rules! needed {
    ($($test:ident: $rule:expr, $mishaps:expr, $promise:expr;)*) => {$(
        #[test]
        fn $test() {
            breaks($promise, $rule, &$mishaps);
        }
    )*};
}

needed! {
    joiner_misses_a_revocation_if_sql_is_written_last: TruthFirst, [], PROMISE;
    other_instances_accept_the_token_if_nothing_waits_for_them: WaitForTheOthers, [], PROMISE;
    lease_counted_from_the_response_outlasts_the_wait: LeaseFromTheSend, [], PROMISE;
    lease_checked_after_the_look_up_covers_an_outdated_look_up: LeaseBeforeTheLookUp, [], PROMISE;
    filled_token_is_used_after_the_lease_without_a_second_check: LeaseAgainAfterAFill, [], SECOND_LOOK;
    late_response_must_not_revive_a_dead_session: DeadWins, [], PROMISE;
    token_that_redis_does_not_list_may_be_live: UnlistedIsNotDead, [Flush], NOT_UNASKED;
    rejoining_instance_uses_an_outdated_mirror_without_reconciling: ReconcileBeforeTrust, [Disconnect(OTHER)], PROMISE;
    data_loss_is_not_detected_without_the_chain: Chain, [Flush], PROMISE;
    young_epoch_must_not_count_reports: OldEpochToCountReports, [Flush], PROMISE;
    report_removed_too_soon_hides_a_lease: ForgetOnlyTheSilent, [], PROMISE;
    connection_that_survives_a_failover_hides_it: ConnectionEndsWithRedis, [FailOver], PROMISE;
    lost_register_is_not_detected_without_the_head: HeadInTheRegister, [LoseRegister], PROMISE;
    fast_clock_considers_a_lease_expired_too_soon: MarginForDrift, [], PROMISE;
    follower_that_continues_after_leaving_holds_a_hidden_lease: StopFollowingBeforeLeaving, [Leave(OTHER)], PROMISE;
}
