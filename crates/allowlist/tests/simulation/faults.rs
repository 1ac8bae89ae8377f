//! The faults: each begins, and ends again some time later.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::join_all;
use hallpass_allowlist::MemoryServer;
use tokio::time;

use crate::{
    clients::Clients,
    history::History,
    member::Member,
    network::{Random, Weather},
    store::Tables,
};

/// Messages are lost and sent again: some to the bus take longer than a command may, and none to the store so long that
/// an instance cannot write its row for five seconds.
const LOSSY_BUS: Weather = Weather { resent: Some(20..1100), ..Weather::FINE };
const LOSSY_STORE: Weather = Weather { resent: Some(20..700), ..Weather::FINE };

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
    /// Many messages between an instance and the bus are lost and sent again.
    BusLossy,
    /// All connections of an instance to the store are closed.
    StoreCut,
    /// Nothing passes between an instance and the store.
    StoreSilent,
    /// An instance is far from the store.
    StoreSlow,
    /// Many messages between an instance and the store are lost and sent again.
    StoreLossy,
    /// The store does not work.
    StoreDown,
    /// The store loses a session that has not been revoked.
    StoreForgets,
    /// The bus loses its data.
    BusFlushed,
    /// The bus loses its events.
    BusTrimmed,
    /// The bus loses the membership and the head of the chain.
    BusEvicted,
    /// Another server takes over, with a copy of the data.
    BusReplaced,
    /// Another server takes over, with a copy from some time ago.
    BusReplacedByOlder,
    /// Another server takes over for some instances, while the old one goes on.
    BusSplit,
    /// Another server takes over, and an instance does not notice before the others consider it dead: it stands still,
    /// or, if it cannot get a write confirmed any more, does not reach the store.
    LeftBehind,
    /// An instance crashes, and is started again.
    Crash,
    /// An instance stops, and is started again.
    Restart,
    /// All instances stop, and are started again, but for one that stands still: the others consider that its lease has
    /// expired.
    RestartWithoutOne,
    /// An instance stops, and is started with another number of partitions.
    OtherPartitions,
    /// The same, while the others do not reach the store, which would tell them.
    OtherPartitionsUnseen,
    /// The wall clock of an instance is wrong by up to two days.
    WrongClock,
}

use Fault::{
    BusCut, BusEvicted, BusFlushed, BusLossy, BusReplaced, BusReplacedByOlder, BusSilent, BusSlow,
    BusSlowForAll, BusSplit, BusTrimmed, Crash, LeftBehind, OtherPartitions, OtherPartitionsUnseen, Pause,
    Restart, RestartWithoutOne, StoreCut, StoreDown, StoreForgets, StoreLossy, StoreSilent, StoreSlow,
    WrongClock,
};

const ALL: [Fault; 25] = [
    Pause,
    BusCut,
    BusSilent,
    BusSlow,
    BusSlowForAll,
    BusLossy,
    StoreCut,
    StoreSilent,
    StoreSlow,
    StoreLossy,
    StoreDown,
    StoreForgets,
    BusFlushed,
    BusTrimmed,
    BusEvicted,
    BusReplaced,
    BusReplacedByOlder,
    BusSplit,
    LeftBehind,
    Crash,
    Restart,
    RestartWithoutOne,
    OtherPartitions,
    OtherPartitionsUnseen,
    WrongClock,
];

impl Fault {
    /// Whether both may occur together. An instance that follows an old bus and cannot reach the store cannot be
    /// told from a dead one, unless a majority of nodes confirms what is written: see README, "Limitations".
    fn is_possible_with(self, other: Self, nodes: usize) -> bool {
        let moves = |fault| matches!(fault, BusReplaced | BusReplacedByOlder | BusSplit | LeftBehind);
        let is_apart =
            |fault| matches!(fault, StoreCut | StoreSilent | StoreSlow | StoreDown | OtherPartitionsUnseen);
        self != other
            && !(moves(self) && moves(other))
            && (nodes > 1 || !(moves(self) && is_apart(other) || moves(other) && is_apart(self)))
    }
}

