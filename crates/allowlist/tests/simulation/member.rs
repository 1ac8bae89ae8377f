//! One instance or guard: its ways to the bus and the store, its clock, and its allowlist while it runs.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hallpass_allowlist::{
    Allowlist, Bus, Clock, ClusterOptions, MemberKind, MemoryBus, MemoryServer, SharedSettings, StartError,
};
use tokio::time;

use crate::{
    history::History,
    network::{DriftingClock, Gated, Pause, Random, ToBus, Weather, Wire},
    store::{SimulatedStore, Tables, Unreachable},
};

/// How long a start may wait for the bus.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an instance may take to stop.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a member reconciles in the background.
const MAINTENANCE: Duration = Duration::from_secs(10);

/// The options of an instance, the same for all but for these.
pub fn options(bus: Bus, instance_name: impl Into<String>, own_thread: bool) -> ClusterOptions {
    ClusterOptions {
        bus,
        instance_name: instance_name.into(),
        kind: MemberKind::Instance,
        shared: SharedSettings {
            equal: BTreeMap::new(),
            signs: Some("key".into()),
            accepts: vec!["key".into()],
            token_form: 0,
            key_names: ["", ""],
        },
        startup_timeout: STARTUP_TIMEOUT,
        own_thread,
    }
}

pub struct Member {
    pub number: usize,
    pub pause: Arc<Pause>,
    pub to_bus: Arc<ToBus>,
    pub to_store: Arc<Wire>,
    pub clock: Arc<DriftingClock>,
    tables: Arc<Tables>,
    /// For a guard: the instances that it asks.
    by_way_of: Arc<[Arc<Member>]>,
    random: Random,
    history: Arc<History>,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    allowlist: Option<Arc<Allowlist<SimulatedStore>>>,
    /// Counts the starts, so that one that was overtaken by a stop does not come into effect.
    starts: u64,
}

impl Member {
    pub fn new(
        number: usize,
        server: &MemoryServer,
        tables: &Arc<Tables>,
        history: &Arc<History>,
        random: &Random,
        by_way_of: &[Arc<Self>],
    ) -> Arc<Self> {
        let pause = Arc::<Pause>::default();
        Arc::new(Self {
            number,
            to_bus: Arc::new(ToBus {
                wire: Wire::new(&pause, random),
                server: Mutex::new(server.clone()),
                earlier_live: AtomicBool::new(false),
            }),
            to_store: Wire::new(&pause, random),
            pause,
            clock: Arc::new(DriftingClock::new(random)),
            tables: Arc::clone(tables),
            by_way_of: by_way_of.into(),
            random: random.clone(),
            history: Arc::clone(history),
            running: Mutex::default(),
        })
    }

    pub fn store(&self) -> SimulatedStore {
        SimulatedStore {
            tables: Arc::clone(&self.tables),
            wire: Arc::clone(&self.to_store),
            by_way_of: Arc::clone(&self.by_way_of),
            random: self.random.clone(),
        }
    }

    /// Whether it only checks tokens, and reaches the store by way of the instances.
    pub fn is_guard(&self) -> bool {
        !self.by_way_of.is_empty()
    }

    async fn join(
        &self,
        options: ClusterOptions,
    ) -> Result<Allowlist<SimulatedStore>, StartError<Unreachable>> {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        if self.is_guard() {
            Allowlist::join(self.store(), clock, Some(options)).await
        } else {
            Allowlist::load(self.store(), clock, Some(options), self.clock.now()).await
        }
    }

    /// The allowlist, if this instance runs.
    pub fn allowlist(&self) -> Option<Arc<Allowlist<SimulatedStore>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).allowlist.clone()
    }

    /// Starts the instance, again and again until it runs, as a supervisor does.
    pub fn start(self: &Arc<Self>, partitions: u16, nodes: usize) {
        let start = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.starts += 1;
            running.starts
        };
        let member = Arc::clone(self);
        tokio::spawn(Gated::new(&self.pause, async move {
            let is_current = || {
                let running = member.running.lock().unwrap_or_else(PoisonError::into_inner);
                running.starts == start
            };
            while is_current() {
                let mut options = options(
                    Bus::memory(MemoryBus::through(Arc::clone(&member.to_bus) as _, partitions, nodes)),
                    format!("instance-{}", member.number),
                    false,
                );
                if member.is_guard() {
                    options.shared.signs = None;
                }
                match member.join(options).await {
                    Ok(allowlist) if is_current() => {
                        member.history.note(|| format!("instance {} runs", member.number));
                        let allowlist = Arc::new(allowlist);
                        member.maintain(&allowlist);
                        let mut running = member.running.lock().unwrap_or_else(PoisonError::into_inner);
                        running.allowlist = Some(allowlist);
                        return;
                    }
                    Ok(overtaken) => overtaken.leave().await,
                    Err(error) => {
                        member.history.count("refused starts");
                        member.history.note(|| format!("instance {} does not start: {error}", member.number));
                        time::sleep(Duration::from_secs(1)).await;
                    }
                }
            }
        }));
    }

    fn maintain(&self, allowlist: &Arc<Allowlist<SimulatedStore>>) {
        let (allowlist, clock) = (Arc::downgrade(allowlist), Arc::clone(&self.clock));
        tokio::spawn(Gated::new(&self.pause, async move {
            loop {
                time::sleep(MAINTENANCE).await;
                let Some(allowlist) = allowlist.upgrade() else { return };
                let _ = allowlist.maintain(clock.now()).await;
            }
        }));
    }

    /// Ends the instance as a crash does.
    pub fn kill(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.starts += 1;
        running.allowlist = None;
    }

    /// Ends the instance as SIGTERM does, and SIGKILL if that takes too long. It answers meanwhile, and for some time
    /// after it has left the others.
    pub async fn leave(&self, then: Duration) {
        let allowlist = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.starts += 1;
            running.allowlist.clone()
        };
        if let Some(allowlist) = allowlist {
            let leaving = Gated::new(&self.pause, allowlist.leave());
            if time::timeout(LEAVE_TIMEOUT, leaving).await.is_ok() {
                time::sleep(then).await;
            }
        }
        self.kill();
    }

    /// Ends all that disturbs this instance, except that its wall clock stays wrong, and connections to earlier servers if
    /// they go on.
    pub fn heal(&self, earlier_live: bool) {
        self.pause.set(false);
        self.to_bus.wire.set(Weather::FINE);
        self.to_store.set(Weather::FINE);
        self.to_bus.earlier_live.store(earlier_live, Ordering::Relaxed);
    }

    /// Leads new connections to the bus to this server. Those to earlier ones end, or go on.
    pub fn lead_to(&self, server: &MemoryServer, earlier_live: bool) {
        self.to_bus.earlier_live.store(earlier_live, Ordering::Relaxed);
        *self.to_bus.server.lock().unwrap_or_else(PoisonError::into_inner) = server.clone();
    }
}
