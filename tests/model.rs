//! A model of the revocation protocol, checked in every order of events.
//!
//! The other tests run a few orders of events; the protocol must be correct in all of them. This model is
//! small enough for a model checker to visit every state that can be reached. The protocol, its rules and
//! the counter-examples in words are in docs/PROTOCOL.md.
//!
//! # The protocol
//!
//! SQL is the truth. Each instance keeps a *mirror* in memory, and answers from it alone while it holds a
//! *lease*. A *follower* obtains the lease: it joins Redis, agrees with the others through SQL that all
//! follow the same Redis, reconciles the mirror with SQL, replays the stream, and then sends renewals. A
//! renewal writes a report of the follower's place to the *register*, returns the head of the chain, and is good
//! for one lease, counted from the moment it was sent, once the follower has applied the events up to that head. Every event names the one before it, so
//! that a follower detects a broken *chain* when Redis has lost data, and joins again. An *epoch* is the
//! time of a follower on one connection.
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
//!   partition and a paused process are the same here. The model stores ages, not moments, and none above
//!   the bound after which more makes no difference. So the number of states is finite although time has no
//!   end, and all of them are visited.
//! - The events up to the head arrive with the renewal's response. The server reads them by `XREAD` a moment later:
//!   what is lost in between shows as a broken chain, which only ends the epoch earlier. An `XREAD` that brings more
//!   is a renewal whose response comes too late to extend the lease.
//! - That a register of another chain accepts no report is left out: here it accepts it, and the follower ends its
//!   epoch when the response arrives. Serial numbers are places, so that a report from before a loss counts as the
//!   place that it had then.
//! - Not everything is combined with everything. Drifting clocks, two failures in one run and two Redises at
//!   a time are checked with coarser steps ([`COARSE`]), and the follower compares the Redis that it follows
//!   only where there are two ([`TWO_REDISES`]), where a run publishes at most two events.
//! - `WAIT` is not modeled: that all follow the same Redis is enough for the guarantee. Neither is the
//!   comparison that each instance repeats every second, which finds a disagreement that arises later.
//!
//! Then each [`Rule`] is left out in turn, and the checker must find a violation. To see how it comes about:
//! `cargo test --test model -- --nocapture`.

use std::collections::BTreeSet;

use Mishap::*;
use Rule::*;
use stateright::{Checker, HasDiscoveries, Model};

#[path = "model/steps.rs"]
mod steps;

const INSTANCES: usize = 2;
const REVOKER: Instance = 0;
const OTHER: Instance = 1;

const PROMISE: &str = "no request that starts after the acknowledgement is let in";
const SECOND_LOOK: &str = "no second look that starts after the acknowledgement lets a request in";
const NOT_UNASKED: &str = "no request is refused while nobody has asked for the revocation";
const MOVES: &str = "a revocation that was published to one Redis is acknowledged on the other";

type Instance = usize;
type Bus = usize;
type Ticks = u8;

/// A random number in the server. Here nonces count up, so that the nonce of an event is also its place in
/// the stream.
type Nonce = u8;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    // What a request checks
    LeaseBeforeTheLookUp,
    LeaseAgainAfterAFill,
    DeadWins,
    UnlistedIsNotDead,
    // How a follower keeps its lease
    LeaseFromTheSend,
    ReconcileBeforeTrust,
    ReplayBeforeTrust,
    Chain,
    HeadInTheRegister,
    ConnectionEndsWithRedis,
    // When a revocation is acknowledged
    TruthFirst,
    PublishUnknownSessions,
    PublishAgain,
    EchoBeforeAcknowledgement,
    WaitForTheOthers,
    OldEpochToCountReports,
    ForgetOnlyTheSilent,
    MarginForDrift,
    // How an instance leaves
    StopFollowingBeforeLeaving,
    EndLeaseBeforeLeaving,
    // What is read from SQL, and deleted there
    PrimaryOnly,
    ReconcileBySessions,
    ReconcileBySharedClock,
    DeleteBySharedClock,
    AskTheStoreInTheEpoch,
    // Which Redis is followed
    AgreeOnTheBus,
    RecordBeforeComparing,
    EpochCountsFromAgreement,
    RejoinAfterAStall,
    StallCountsFromTheRecord,
    NoAcknowledgementAfterAStall,
    CommandsFollowTheEpoch,
}