/// The faults of one run. A session that both the store and the bus have lost is accepted where its revocation was not
/// known (docs/PROTOCOL.md, "not promised"): a run has one or the other. Instances with another number of partitions
/// read other streams.
fn faults_of_a_run(random: &Random) -> Vec<Fault> {
    let loses_events = |fault: &Fault| {
        matches!(
            fault,
            BusFlushed
                | BusTrimmed
                | BusReplaced
                | BusReplacedByOlder
                | BusSplit
                | LeftBehind
                | OtherPartitions
                | OtherPartitionsUnseen
        )
    };
    let store_forgets = random.is(30);
    let mut faults: Vec<_> = ALL
        .into_iter()
        .filter(|fault| if store_forgets { !loses_events(fault) } else { *fault != StoreForgets })
        .collect();
    // Many runs have few kinds of faults, so that each meets each other more often.
    match random.with(|rng| rng.u8(..100)) {
        0..30 => {}
        30..80 => {
            let count = random.with(|rng| {
                rng.shuffle(&mut faults);
                rng.usize(2..6)
            });
            faults.truncate(count);
        }
        _ => faults = vec![BusSplit, BusSplit, LeftBehind, BusCut, BusLossy, StoreLossy],
    }
    faults
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
            BusLossy => member.to_bus.wire.set(LOSSY_BUS),
            BusSlowForAll => self.members.iter().for_each(|member| member.to_bus.wire.set(slow.clone())),
            StoreCut => member.to_store.set(cut),
            StoreSilent => member.to_store.set(silent),
            StoreSlow => member.to_store.set(slow),
            StoreLossy => member.to_store.set(LOSSY_STORE),
            StoreDown => self.tables.set_down(true),
            StoreForgets => {
                let live = self.clients.newest(1).into_iter().map(|token| token.session_id);
                live.filter(|session_id| self.tables.is_revoked(*session_id) == Some(false))
                    .for_each(|session_id| self.tables.forget(session_id));
            }
            BusFlushed => self.server.flush(),
            BusTrimmed => self.server.trim(),
            BusEvicted => self.server.evict(),
            BusReplaced => self.replace(&self.server.copy()).await,
            BusReplacedByOlder => self.replace(older).await,
            BusSplit => self.split(older).await,
            LeftBehind => self.leave_behind(&member, older).await,
            Crash => {
                member.kill();
                time::sleep(self.random.milliseconds(0..3000)).await;
                member.start(1, self.nodes);
            }
            Restart => {
                member.leave(self.random.milliseconds(0..2000)).await;
                member.start(1, self.nodes);
            }
            RestartWithoutOne => self.restart_without(&member).await,
            OtherPartitions => self.restart_with_others(&member, 0).await,
            OtherPartitionsUnseen => {
                self.others(&member).for_each(|other| other.to_store.set(cut.clone()));
                self.restart_with_others(&member, 5000).await;
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

    async fn split(&mut self, older: &MemoryServer) {
        let server = if self.random.is(50) { older.clone() } else { self.server.copy() };
        if self.nodes > 1 {
            self.server.set_confirmed(false);
        }
        let restarts = self.random.is(30);
        if restarts || self.random.is(50) {
            self.members.iter().for_each(|member| member.to_store.set(LOSSY_STORE));
        }
        if restarts {
            join_all(self.members.iter().map(|member| member.leave(Duration::ZERO))).await;
        }
        self.lead_to(&server, |random| random.is(50));
        if restarts {
            self.members.iter().for_each(|member| member.start(1, self.nodes));
        }
        let longest = if self.random.is(50) { 1500 } else { 4000 };
        time::sleep(self.random.milliseconds(0..longest)).await;
        self.lead_to(&server, |_| true);
        self.server = server;
        time::sleep(self.random.milliseconds(0..2000)).await;
    }

    async fn leave_behind(&mut self, member: &Arc<Member>, older: &MemoryServer) {
        let server = if self.random.is(50) { older.clone() } else { self.server.copy() };
        self.others(member).for_each(|other| other.lead_to(&server, false));
        member.to_bus.earlier_live.store(true, Ordering::Relaxed);
        if self.nodes > 1 {
            self.server.set_confirmed(false);
            member.to_store.set(Weather { is_cut: true, ..Weather::FINE });
        } else {
            if self.random.is(50) {
                // It begins to follow again when it stops.
                self.members.iter().for_each(|member| member.to_store.set(LOSSY_STORE));
                member.to_bus.wire.set(Weather { is_cut: true, ..Weather::FINE });
                time::sleep(self.random.milliseconds(0..50)).await;
                member.to_bus.wire.set(Weather::FINE);
                time::sleep(self.random.milliseconds(0..1000)).await;
            }
            member.pause.set(true);
        }
        self.server = server;
        time::sleep(self.random.milliseconds(5000..9000)).await;
        member.lead_to(&self.server, true);
        member.pause.set(false);
        if self.nodes == 1 && self.random.is(50) {
            member.to_store.set(LOSSY_STORE);
        }
        time::sleep(self.random.milliseconds(0..2000)).await;
    }

    async fn restart_without(&self, member: &Arc<Member>) {
        member.pause.set(true);
        time::sleep(self.random.milliseconds(0..1800)).await;
        join_all(self.others(member).map(|other| other.leave(Duration::ZERO))).await;
        self.others(member).for_each(|other| other.start(1, self.nodes));
        time::sleep(self.random.milliseconds(0..1200)).await;
        if self.random.is(50) {
            self.others(member).for_each(|other| other.to_bus.wire.set(LOSSY_BUS));
        }
        member.pause.set(false);
    }

    /// Starts the instance with another number of partitions, for this many milliseconds or longer.
    async fn restart_with_others(&self, member: &Arc<Member>, shortest_ms: u64) {
        member.leave(self.random.milliseconds(0..2000)).await;
        member.start(2, self.nodes);
        time::sleep(self.random.milliseconds(shortest_ms..shortest_ms + 9000)).await;
        member.leave(Duration::ZERO).await;
        member.start(1, self.nodes);
    }

    fn others<'a>(&'a self, member: &'a Arc<Member>) -> impl Iterator<Item = &'a Arc<Member>> {
        self.members.iter().filter(|other| !Arc::ptr_eq(other, member))
    }

    /// Leads new connections of some instances to the server. Those that exist end, or go on until the fault has passed.
    fn lead_to(&self, server: &MemoryServer, is_meant: impl Fn(&Random) -> bool) {
        let earlier_live = self.random.is(50);
        for member in &self.members {
            if is_meant(&self.random) {
                member.lead_to(server, earlier_live);
            }
        }
    }

    pub fn heal(&self) {
        self.history.note(|| "healed".into());
        // A primary that was replaced and has no replicas any more may run on, and accept commands.
        self.members.iter().for_each(|member| member.heal(self.nodes > 1));
        self.tables.set_down(false);
    }
}
