//! The faults: each begins, and ends again some time later.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hallpass_allowlist::MemoryServer;
use tokio::time;

use crate::{
    clients::Clients,
    history::History,
    member::Member,
    network::{Random, Weather},
    store::Tables,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// An instance stands still.
    Pause,
    /// All connections of an instance to the bus are closed.
    BusCut,
    /// Nothing passes between an instance and the bus.
    BusSilent,
    /// An instance is far from the bus.
    BusSlow,
    /// All are far from the bus.
    BusSlowForAll,
    /// All connections of an instance to the store are closed.
    StoreCut,
    /// Nothing passes between an instance and the store.
    StoreSilent,
    /// An instance is far from the store.
    StoreSlow,
    /// The store does not work.
    StoreDown,
    /// The store loses a session that has not been revoked.
    StoreForgets,
    /// The bus loses its data.
    BusFlushed,
    /// The bus loses its events.
    BusTrimmed,
    /// Another server takes over, with a copy of the data.
    BusReplaced,
    /// Another server takes over, with a copy from some time ago.
    BusReplacedByOlder,
    /// Another server takes over for some instances, while the old one goes on.
    BusSplit,
    /// An instance crashes, and is started again.
    Crash,
    /// An instance stops, and is started again.
    Restart,
    /// An instance stops, and is started with another number of partitions.
    OtherPartitions,
    /// The wall clock of an instance is wrong by up to two days.
    WrongClock,
}

use Fault::{
    BusCut, BusFlushed, BusReplaced, BusReplacedByOlder, BusSilent, BusSlow, BusSlowForAll, BusSplit,
    BusTrimmed, Crash, OtherPartitions, Pause, Restart, StoreCut, StoreDown, StoreForgets, StoreSilent,
    StoreSlow, WrongClock,
};

const ALL: [Fault; 19] = [
    Pause,
    BusCut,
    BusSilent,
    BusSlow,
    BusSlowForAll,
    StoreCut,
    StoreSilent,
    StoreSlow,
    StoreDown,
    StoreForgets,
    BusFlushed,
    BusTrimmed,
    BusReplaced,
    BusReplacedByOlder,
    BusSplit,
    Crash,
    Restart,
    OtherPartitions,
    WrongClock,
];

impl Fault {
    /// Whether both may occur together. An instance that follows an old bus and cannot reach the store cannot be
    /// told from a dead one, unless a majority of nodes confirms what is written: see README, "Limitations".
    fn is_possible_with(self, other: Self, nodes: usize) -> bool {
        let moves = |fault| matches!(fault, BusReplaced | BusReplacedByOlder | BusSplit);
        let is_apart = |fault| matches!(fault, StoreCut | StoreSilent | StoreSlow | StoreDown);
        self != other
            && !(moves(self) && moves(other))
            && (nodes > 1 || !(moves(self) && is_apart(other) || moves(other) && is_apart(self)))
    }
}

/// The faults of one run. A session that both the store and the bus have lost is accepted where its revocation was not
/// known (docs/PROTOCOL.md, "not promised"): a run has one or the other.
fn faults_of_a_run(random: &Random) -> Vec<Fault> {
    let loses_events = |fault: &Fault| {
        matches!(fault, BusFlushed | BusTrimmed | BusReplaced | BusReplacedByOlder | BusSplit)
    };
    let store_forgets = random.is(30);
    ALL.into_iter()
        .filter(|fault| if store_forgets { !loses_events(fault) } else { *fault != StoreForgets })
        .collect()
}

pub struct Faults {
    pub members: Vec<Arc<Member>>,
    pub clients: Arc<Clients>,
    pub tables: Arc<Tables>,
    pub history: Arc<History>,
    pub random: Random,
    pub server: MemoryServer,
    pub nodes: usize,
}