/// A failure that happens at any moment. Delay is not listed, because it is possible everywhere.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mishap {
    Crash(Instance),
    Disconnect(Instance),
    /// An instance stops: it removes its report from the register, while requests in progress continue.
    Leave(Instance),
    /// Redis loses all data, and the connections survive.
    Flush,
    /// An older copy takes over: without the newest event and all reports, and with the token listed.
    FailOver,
    /// Redis loses the key of the register, as when it evicts it.
    LoseRegister,
    /// SQL loses the session and its token.
    SqlForgets,
    /// SQL loses the row of the token, and keeps the session.
    SqlForgetsToken,
    /// The SQL connections of an instance lead to a standby, which lags behind for good.
    Standby(Instance),
    /// The wall clock of an instance is days ahead, for good.
    WrongClock(Instance),
}

#[derive(Clone, Copy)]
struct Protocol {
    lease: Ticks,
    /// How far the clocks of the instances may advance in one tick.
    clock_rates: &'static [[Ticks; INSTANCES]],
    /// How many Redises are up, to any of which an instance may connect.
    redises: usize,
    /// The instances that requests reach. The leases of the others make no difference.
    serves: &'static [Instance],
    /// The instances that reach SQL by way of another one, as guards do: what SQL has answered arrives at any later time.
    asks_over_http: &'static [Instance],
    /// Whether a request is one step; reconciling and the replay; the response of Redis and its application.
    is_coarse: bool,
    mishaps: &'static [Mishap],
    mishaps_in_a_run: usize,
    /// How many heads and events a run may create.
    most_nonces: Nonce,
    left_out: Option<Rule>,
}

const FINE: Protocol = Protocol {
    lease: 1,
    clock_rates: &[[1, 1]],
    redises: 1,
    serves: &[REVOKER, OTHER],
    asks_over_http: &[],
    is_coarse: false,
    mishaps: &[],
    mishaps_in_a_run: 1,
    most_nonces: 8,
    left_out: None,
};
const COARSE: Protocol = Protocol { is_coarse: true, mishaps_in_a_run: 2, ..FINE };
const DRIFT: Protocol = Protocol { lease: 2, clock_rates: &[[1, 1], [1, 2], [2, 1]], ..COARSE };
const OVER_HTTP: Protocol = Protocol { asks_over_http: &[OTHER], ..FINE };
const TWO_REDISES: Protocol = Protocol { redises: 2, serves: &[OTHER], most_nonces: 4, ..COARSE };

#[derive(Clone, Copy, Debug, Default, PartialEq, Hash)]
struct World {
    sql: Sql,
    /// Where there is one Redis, the second is not used.
    redis: [Redis; 2],
    mirrors: [Mirror; INSTANCES],
    leases: [Ticks; INSTANCES],
    epochs: [Option<Epoch>; INSTANCES],
    /// Whether SQL has the revocation, as it was answered and has not arrived yet.
    answers: [Option<bool>; INSTANCES],
    revocation: Revocation,
    /// The Redis to which the revoker's connection for commands leads.
    commands: Option<Bus>,
    request: Option<Request>,
    nonces_used: Nonce,
    mishaps_left: usize,
    broken: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Hash)]
struct Sql {
    session: Session,
    token: TokenRow,
    /// The table of instances: the Redis that each follows.
    follows: [Option<Bus>; INSTANCES],
    read_from_standby_by: Option<Instance>,
    clock_is_wrong_at: Option<Instance>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Hash)]
enum Session {
    #[default]
    Live,
    Revoked,
    Lost,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Hash)]
enum TokenRow {
    #[default]
    Present,
    Lost,
    DeletedEarly,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Hash)]
struct Redis {
    life: u8,
    chain: Nonces,
    lists_the_token: bool,
    register: [Option<Report>; INSTANCES],
}

/// The nonces of the chain, one bit for each. The lowest is the head that a follower has created, the others
/// are events. Empty after a loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Hash)]
struct Nonces(u16);

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
    bus: Bus,
    life: u8,
    age: Ticks,
    /// The time since the last renewal was sent, or since the join. Counted only where there are two Redises.
    silence: Ticks,
    place: Nonce,
    phase: Phase,
    renewal: Option<Renewal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Hash)]
enum Phase {
    Joined,
    /// The row in SQL is written, and those of the others are not read yet; the other way round if
    /// `RecordBeforeComparing` is left out.
    HalfAgreed,
    Agreed,
    Reconciled,
    Following,
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
        all_reported: bool,
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
    Tick([Ticks; INSTANCES]),
    Join(Instance, Bus),
    Compare(Instance),
    RecordLate(Instance),
    ClearRecord(Instance),
    AskStore(Instance),
    Reconcile(Instance),
    Replay(Instance),
    SendRenewal(Instance),
    RedisAnswers(Instance),
    ApplyAnswer(Instance),
    ForgetReport(Instance, Bus),
    Revoke,
    Publish(Bus),
    Request(Instance),
    RequestGoesOn,
    RequestGivesUp,
    Suffer(Mishap),
}

