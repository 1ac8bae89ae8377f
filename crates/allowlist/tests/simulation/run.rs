//! One run: three instances, a guard, clients, faults, and the check that everything works again afterwards.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use hallpass_allowlist::{MemoryServer, seed as seed_randomness};
use tokio::{
    runtime::Builder,
    task::JoinSet,
    time::{self, Instant},
};

use crate::{
    clients::Clients, faults::Faults, history::History, member::Member, network::Random, store::Tables,
};

const INSTANCES: usize = 3;
const CLIENTS: usize = 5;

/// How long instances may take to work again when all faults have passed.
const RECOVERY: Duration = Duration::from_mins(1);

/// What was found in one run, or in several.
#[derive(Default)]
pub struct Outcome {
    pub seed: u64,
    pub violation: Option<String>,
    pub trace: Vec<String>,
    counts: BTreeMap<String, u64>,
}

impl Outcome {
    pub fn add(&mut self, other: Self) {
        for (what, count) in other.counts {
            *self.counts.entry(what).or_default() += count;
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<_> = self.counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        f.write_str(&counts.join(", "))
    }
}

/// Runs the simulation of a seed.
pub fn run(seed: u64, is_traced: bool) -> Outcome {
    seed_randomness(seed);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (counts, violation, trace) = runtime.block_on(async {
        let history = Arc::new(History::begin(is_traced));
        simulate(seed, &history).await;
        history.end()
    });
    // What still runs is dropped here, in simulated time.
    drop(runtime);
    Outcome { seed, violation, trace, counts }
}

async fn simulate(seed: u64, history: &Arc<History>) {
    let random = Random::new(seed);
    let (server, tables) = (MemoryServer::default(), Tables::begin());
    let new = |number, by_way_of: &[_]| Member::new(number, &server, &tables, history, &random, by_way_of);
    let mut members: Vec<_> = (0..INSTANCES).map(|number| new(number, &[])).collect();
    // The guard is the last member.
    members.push(new(INSTANCES, &members));
    let nodes = if random.is(50) { 3 } else { 1 };
    history.note(|| format!("{nodes} nodes"));
    members.iter().for_each(|member| member.start(1, nodes));
    let clients = Clients::new(&members, &tables, history, &random);
    // One in fifty runs is long enough for tokens to expire, and for instances to forget revocations.
    let (duration, longest_pause_ms) = if random.is(2) { (700, 2500) } else { (10, 250) };
    let mut calls = JoinSet::new();
    for _ in 0..CLIENTS {
        calls.spawn(Arc::clone(&clients).call_forever(longest_pause_ms));
    }
    let mut faults = Faults {
        members: members.clone(),
        clients: Arc::clone(&clients),
        tables: Arc::clone(&tables),
        history: Arc::clone(history),
        random: random.clone(),
        server,
        nodes,
    };
    faults.occur(Duration::from_secs(duration)).await;
    faults.heal();
    if let Err(what) = recover(&clients, &mut calls).await {
        history.violation(format!("stuck: {what}"));
    }
}

/// Waits until every instance holds its leases, decides about tokens, and revokes.
async fn recover(clients: &Clients, calls: &mut JoinSet<()>) -> Result<(), String> {
    let end = Instant::now() + RECOVERY;
    let is_over = || clients.history.has_violation() || Instant::now() > end;
    for member in &clients.members {
        while member.allowlist().is_none_or(|allowlist| !allowlist.is_ready()) {
            if is_over() {
                return Err(format!("instance {} holds no lease", member.number));
            }
            time::sleep(Duration::from_millis(100)).await;
        }
    }
    calls.shutdown().await;
    for token in clients.newest(12) {
        for member in &clients.members {
            while clients.check_token(member, &token).await.is_none() {
                if is_over() {
                    return Err(format!("instance {} decides nothing", member.number));
                }
                time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    for (place, token) in clients.newest(6).into_iter().enumerate() {
        let member = &clients.instances().nth(place % INSTANCES).unwrap();
        while !clients.revoke(member, &token).await {
            if is_over() {
                return Err(format!("instance {} revokes nothing", member.number));
            }
            time::sleep(Duration::from_millis(100)).await;
        }
        for member in &clients.members {
            while clients.check_token(member, &token).await.is_none() {
                if is_over() {
                    return Err(format!("instance {} decides nothing", member.number));
                }
                time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    Ok(())
}
