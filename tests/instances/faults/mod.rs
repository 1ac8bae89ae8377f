//! Tests of the guarantee under faults.
//!
//! The test has three independent parts. The `load` logs in, reads, refreshes, logs out, changes passwords,
//! sometimes disconnects, and records each call in the `history`. `strike` injects one fault after another,
//! or two at a time. When all faults have been healed, the `checker` checks the history against the
//! guarantee; `checker_tests` shows that it finds violations. After each fault, `support/health.rs` checks
//! that every instance works as before, without having been restarted.
//!
//! `cargo test` runs the short form: each fault once, except those that are slow or resemble another one, and
//! two pairs. The long form runs all faults and all pairs repeatedly, for `DURATION` seconds:
//! `SEED=7 DURATION=1200 make faults`. `make soak` runs at a lower rate and compares the resources that the
//! instances hold. A seed reproduces the choices and their order, but not each interleaving, which depends on
//! the machine. The logs of all processes and the history are kept when a run fails, and always with
//! `KEEP=1`.

mod caller;
mod checker;
mod checker_tests;
mod failover;
mod finish;
mod floods;
mod history;
mod holdings;
mod kinds;
mod load;
mod refresher;
mod run;
mod sessions;
mod strike;
mod table;
mod users;
mod writer;

use std::{
    env, iter,
    time::{Duration, Instant},
};

use fastrand::Rng;

use self::{
    holdings::Holdings,
    kinds::Fault,
    run::{Rate, run},
};
use crate::support::{process::comes_true, world::Kind};

const SOAK: Rate = Rate { slowness: 5, rest: Duration::from_secs(10), spared: Some(2) };

/// How long memory grows by itself: tokens live for five minutes, and revocations are remembered for ten.
const SETTLED: Duration = Duration::from_mins(15);

/// The worlds run one after another: two at a time would compete for the processor.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_guarantee_holds_through_every_fault() {
    let seed = setting("SEED").unwrap_or(1);
    for kind in [Kind::Single, Kind::Sentinel, Kind::Cluster] {
        // The seed chooses the pairs.
        let mut pairs = Fault::pairs_of(kind);
        Rng::with_seed(seed).shuffle(&mut pairs);
        let pairs = pairs.into_iter().take(if kind == Kind::Single { 2 } else { 0 });
        let singles = Fault::of(kind).iter().filter(|fault| !fault.is_left_to_long_runs());
        let pairs = pairs.map(|(one, other)| vec![one, other]);
        run(kind, seed, singles.map(|fault| vec![*fault]).chain(pairs)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes as long as DURATION says: run it with --ignored --nocapture"]
async fn the_guarantee_holds_for_as_long_as_asked() {
    let duration = Duration::from_secs(setting("DURATION").unwrap_or(1200));
    let seed = setting("SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    // Most of the time goes to one run, so that tokens expire and the stream is trimmed by age.
    for (kind, share) in [(Kind::Single, 6), (Kind::Sentinel, 1), (Kind::Cluster, 1)] {
        let end = Instant::now() + duration * share / 8;
        let faults = in_any_order(kind, Rng::with_seed(seed)).take_while(|_| Instant::now() < end);
        run(kind, seed, faults).await;
    }
}

/// The resources that an instance holds must not grow, whatever faults occur.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes as long as DURATION says: `make soak` runs it"]
async fn soak_for_as_long_as_asked() {
    let duration = Duration::from_secs(setting("DURATION").unwrap_or(3600));
    let seed = setting("SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    let mut faults = in_any_order(Kind::Single, Rng::with_seed(seed));
    let mut spell = async |world, share| {
        let end = Instant::now() + share;
        let faults = faults.by_ref().take_while(|_| Instant::now() < end);
        run::spell(world, seed, faults, &SOAK).await
    };
    let lives = SOAK.spared.as_slice();
    let (first, settled) = (Duration::from_mins(5).min(duration / 12), SETTLED.min(duration / 4));
    let world = spell(run::world(Kind::Single).await, first).await;
    println!("after {first:?}: {:#?}", Holdings::of(&world, lives).await);
    let world = spell(world, settled - first).await;
    let before = Holdings::of(&world, lives).await;
    println!("after {settled:?}: {before:#?}");
    let world = spell(world, duration - settled).await;
    let mut after = Holdings::of(&world, lives).await;
    // Connections that have just ended may still be closing.
    let is_within = comes_true(async || {
        after = Holdings::of(&world, lives).await;
        after.are_within(&before)
    });
    let is_within = is_within.await;
    println!("after {duration:?}: {after:#?}");
    assert!(is_within, "they hold more than before");
}

/// All faults, repeated endlessly, each time in another order. After each single fault comes a pair, until
/// every pair has been used, and so on.
fn in_any_order(kind: Kind, mut rng: Rng) -> impl Iterator<Item = Vec<Fault>> {
    let mut singles = Vec::new();
    let mut pairs = Vec::new();
    iter::repeat_with(move || {
        if singles.is_empty() {
            singles = Fault::of(kind).to_vec();
            rng.shuffle(&mut singles);
        }
        if pairs.is_empty() {
            pairs = Fault::pairs_of(kind);
            rng.shuffle(&mut pairs);
        }
        let single = singles.pop().map(|fault| vec![fault]);
        let pair = pairs.pop().map(|(one, other)| vec![one, other]);
        single.into_iter().chain(pair)
    })
    .flatten()
}

fn setting(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text}: it has to be a number")))
}