fn holds(protocol: Protocol) {
    let Protocol { lease, mishaps, mishaps_in_a_run, .. } = protocol;
    let checker = protocol.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let states = checker.unique_state_count();
    println!("{states} states with a lease of {lease} and {mishaps_in_a_run} of {mishaps:?}");
    checker.assert_properties();
}

/// With all of the mishaps in one run, the property is violated.
fn breaks(promise: &'static str, left_out: Option<Rule>, protocol: Protocol) {
    let protocol = Protocol { mishaps_in_a_run: protocol.mishaps.len(), left_out, ..protocol };
    let first = HasDiscoveries::AnyOf(BTreeSet::from([promise]));
    // One thread, so that the path found is close to the shortest.
    let checker = protocol.checker().finish_when(first).spawn_bfs().join();
    let way = checker.discovery(promise).expect("a rule that can be left out").into_actions();
    let way = without_detours(&protocol, way);
    println!("{} states without {left_out:?}, {}: {way:?}", checker.unique_state_count(), way.len());
}

/// Removes the steps that the rest of the way can do without.
fn without_detours(protocol: &Protocol, mut way: Vec<Step>) -> Vec<Step> {
    let end = |way: &[Step]| {
        let start = protocol.init_states().into_iter().next();
        way.iter().try_fold(start?, |world, step| protocol.next_state(&world, *step))?.broken
    };
    let violated = end(&way);
    let mut place = 0;
    while place < way.len() {
        let mut shorter = way.clone();
        shorter.remove(place);
        if end(&shorter) == violated {
            (way, place) = (shorter, 0);
        } else {
            place += 1;
        }
    }
    way
}

#[test]
fn requests_after_the_acknowledgement_are_refused() {
    holds(Protocol { lease: 2, ..FINE });
}

#[test]
fn guarantee_survives_crashes_lost_connections_and_data_loss() {
    let mishaps = &[
        Crash(0),
        Crash(1),
        Disconnect(0),
        Disconnect(1),
        Leave(0),
        Leave(1),
        Flush,
        FailOver,
        LoseRegister,
    ];
    holds(Protocol { mishaps, ..FINE });
}

#[test]
fn guarantee_survives_lost_rows_standbys_and_wrong_clocks() {
    let mishaps = &[SqlForgets, SqlForgetsToken, Standby(0), Standby(1), WrongClock(0), WrongClock(1)];
    holds(Protocol { mishaps, ..FINE });
}

#[test]
fn guarantee_survives_answers_of_the_store_that_come_late() {
    let mishaps = &[
        Crash(0),
        Crash(1),
        Disconnect(0),
        Disconnect(1),
        Leave(1),
        Flush,
        FailOver,
        LoseRegister,
        SqlForgetsToken,
    ];
    holds(Protocol { mishaps, ..OVER_HTTP });
}

#[test]
fn guarantee_survives_drifting_clocks() {
    holds(Protocol { mishaps: &[Disconnect(OTHER), Leave(OTHER)], ..DRIFT });
}

#[test]
fn guarantee_survives_two_failures() {
    let mishaps = &[
        Crash(0),
        Crash(1),
        Disconnect(0),
        Disconnect(1),
        Leave(0),
        Leave(1),
        Flush,
        FailOver,
        LoseRegister,
        SqlForgetsToken,
        Standby(0),
        Standby(1),
        WrongClock(0),
        WrongClock(1),
    ];
    holds(Protocol { mishaps, ..COARSE });
}

#[test]
fn guarantee_survives_a_session_that_sql_has_lost_and_another_failure() {
    let mishaps = &[
        SqlForgets,
        Crash(0),
        Crash(1),
        Disconnect(0),
        Disconnect(1),
        Leave(0),
        Leave(1),
        Standby(0),
        Standby(1),
        WrongClock(0),
        WrongClock(1),
    ];
    holds(Protocol { mishaps, ..COARSE });
}

#[test]
fn session_that_sql_and_redis_have_lost_is_accepted() {
    breaks(PROMISE, None, Protocol { mishaps: &[SqlForgets, Flush], ..COARSE });
}

#[test]
fn guarantee_survives_a_second_redis() {
    holds(TWO_REDISES);
}

#[test]
fn guarantee_survives_a_second_redis_and_a_lost_connection() {
    holds(Protocol { most_nonces: 3, mishaps: &[Disconnect(OTHER)], mishaps_in_a_run: 1, ..TWO_REDISES });
}

/// One test for each line: without the rule, and with these mishaps, the property is violated.
macro_rules! needed {
    ($($test:ident: $rule:expr, $protocol:expr, $mishaps:expr, $promise:expr;)*) => {$(
        #[test]
        fn $test() {
            breaks($promise, Some($rule), Protocol { mishaps: &$mishaps, ..$protocol });
        }
    )*};
}

