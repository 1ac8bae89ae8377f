//! A run: a world, a load, one fault after another, and the verdict of the checker.

use std::{env, fs, sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::{sync::Mutex, time::sleep};

use crate::{
    client::Api,
    faults::{
        checker::{Breach, Verdict, check},
        finish::finish,
        history::{Events, History, Kind as Call},
        kinds::Fault,
        load::Running,
        strike::{WITHOUT_GRACE, strike},
        table::{Table, Window, rows},
    },
    support::{
        clock,
        health::{self, CONNECTIONS},
        process::wait_until,
        world::{INSTANCES, Kind, World},
    },
};

/// The time without a fault at the start and after each fault.
const CALM: Duration = Duration::from_secs(1);
/// A little longer than the report of a departed instance counts.
const FORGOTTEN: Duration = Duration::from_millis(1500);
/// The number of faults between two calms in which all counts have to be right.
const LOOKS_EVERY: usize = 6;
/// The number of violations of each kind that are printed.
const SHOWN: usize = 10;
/// The number of calls in a hundred that are not waited for.
const HANG_UPS: u8 = 10;

/// The rate of calls and faults, and the instance that is spared.
pub struct Rate {
    /// The factor by which the pauses between calls are longer than usual.
    pub slowness: u32,
    /// The pause between two faults.
    pub rest: Duration,
    /// The instance whose process is never ended.
    pub spared: Option<usize>,
}

/// The full rate, without pauses between faults.
const FULL: Rate = Rate { slowness: 1, rest: Duration::ZERO, spared: None };

/// Injects the faults in this order, in a world of their own.
pub async fn run(kind: Kind, seed: u64, faults: impl Iterator<Item = Vec<Fault>>) {
    spell(world(kind).await, seed, faults, &FULL).await;
}

/// A world in which one instance has no shutdown grace.
pub async fn world(kind: Kind) -> World {
    let mut world = World::for_faults(kind).await;
    let impatient = &mut world.instances[WITHOUT_GRACE];
    impatient.kill();
    impatient.set("HALLPASS_SHUTDOWN_GRACE", "0");
    impatient.start_again();
    world.wait_until_ready().await;
    world
}

/// Injects the faults in this order, one or two at a time, with a `rest` between them. Prints the table, and
/// fails the test if a guarantee was broken or an instance did not recover. The load has ended when this
/// returns the world.
pub async fn spell(world: World, seed: u64, faults: impl Iterator<Item = Vec<Fault>>, rate: &Rate) -> World {
    let mut rng = Rng::with_seed(seed);
    let (kind, members) = (world.store.kind(), world.members());
    let api = Api::of(&world);
    let running = Running::start(&world, rng.u64(..), HANG_UPS, rate.slowness);
    let history = Arc::clone(&running.load.history);
    let window = |fault: String, must_not_be_felt| Window { fault, must_not_be_felt, from: history.now() };
    let mut windows = vec![window("no fault".into(), true)];
    wait_until("the load is under way", async || {
        let lists = running.load.sessions.lists();
        lists.live.len() > 20 && lists.ended.len() > 20
    })
    .await;
    sleep(FORGOTTEN).await;
    calm(&history, members).await;

    let world = Mutex::new(world);
    let mut broken = Vec::new();
    for (number, mut faults) in faults.enumerate() {
        if faults.iter().any(|fault| fault.needs_libfaketime()) && !clock::can_be_stepped() {
            println!("left out, for want of libfaketime (apt-get install faketime): {faults:?}");
            continue;
        }
        // The fault that always affects the same instance comes first.
        faults.sort_by_key(|fault| *fault != Fault::InstanceToldAtOnce);
        let names: Vec<_> = faults.iter().map(|fault| fault.name()).collect();
        let name = names.join(" + ");
        let must_not_be_felt = faults.iter().all(|fault| fault.must_not_be_felt());
        windows.push(window(name.clone(), must_not_be_felt));
        eprintln!("{:8.2} s  {name}", history.now().as_secs_f64());
        // Two simultaneous faults affect two instances, and begin at slightly different times.
        let first = rate.choose(faults[0], None, &mut rng);
        let other = rate.choose(faults[faults.len() - 1], Some(first), &mut rng);
        let (mut rng_of_first, mut rng_of_other) = (rng.fork(), rng.fork());
        let later = Duration::from_millis(rng.u64(..1500));
        let one = strike(faults[0], &world, first, &mut rng_of_first);
        let second = async {
            let Some(fault) = faults.get(1) else { return Ok(()) };
            sleep(later).await;
            strike(*fault, &world, other, &mut rng_of_other).await
        };
        let (one, second) = tokio::join!(one, second);
        windows.push(window("... and all that instances can, afterwards".into(), false));
        let mut world = world.lock().await;
        let works = health::check_all(&world, &api, CONNECTIONS).await;
        for what in [one, second, works].into_iter().filter_map(Result::err) {
            eprintln!("broken after {name}: {what}");
            broken.push(format!("{name}: {what}"));
            // The next fault starts with new processes.
            for instance in &mut world.instances {
                instance.kill();
                instance.start_again();
            }
        }
        world.wait_until_ready().await;
        drop(world);
        if number % LOOKS_EVERY == 0 {
            sleep(FORGOTTEN).await;
            calm(&history, members).await;
        } else {
            sleep(CALM).await;
        }
        sleep(rate.rest).await;
    }
    let mut world = world.into_inner();

    let load = running.stop().await;
    windows.push(window("when all is healed".into(), false));
    finish(&load, &mut rng).await;

    let events = history.so_far();
    let Verdict { violations, left_out } = check(&events);
    let rows = rows(&windows, &events, &violations);
    let sessions = events.logins.len();
    let acknowledged =
        |kind| events.calls.iter().filter(|call| call.kind == kind && call.answer.is_yes()).count();
    println!(
        "\n{kind:?}, seed {seed}: {sessions} sessions, {left_out} in doubt; {} ended from another one, {} changes of a \
         password, {} resets, {} accounts deleted, {} passkeys added or removed\n\n{}",
        acknowledged(Call::RevokeSession),
        acknowledged(Call::ChangePassword),
        acknowledged(Call::ResetPassword),
        acknowledged(Call::DeleteAccount),
        acknowledged(Call::ChangeFactor),
        Table(&rows)
    );
    for breach in Breach::ALL {
        let of_its_kind = violations.iter().filter(|violation| violation.breach == breach);
        of_its_kind.take(SHOWN).for_each(|violation| println!("{}", violation.story));
    }
    let felt: Vec<_> = rows.iter().flat_map(|row| &row.felt).collect();
    for call in felt.iter().take(SHOWN) {
        println!("Felt: session {}: {call}", call.session());
    }
    let (counted, all) = counted_all(&events);
    for what in &broken {
        println!("Broken: {what}");
    }
    if !violations.is_empty() || !broken.is_empty() || !felt.is_empty() || env::var_os("KEEP").is_some() {
        let lines = events.calls.iter().map(|call| format!("session {}: {call}\n", call.session()));
        fs::write(world.folder().join("history.log"), lines.collect::<String>()).unwrap();
        world.keep();
    }
    assert!(broken.is_empty(), "{} times something did not recover, with seed {seed}", broken.len());
    assert!(violations.is_empty(), "{} violations with seed {seed}", violations.len());
    assert!(felt.is_empty(), "{} log-ins and log-outs were not to feel it, with seed {seed}", felt.len());
    // An instance that gets no processor time for a second is not counted: correct, but it must be rare.
    assert!(
        counted * 10 >= all * 9,
        "of {all} revocations while nothing was wrong {counted} counted all instances"
    );
    world
}

impl Rate {
    /// The instance that the fault affects.
    fn choose(&self, fault: Fault, taken: Option<usize>, rng: &mut Rng) -> usize {
        if fault == Fault::InstanceToldAtOnce {
            return WITHOUT_GRACE;
        }
        let spared = self.spared.filter(|_| fault.ends_instance());
        let instances: Vec<_> =
            (0..INSTANCES).filter(|one| Some(*one) != taken && Some(*one) != spared).collect();
        *rng.choice(&instances).expect("at most two of three are left out")
    }
}

/// The revocations in times without a fault: how many counted all instances, and how many there were.
fn counted_all(events: &Events) -> (usize, usize) {
    let mut counts = (0, 0);
    for call in events.calls.iter().filter(|call| call.answer.is_yes()) {
        let Some((instances, _)) = call.counts else { continue };
        let calm = events.calm.iter().find(|(from, to, _)| *from <= call.sent && call.ended <= *to);
        if let Some((_, _, running)) = calm {
            counts.0 += usize::from(instances == *running);
            counts.1 += 1;
        }
    }
    counts
}

/// Waits, and records the time as one without a fault.
async fn calm(history: &History, members: usize) {
    let from = history.now();
    sleep(CALM).await;
    history.was_calm(from, members);
}
