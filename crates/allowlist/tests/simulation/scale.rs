//! What the exchange costs each Redis node with a hundred members: messages and bytes, counted in simulated time. No
//! faults. Messages take [`DELAY`], and a node takes its time for each, one after another; the store takes none for
//! what a logout records. `make scale` prints the figures of docs/SCALE.md.

use std::{
    collections::BTreeMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use hallpass_allowlist::{
    Allowlist, Bus, Clock, MAX_TOKEN_LIFE, Message, Meter, MeteredBus, Recorded, RevokedSession, SessionId,
    TokenId, TokenRecord, UnixSeconds, Uptime, UserId, seed,
};
use tokio::{
    runtime::Builder,
    sync::oneshot,
    task::{self, JoinSet},
    time::{self, Instant},
};

use crate::{
    member::options,
    network::{Pause, Random, Wire},
    store::{SimulatedStore, Tables},
};

/// How long a message is under way, within a data center.
const DELAY: Duration = Duration::from_micros(100);

/// The CPU time of a node for a command, for the answer to a read that has waited, and for each event in that: measured
/// with Redis 7.0 and a hundred connections that are all busy.
const RENEW: Duration = Duration::from_nanos(11_500);
const READ: Duration = Duration::from_nanos(4_300);
const READ_ANSWER: Duration = Duration::from_micros(2);
const EVENT: Duration = Duration::from_nanos(500);
const PUBLISH: Duration = Duration::from_nanos(15_500);
const OTHER: Duration = Duration::from_micros(4);

/// The sessions that are refreshed.
const SESSIONS: usize = 1000;

/// How long figures are counted while nothing happens.
const IDLE: Duration = Duration::from_secs(2);

/// The simulated time. The timers of Tokio know milliseconds, and messages take microseconds.
#[derive(Default)]
struct Timeline(Mutex<Sleepers>);

#[derive(Default)]
struct Sleepers {
    /// The number that there have been.
    count: u64,
    /// By when they are due, and by their numbers.
    waiting: BTreeMap<(Instant, u64), oneshot::Sender<()>>,
}

impl Timeline {
    fn until(&self, due: Instant) -> impl Future<Output = ()> + Send + 'static {
        let (sender, receiver) = oneshot::channel();
        let mut sleepers = lock(&self.0);
        sleepers.count += 1;
        let number = sleepers.count;
        sleepers.waiting.insert((due, number), sender);
        async move {
            let _ = receiver.await;
        }
    }

    fn wake(&self, now: Instant) {
        let mut sleepers = lock(&self.0);
        while let Some(first) = sleepers.waiting.first_entry().filter(|first| first.key().0 <= now) {
            let _ = first.remove().send(());
        }
    }

    /// Lets time pass whenever all other tasks wait.
    async fn pass(self: Arc<Self>) {
        let began = Instant::now();
        for tick in (1..).map(|tick| began + Duration::from_millis(tick)) {
            loop {
                let next =
                    lock(&self.0).waiting.first_key_value().map_or(tick, |((due, _), _)| tick.min(*due));
                time::advance(next - Instant::now()).await;
                self.wake(next);
                task::yield_now().await;
                if next == tick {
                    break;
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    messages: u64,
    bytes: usize,
    events: usize,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.events += other.events;
    }
}

/// What a node has received and sent.
#[derive(Debug, Default, Clone)]
struct Usage {
    /// By command, and whether it is the answer.
    by_command: BTreeMap<(&'static str, bool), Tally>,
    busy: Duration,
}

impl Usage {
    fn of(&self, command: &'static str, is_answer: bool) -> Tally {
        self.by_command.get(&(command, is_answer)).copied().unwrap_or_default()
    }

    fn total(&self, is_answer: bool) -> Tally {
        let mut total = Tally::default();
        self.by_command
            .iter()
            .filter(|((_, other), _)| *other == is_answer)
            .for_each(|(_, one)| total += *one);
        total
    }
}

#[derive(Default)]
struct Node {
    /// The time until which it has work.
    busy_until: Option<Instant>,
    usage: Usage,
}

/// The nodes, one for each partition.
struct Nodes {
    timeline: Arc<Timeline>,
    nodes: Vec<Mutex<Node>>,
}

impl Nodes {
    /// Counts a message that has arrived or is to be sent, and returns when that is done.
    fn work(&self, message: &Message) -> Instant {
        let takes = match (message.command, message.is_answer) {
            ("read", true) => READ_ANSWER + EVENT * u32::try_from(message.events).unwrap(),
            (_, true) => Duration::ZERO,
            ("renew", _) => RENEW,
            ("read", _) => READ,
            ("revoke" | "allow", _) => PUBLISH,
            _ => OTHER,
        };
        let mut node = lock(&self.nodes[message.partition]);
        let tally = node.usage.by_command.entry((message.command, message.is_answer)).or_default();
        *tally += Tally { messages: 1, bytes: message.bytes, events: message.events };
        node.usage.busy += takes;
        let done = node.busy_until.map_or_else(Instant::now, |until| until.max(Instant::now())) + takes;
        node.busy_until = Some(done);
        done
    }

    /// The usage of all nodes since this was last called.
    fn take(&self) -> Vec<Usage> {
        self.nodes.iter().map(|node| mem::take(&mut lock(node).usage)).collect()
    }
}

/// The way of all members to all nodes.
struct Way(Arc<Nodes>);

impl Meter for Way {
    fn cross(&self, message: Message) -> BoxFuture<'static, ()> {
        let nodes = Arc::clone(&self.0);
        async move {
            if !message.is_answer {
                nodes.timeline.until(Instant::now() + DELAY).await;
            }
            let done = nodes.work(&message);
            nodes.timeline.until(if message.is_answer { done + DELAY } else { done }).await;
        }
        .boxed()
    }
}

/// The simulated time is right everywhere.
struct RightClock(Instant, Arc<Tables>);

impl Clock for RightClock {
    fn now(&self) -> UnixSeconds {
        self.1.now()
    }

    fn uptime(&self) -> Uptime {
        Uptime::after(Duration::from_secs(1000) + self.0.elapsed())
    }
}

/// What is simulated.
#[derive(Debug, Clone, Copy)]
struct Load {
    members: usize,
    partitions: u16,
    /// Those that begin each second.
    revocations: f64,
    refreshes: f64,
    /// Beside these, revocations one after another.
    one_at_a_time: bool,
    duration: Duration,
}

type Members = Arc<[Allowlist<SimulatedStore>]>;

struct Figures {
    load: Load,
    /// Of each node.
    idle: Vec<Usage>,
    loaded: Vec<Usage>,
    /// How long each revocation took, in order.
    times: Vec<Duration>,
}

impl Figures {
    /// A figure of each node, on average, each second under load.
    fn busy(&self, figure: impl Fn(&Usage) -> f64) -> f64 {
        let total: f64 = self.loaded.iter().map(figure).sum();
        total / self.loaded.len() as f64 / self.load.duration.as_secs_f64()
    }

    fn idle(&self, figure: impl Fn(&Usage) -> f64) -> f64 {
        let total: f64 = self.idle.iter().map(figure).sum();
        total / self.idle.len() as f64 / IDLE.as_secs_f64()
    }

    fn milliseconds(&self, share: f64) -> f64 {
        let at = (self.times.len() as f64 * share) as usize;
        self.times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    }
}

fn run(load: Load) -> Figures {
    seed(1);
    // A task that yields is resumed when all others wait.
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .event_interval(u32::MAX)
        .build()
        .unwrap();
    runtime.block_on(async {
        let timeline = Arc::<Timeline>::default();
        tokio::spawn(Arc::clone(&timeline).pass());
        let nodes = (0..load.partitions).map(|_| Mutex::default()).collect();
        let nodes = Arc::new(Nodes { timeline, nodes });
        let members = start(load, &nodes).await;
        // Reports count in epochs that are older than a lease.
        time::sleep(Duration::from_secs(2)).await;
        nodes.take();
        time::sleep(IDLE).await;
        let idle = nodes.take();
        let (loaded, times) = offer(load, &nodes, &members).await;
        assert!(members.iter().all(Allowlist::is_ready));
        Figures { load, idle, loaded, times }
    })
}

async fn start(load: Load, nodes: &Arc<Nodes>) -> Members {
    let bus = MeteredBus::new(load.partitions, Arc::new(Way(Arc::clone(nodes))));
    let tables = Tables::begin();
    let loading = (0..load.members).map(|number| {
        let random = Random::new(1);
        let wire = Wire::new(&Arc::<Pause>::default(), &random);
        let store = SimulatedStore { tables: Arc::clone(&tables), wire, by_way_of: Arc::default(), random };
        let options = options(Bus::metered(bus.clone()), format!("instance-{number}"), false);
        let clock = Arc::new(RightClock(Instant::now(), Arc::clone(&tables)));
        Allowlist::load(store, clock, Some(options), tables.now())
    });
    join_all(loading).await.into_iter().map(Result::unwrap).collect()
}

/// Revokes a session that has one token.
async fn revoke(members: &Members, member: usize) -> Duration {
    let (session_id, user_id) = (SessionId::random(), UserId::random());
    let session = RevokedSession { session_id, user_id: Some(user_id), tokens: vec![TokenId::random()] };
    let recording = async move { Ok(Some(Recorded { session, is_new: true })) };
    let began = Instant::now();
    let done = members[member].logout(session_id, Some(user_id), recording).await.unwrap();
    assert_eq!((done.instances, done.acknowledged), (done.acknowledged, members.len().try_into().unwrap()));
    began.elapsed()
}

/// Resolves again and again, `rate` times a second on average, at random.
struct Arrivals {
    timeline: Arc<Timeline>,
    next: Instant,
    rate: f64,
    random: Rng,
}

impl Arrivals {
    fn new(nodes: &Nodes, rate: f64) -> Self {
        Self { timeline: Arc::clone(&nodes.timeline), next: Instant::now(), rate, random: Rng::with_seed(1) }
    }

    async fn next(&mut self) {
        self.next += Duration::from_secs_f64(-(1.0 - self.random.f64()).ln() / self.rate);
        self.timeline.until(self.next).await;
    }
}

/// Offers the load for its duration, and a little longer on both sides.
async fn offer(load: Load, nodes: &Arc<Nodes>, members: &Members) -> (Vec<Usage>, Vec<Duration>) {
    let (is_counting, is_over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut tasks: JoinSet<Vec<Duration>> = JoinSet::new();
    let each = || (Arc::clone(nodes), Arc::clone(members), Arc::clone(&is_counting), Arc::clone(&is_over));
    if load.one_at_a_time {
        let (_, members, is_counting, is_over) = each();
        tasks.spawn(async move {
            let mut times = Vec::new();
            for member in (0..members.len()).cycle() {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let time = revoke(&members, member).await;
                if is_counting.load(Ordering::Relaxed) {
                    times.push(time);
                }
            }
            times
        });
    }
    if load.revocations > 0.0 {
        let (nodes, members, is_counting, is_over) = each();
        tasks.spawn(async move {
            let mut arrivals = Arrivals::new(&nodes, load.revocations);
            let mut revoking = JoinSet::new();
            while !is_over.load(Ordering::Relaxed) {
                arrivals.next().await;
                let (members, counts) = (Arc::clone(&members), is_counting.load(Ordering::Relaxed));
                let member = arrivals.random.usize(..members.len());
                revoking.spawn(async move { (counts, revoke(&members, member).await) });
            }
            revoking
                .join_all()
                .await
                .into_iter()
                .filter(|(counts, _)| *counts)
                .map(|(_, time)| time)
                .collect()
        });
    }
    if load.refreshes > 0.0 {
        let (nodes, members, _, is_over) = each();
        tasks.spawn(async move {
            let mut arrivals = Arrivals::new(&nodes, load.refreshes);
            let sessions: Vec<_> = (0..SESSIONS).map(|_| (SessionId::random(), UserId::random())).collect();
            let mut refreshing = JoinSet::new();
            while !is_over.load(Ordering::Relaxed) {
                arrivals.next().await;
                let members = Arc::clone(&members);
                let member = arrivals.random.usize(..members.len());
                let (session_id, user_id) = sessions[arrivals.random.usize(..sessions.len())];
                refreshing.spawn(async move {
                    let token_id = TokenId::random();
                    let expires_at = members[member].shared_time(0) + MAX_TOKEN_LIFE.as_secs().cast_signed();
                    members[member].allow(&TokenRecord { token_id, session_id, user_id, expires_at }).await;
                });
                while refreshing.try_join_next().is_some() {}
            }
            refreshing.join_all().await;
            Vec::new()
        });
    }
    time::sleep(Duration::from_millis(200)).await;
    nodes.take();
    is_counting.store(true, Ordering::Relaxed);
    time::sleep(load.duration).await;
    let busy = nodes.take();
    is_counting.store(false, Ordering::Relaxed);
    is_over.store(true, Ordering::Relaxed);
    let mut times = tasks.join_all().await.concat();
    times.sort_unstable();
    (busy, times)
}

/// The full load, in all.
const REVOCATIONS: f64 = 10_000.0;
const REFRESHES: f64 = 100_000.0;

const MEMBERS: usize = 100;

impl Load {
    /// Revocations one after another, and nothing else.
    fn one_at_a_time(members: usize, duration: Duration) -> Self {
        Self { members, partitions: 1, revocations: 0.0, refreshes: 0.0, one_at_a_time: true, duration }
    }

    /// A share of what is asked for.
    fn share(partitions: u16, of: f64, milliseconds: u64) -> Self {
        Self {
            members: MEMBERS,
            partitions,
            revocations: REVOCATIONS / of,
            refreshes: REFRESHES / of,
            one_at_a_time: false,
            duration: Duration::from_millis(milliseconds),
        }
    }
}

/// The bytes that a node has sent and received for each revocation; idle traffic is subtracted.
fn bytes_each(figures: &Figures) -> [f64; 2] {
    [true, false].map(|is_answer| {
        let bytes = |usage: &Usage| usage.total(is_answer).bytes as f64;
        let extra = figures.busy(bytes) - figures.idle(bytes);
        extra * figures.load.duration.as_secs_f64() / figures.times.len() as f64
    })
}

fn print(figures: &Figures) {
    let Load { members, partitions, revocations, refreshes, duration, .. } = figures.load;
    let kilobytes = |is_answer| move |usage: &Usage| usage.total(is_answer).bytes as f64 / 1000.0;
    let commands = |name| move |usage: &Usage| usage.of(name, false).messages as f64;
    let reads = figures.busy(|usage| usage.of("read", true).messages as f64);
    let events = figures.busy(|usage| usage.of("read", true).events as f64);
    let published = figures.busy(commands("revoke")) * f64::from(partitions);
    println!(
        "{members:7} {partitions:5} {revocations:9.0} {refreshes:9.0} {:8.2} {:11.0} {:7.0} {:7.0} {:7.0} {:7.0} {:7.0} {:6.1} {:8.2} {:6.1} {:6.1}",
        figures.busy(|usage| usage.busy.as_secs_f64()),
        figures.busy(kilobytes(false)),
        figures.busy(kilobytes(true)),
        figures.busy(commands("revoke")),
        figures.busy(commands("allow")),
        figures.busy(commands("renew")),
        figures.busy(commands("read")),
        events / reads,
        figures.times.len() as f64 / duration.as_secs_f64() / published,
        figures.milliseconds(0.5),
        figures.milliseconds(0.99),
    );
}

#[test]
#[ignore = "takes minutes: `make scale` runs it"]
fn figures_at_scale() {
    println!("members   idle: B/s sent  received   each logout, one at a time: B sent  received");
    for members in [1, 3, 10, 30, 100] {
        let figures = run(Load::one_at_a_time(members, Duration::from_secs(1)));
        let idle = [true, false].map(|is_answer| figures.idle(|usage| usage.total(is_answer).bytes as f64));
        let each = bytes_each(&figures);
        println!("{members:7} {:16.0} {:9.0} {:36.0} {:9.0}", idle[0], idle[1], each[0], each[1]);
    }
    println!(
        "                                  each node, each second:                                      each:         confirmed\n\
         members nodes  revoked refreshed  busy s kB received    sent  revoke   allow   renew    read events sessions p50 ms p99 ms"
    );
    let loads = [
        // One node of as many.
        Load::share(1, 300.0, 4000),
        Load::share(1, 100.0, 2000),
        Load::share(1, 30.0, 2000),
        Load::share(1, 10.0, 1000),
        Load { refreshes: 0.0, ..Load::share(1, 30.0, 2000) },
        Load { revocations: 0.0, ..Load::share(1, 30.0, 2000) },
        // The same load of each node, with more of them.
        Load::share(3, 10.0, 600),
        Load::share(10, 3.0, 400),
        Load::share(30, 1.0, 200),
    ];
    for load in loads {
        print(&run(load));
    }
}

/// What a real Redis sent and received for each logout is in docs/SCALE.md.
#[test]
fn logout_costs_the_bytes_that_redis_was_measured_to_exchange() {
    for (members, measured) in [(1, [252.0, 556.0]), (3, [827.0, 1374.0]), (10, [2559.0, 3681.0])] {
        let counted = bytes_each(&run(Load::one_at_a_time(members, Duration::from_millis(500))));
        for (counted, measured) in counted.into_iter().zip(measured) {
            assert!((counted / measured - 1.0).abs() < 0.02, "{members} members: {counted}, not {measured}");
        }
    }
}

#[test]
fn all_members_get_all_events_once() {
    let load = Load { members: 10, ..Load::share(3, 100.0, 500) };
    let figures = run(load);
    let published =
        figures.busy(|usage| (usage.of("revoke", false).messages + usage.of("allow", false).messages) as f64);
    let received = figures.busy(|usage| usage.of("read", true).events as f64);
    // Some were under way when counting began and ended.
    assert!((received / published / load.members as f64 - 1.0).abs() < 0.05, "{published}, {received}");
}