impl Faults {
    /// Lets faults begin and end, one or two at a time, for this long. At the end there is none.
    pub async fn occur(&mut self, duration: Duration) {
        let end = time::Instant::now() + duration;
        let all = faults_of_a_run(&self.random);
        while time::Instant::now() < end {
            time::sleep(self.random.milliseconds(50..1500)).await;
            let first = all[self.random.with(|rng| rng.usize(..all.len()))];
            let second = all[self.random.with(|rng| rng.usize(..all.len()))];
            let mut both = vec![first];
            if self.random.is(40) && first.is_possible_with(second, self.nodes) {
                both.push(second);
            }
            let older = self.server.copy();
            for fault in both {
                let member = self.random.with(|rng| rng.usize(..self.members.len()));
                self.history.count("faults");
                self.history.note(|| format!("FAULT {fault:?} (instance {member})"));
                self.begin(fault, member, &older).await;
                time::sleep(self.random.milliseconds(0..400)).await;
            }
            let longest = if self.random.is(20) { 8000 } else { 2000 };
            time::sleep(self.random.milliseconds(50..longest)).await;
            self.heal();
        }
    }

    async fn begin(&mut self, fault: Fault, number: usize, older: &MemoryServer) {
        let member = Arc::clone(&self.members[number]);
        let slow = self.random.with(|rng| rng.u64(20..450));
        let slow = Weather { delay: slow / 2..slow + 1, ..Weather::FINE };
        let (cut, silent) =
            (Weather { is_cut: true, ..Weather::FINE }, Weather { is_silent: true, ..Weather::FINE });
        match fault {
            Pause => member.pause.set(true),
            BusCut => member.to_bus.wire.set(cut),
            BusSilent => member.to_bus.wire.set(silent),
            BusSlow => member.to_bus.wire.set(slow),
            BusSlowForAll => self.members.iter().for_each(|member| member.to_bus.wire.set(slow.clone())),
            StoreCut => member.to_store.set(cut),
            StoreSilent => member.to_store.set(silent),
            StoreSlow => member.to_store.set(slow),
            StoreDown => self.tables.set_down(true),
            StoreForgets => {
                let live = self.clients.newest(1).into_iter().map(|token| token.session_id);
                live.filter(|session_id| self.tables.is_revoked(*session_id) == Some(false))
                    .for_each(|session_id| self.tables.forget(session_id));
            }
            BusFlushed => self.server.flush(),
            BusTrimmed => self.server.trim(),
            BusReplaced => self.replace(&self.server.copy()).await,
            BusReplacedByOlder => self.replace(older).await,
            BusSplit => {
                let copy = if self.random.is(50) { older.clone() } else { self.server.copy() };
                if self.nodes > 1 {
                    self.server.set_confirmed(false);
                }
                self.lead_to(&copy, |random| random.is(50));
                time::sleep(self.random.milliseconds(0..4000)).await;
                self.lead_to(&copy, |_| true);
                self.server = copy;
            }
            Crash => {
                member.kill();
                time::sleep(self.random.milliseconds(0..3000)).await;
                member.start(1, self.nodes);
            }
            Restart => {
                member.leave().await;
                member.start(1, self.nodes);
            }
            OtherPartitions => {
                member.leave().await;
                member.start(2, self.nodes);
                time::sleep(self.random.milliseconds(0..9000)).await;
                member.leave().await;
                member.start(1, self.nodes);
            }
            WrongClock => {
                let ahead = self.random.with(|rng| rng.i64(-172_800..172_800));
                member.clock.ahead.store(ahead, Ordering::Relaxed);
            }
        }
    }

    /// Another server takes over. With several nodes, the old one gets no confirmation any more, and goes on.
    async fn replace(&mut self, server: &MemoryServer) {
        if self.nodes > 1 {
            self.server.set_confirmed(false);
        }
        self.lead_to(server, |_| true);
        self.server = server.clone();
    }

    /// Leads new connections of some instances to the server.
    fn lead_to(&self, server: &MemoryServer, is_meant: impl Fn(&Random) -> bool) {
        for member in &self.members {
            if is_meant(&self.random) {
                member.lead_to(server);
            }
        }
    }

    pub fn heal(&self) {
        self.history.note(|| "healed".into());
        self.members.iter().for_each(|member| member.heal());
        self.tables.set_down(false);
    }
}
