//! The code of this crate, run in simulated time: three instances and a guard on one thread, over a bus and a store in memory.
//!
//! A seed determines everything: how long each message takes, which calls clients drop and at which await, how far
//! clocks drift, and which faults occur. So a run that finds something can be repeated, and prints what happened.
//! Each run is held against the guarantee:
//!
//! - **accepted**: no instance accepts a token in a call that starts after its revocation was acknowledged; and in a call
//!   that started before, it does so only if it asks the store,
//! - **refused**: no instance refuses a token whose session has not been revoked,
//! - **stuck**: once all faults have passed, every instance holds its leases again, and revokes.
//!
//! `make simulate` runs as many seeds as wanted.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use crate::run::{Outcome, run};

mod clients;
mod faults;
mod history;
mod member;
mod network;
mod real_time;

mod run;
mod scale;
mod store;

/// The number of seeds in each test run.
const SEEDS: u64 = 400;

#[test]
fn the_guarantee_holds_in_simulations() {
    simulate(0, SEEDS);
}

#[test]
fn a_seed_determines_all_that_happens() {
    let (first, second) = (run(7, true), run(7, true));
    assert!(first.trace.len() > 100, "{} lines", first.trace.len());
    for (number, (one, other)) in first.trace.iter().zip(&second.trace).enumerate() {
        assert_eq!(one, other, "line {number}");
    }
    assert_eq!(first.trace.len(), second.trace.len());
}

#[test]
#[ignore = "takes as long as RUNS says: `make simulate` runs it"]
fn the_guarantee_holds_in_as_many_simulations_as_asked() {
    simulate(setting("SEED").unwrap_or_default(), setting("RUNS").unwrap_or(5000));
}

/// Runs seeds from `first` on, on all cores.
fn simulate(first: u64, runs: u64) {
    let began = Instant::now();
    // No seed after the first that finds something is run.
    let end = AtomicU64::new(first + runs);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let mut outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let end = &end;
        let workers: Vec<_> = (0..cores)
            .map(|core| {
                scope.spawn(move || {
                    let mut total = Outcome::default();
                    for seed in (first..first + runs).filter(|seed| seed % cores == core) {
                        if seed >= end.load(Ordering::Relaxed) {
                            break;
                        }
                        let outcome = run(seed, false);
                        if outcome.violation.is_some() {
                            end.fetch_min(seed, Ordering::Relaxed);
                            return run(seed, true);
                        }
                        total.add(outcome);
                    }
                    total
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    outcomes.sort_by_key(|outcome| outcome.seed);
    let mut total = Outcome::default();
    for outcome in outcomes {
        if let Some(violation) = outcome.violation {
            outcome.trace.iter().for_each(|line| println!("{line}"));
            panic!("seed {}: {violation}", outcome.seed);
        }
        total.add(outcome);
    }
    println!("{runs} runs from seed {first}: {total} in {:.1} s", began.elapsed().as_secs_f64());
}

fn setting(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text}: it has to be a number")))
}
