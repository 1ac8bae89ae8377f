//! A run: a world, a load, one fault after another, and what the checker says in the end.

use std::{env, fs, sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::time::sleep;

use crate::{
    faults::{
        checker::{Verdict, check},
        finish::finish,
        history::Kind as Call,
        kinds::Fault,
        load::Running,
        strike::strike,
        table::{Table, Window, rows},
    },
    support::{
        clock,
        process::wait_until,
        world::{Kind, World},
    },
};

/// How long the load goes on before the first fault and after each.
const CALM: Duration = Duration::from_secs(1);
/// More of them tell nothing new.
const SHOWN: usize = 20;

/// Strikes the faults in this order, prints the table, and fails the test if a guarantee was broken.
pub async fn run(kind: Kind, seed: u64, faults: impl Iterator<Item = Fault>) {
    let mut rng = Rng::with_seed(seed);
    let mut world = World::start(kind).await;
    let running = Running::start(&world, rng.u64(..));
    let history = Arc::clone(&running.load.history);
    let window = |fault, must_not_be_felt| Window { fault, must_not_be_felt, from: history.now() };
    let mut windows = vec![window("no fault", true)];
    wait_until("the load is under way", async || {
        let lists = running.load.sessions.lists();
        lists.live.len() > 20 && lists.ended.len() > 20
    })
    .await;
    sleep(CALM).await;

    for fault in faults {
        let name = fault.name();
        if fault.needs_libfaketime() && !clock::can_be_stepped() {
            println!("left out, for want of libfaketime (apt-get install faketime): {name}");
            continue;
        }
        windows.push(window(name, fault.must_not_be_felt()));
        eprintln!("{:8.2} s  {name}", history.now().as_secs_f64());
        strike(fault, &mut world, &mut rng).await;
        world.wait_until_ready().await;
        sleep(CALM).await;
    }

    let load = running.stop().await;
    windows.push(window("when all is healed", false));
    finish(&load, &mut rng).await;

    let events = history.so_far();
    let Verdict { violations, left_out } = check(&events);
    let rows = rows(&windows, &events, &violations);
    let sessions = events.logins.len();
    let acknowledged =
        |kind| events.calls.iter().filter(|call| call.kind == kind && call.answer.is_yes()).count();
    println!(
        "\n{kind:?}, seed {seed}: {sessions} sessions, {left_out} in doubt; {} ended from another one, {} changes of a \
         password\n\n{}",
        acknowledged(Call::RevokeSession),
        acknowledged(Call::ChangePassword),
        Table(&rows)
    );
    for violation in violations.iter().take(SHOWN) {
        println!("{}", violation.story);
    }
    let felt: Vec<_> = rows.iter().flat_map(|row| &row.felt).collect();
    for call in felt.iter().take(SHOWN) {
        println!("Felt: session {}: {call}", call.session());
    }
    if !violations.is_empty() || !felt.is_empty() || env::var_os("KEEP").is_some() {
        let lines = events.calls.iter().map(|call| format!("session {}: {call}\n", call.session()));
        fs::write(world.folder().join("history.log"), lines.collect::<String>()).unwrap();
        world.keep();
    }
    assert!(violations.is_empty(), "{} violations with seed {seed}", violations.len());
    assert!(felt.is_empty(), "{} log-ins and log-outs were not to feel it, with seed {seed}", felt.len());
}