needed! {
    lease_checked_after_the_look_up_covers_an_outdated_look_up: LeaseBeforeTheLookUp, FINE, [], PROMISE;
    filled_token_is_used_after_the_lease_without_a_second_check: LeaseAgainAfterAFill, FINE, [], SECOND_LOOK;
    late_response_must_not_revive_a_dead_session: DeadWins, FINE, [], PROMISE;
    token_that_redis_does_not_list_may_be_live: UnlistedIsNotDead, COARSE, [Flush], NOT_UNASKED;

    lease_counted_from_the_response_outlasts_the_wait: LeaseFromTheSend, FINE, [], PROMISE;
    rejoining_instance_uses_an_outdated_mirror_without_reconciling: ReconcileBeforeTrust, COARSE, [Flush], PROMISE;
    session_that_sql_has_lost_is_found_only_in_the_stream: ReplayBeforeTrust, COARSE, [SqlForgets], PROMISE;
    data_loss_is_not_detected_without_the_chain: Chain, COARSE, [Flush], PROMISE;
    lost_register_is_not_detected_without_the_head: HeadInTheRegister, COARSE, [LoseRegister], PROMISE;
    connection_that_survives_a_failover_hides_it: ConnectionEndsWithRedis, COARSE, [FailOver], PROMISE;

    joiner_misses_a_revocation_if_sql_is_written_last: TruthFirst, FINE, [Flush], PROMISE;
    session_that_sql_has_lost_is_still_in_other_mirrors: PublishUnknownSessions, COARSE, [SqlForgets], PROMISE;
    session_that_is_revoked_in_sql_may_be_unpublished: PublishAgain, COARSE, [Crash(REVOKER)], PROMISE;
    event_may_have_gone_to_another_redis: EchoBeforeAcknowledgement, TWO_REDISES, [], PROMISE;
    other_instances_accept_the_token_if_nothing_waits_for_them: WaitForTheOthers, COARSE, [], PROMISE;
    young_epoch_must_not_count_reports: OldEpochToCountReports, COARSE, [Flush], PROMISE;
    report_removed_too_soon_hides_a_lease: ForgetOnlyTheSilent, COARSE, [], PROMISE;
    fast_clock_considers_a_lease_expired_too_soon: MarginForDrift, DRIFT, [], PROMISE;

    follower_that_continues_after_leaving_holds_a_hidden_lease: StopFollowingBeforeLeaving, FINE, [Leave(OTHER)], PROMISE;
    lease_that_outlasts_the_report_is_hidden: EndLeaseBeforeLeaving, COARSE, [Leave(OTHER)], PROMISE;

    standby_does_not_know_of_the_revocation: PrimaryOnly, COARSE, [Standby(OTHER)], PROMISE;
    reconciling_by_tokens_misses_a_session_without_them: ReconcileBySessions, COARSE, [SqlForgetsToken, Flush], PROMISE;
    reconciling_by_a_wrong_clock_misses_recent_revocations: ReconcileBySharedClock, COARSE, [WrongClock(OTHER), Flush], PROMISE;
    wrong_clock_deletes_what_is_live: DeleteBySharedClock, COARSE, [WrongClock(OTHER)], NOT_UNASKED;

    store_that_was_asked_before_joining_does_not_know_what_was_missed: AskTheStoreInTheEpoch, Protocol { is_coarse: true, ..OVER_HTTP }, [Flush], PROMISE;

    instances_that_follow_two_redises_miss_each_others_events: AgreeOnTheBus, TWO_REDISES, [], PROMISE;
    two_that_join_at_once_see_no_record_of_each_other: RecordBeforeComparing, TWO_REDISES, [], PROMISE;
    lease_from_another_redis_is_not_in_the_register: EpochCountsFromAgreement, TWO_REDISES, [Disconnect(OTHER)], PROMISE;
    stalled_follower_renews_after_it_was_considered_dead: RejoinAfterAStall, TWO_REDISES, [], PROMISE;
    follower_that_stalled_while_it_compared_was_considered_dead: StallCountsFromTheRecord, TWO_REDISES, [], PROMISE;
    stalled_response_misses_those_that_follow_another_redis: NoAcknowledgementAfterAStall, TWO_REDISES, [], PROMISE;
}

#[test]
fn commands_that_stay_with_another_redis_are_never_acknowledged() {
    let protocol = Protocol { left_out: Some(CommandsFollowTheEpoch), ..TWO_REDISES };
    let checker = protocol.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    println!("{} states without {:?}", checker.unique_state_count(), protocol.left_out);
    assert!(checker.discovery(MOVES).is_none(), "a rule that can be left out");
    assert!(checker.discovery(PROMISE).is_none());
}
