//! What the exchange between members costs: bytes and CPU time of a real Redis, for each logout and while nothing
//! happens, and how long logouts take. All members are in this process, over a store in memory.
//!
//! `cargo bench -p hallpass-allowlist` starts a redis-server of its own and prints one line for each number of members
//! and of logouts at a time. `MEMBERS="3 10"` and `AT_A_TIME="1 32"` choose others.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up cannot go on")]

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    convert::Infallible,
    env, fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hallpass_allowlist::{
    Allowlist, Bus, Clock, ClusterOptions, InstanceId, InstanceRow, LiveTokens, MemberKind, Recorded,
    RedisOptions, RevokedSession, SessionId, SessionStore, SharedSettings, SystemClock, TokenId, TokenRecord,
    UnixSeconds, UserId,
};
use redis::{Client, aio::MultiplexedConnection, cmd};
use tokio::time;

/// How long idle traffic is measured.
const IDLE: Duration = Duration::from_secs(3);

/// How long logouts are made for each line.
const BUSY: Duration = Duration::from_secs(3);

#[derive(Clone, Default)]
struct Store(Arc<Mutex<Tables>>);

#[derive(Default)]
struct Tables {
    revoked: HashSet<SessionId>,
    instances: HashMap<String, InstanceRow>,
}

impl Store {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionStore for Store {
    type Error = Infallible;

    async fn is_token_live(&self, _: &TokenRecord) -> Result<bool, Infallible> {
        Ok(false)
    }

    async fn revoked_sessions(
        &self,
        _: UnixSeconds,
        each: impl FnMut(SessionId) + Send + 'static,
    ) -> Result<(), Infallible> {
        self.tables().revoked.iter().copied().for_each(each);
        Ok(())
    }

    async fn record_instance(&self, id: InstanceId, name: &str, facts: &str) -> Result<i64, Infallible> {
        let (id, name, facts) = (id.to_string(), name.to_owned(), facts.to_owned());
        let mut tables = self.tables();
        let beat = tables.instances.get(&id).map_or(0, |row| row.beat + 1);
        tables.instances.insert(id.clone(), InstanceRow { id, name, beat, facts });
        Ok(SystemClock.now() * 1000)
    }

    async fn other_instances(&self, id: InstanceId) -> Result<Vec<InstanceRow>, Infallible> {
        let tables = self.tables();
        Ok(tables.instances.values().filter(|row| row.id != id.to_string()).cloned().collect())
    }

    async fn delete_instance(&self, id: &str, beat: Option<i64>) -> Result<(), Infallible> {
        let mut tables = self.tables();
        if tables.instances.get(id).is_some_and(|row| beat.is_none_or(|beat| beat == row.beat)) {
            tables.instances.remove(id);
        }
        Ok(())
    }
}

impl LiveTokens for Store {
    async fn live_tokens(&self, _: UnixSeconds, _: impl FnMut(TokenRecord) + Send) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A redis-server on a free port, with a folder of its own.
struct RedisServer {
    process: Child,
    folder: PathBuf,
    url: String,
}

impl RedisServer {
    async fn start() -> (Self, MultiplexedConnection) {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let folder = env::temp_dir().join(format!("hallpass-exchange-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(&folder)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server has to be installed");
        let server = Self { process, folder, url: format!("redis://127.0.0.1:{port}") };
        let client = Client::open(server.url.as_str()).unwrap();
        for _ in 0..100 {
            if let Ok(connection) = client.get_multiplexed_async_connection().await {
                return (server, connection);
            }
            time::sleep(Duration::from_millis(50)).await;
        }
        panic!("redis-server does not answer");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What the server has sent, received and computed so far.
#[derive(Clone, Copy)]
struct Usage {
    at: Instant,
    sent: f64,
    received: f64,
    cpu_us: f64,
}

impl Usage {
    async fn read(connection: &mut MultiplexedConnection) -> Self {
        let text: String = cmd("INFO").arg("stats").arg("cpu").query_async(connection).await.unwrap();
        let field = |name: &str| -> f64 {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .unwrap()
                .trim()
                .parse()
                .unwrap()
        };
        Self {
            at: Instant::now(),
            sent: field("total_net_output_bytes"),
            received: field("total_net_input_bytes"),
            cpu_us: 1e6 * (field("used_cpu_user") + field("used_cpu_sys")),
        }
    }

    /// The usage since `earlier`, in total and each second.
    fn since(&self, earlier: &Self) -> (Rates, f64) {
        let seconds = (self.at - earlier.at).as_secs_f64();
        let rates = Rates {
            sent: (self.sent - earlier.sent) / seconds,
            received: (self.received - earlier.received) / seconds,
            cpu_us: (self.cpu_us - earlier.cpu_us) / seconds,
        };
        (rates, seconds)
    }
}

/// Each second.
#[derive(Clone, Copy)]
struct Rates {
    sent: f64,
    received: f64,
    cpu_us: f64,
}

type Members = Arc<[Allowlist<Store>]>;

async fn start(url: &str, count: usize) -> Members {
    let store = Store::default();
    let joining = (0..count).map(|number| {
        let redis = RedisOptions {
            url: url.to_owned().into(),
            ca: None,
            nodes: 1,
            partitions: 1,
            sentinel_username: None,
            sentinel_password: None,
        };
        let options = ClusterOptions {
            bus: Bus::redis(&redis).unwrap(),
            instance_name: format!("instance-{number}"),
            kind: MemberKind::Instance,
            shared: SharedSettings {
                equal: BTreeMap::new(),
                signs: Some("key".into()),
                accepts: vec!["key".into()],
                token_form: 0,
                key_names: ["", ""],
            },
            startup_timeout: Duration::from_secs(30),
            own_thread: false,
        };
        Allowlist::load(store.clone(), Arc::new(SystemClock), Some(options), SystemClock.now())
    });
    let members: Members = futures::future::join_all(joining).await.into_iter().map(Result::unwrap).collect();
    // Acknowledgements count once epochs are older than a lease.
    loop {
        let begin = Instant::now();
        let all = logout(&members[0]).await;
        if all == count && begin.elapsed() < Duration::from_millis(500) {
            return members;
        }
    }
}

/// Revokes a session, and returns by how many members that was acknowledged.
async fn logout(member: &Allowlist<Store>) -> usize {
    let (session_id, user_id) = (SessionId::random(), UserId::random());
    let session = RevokedSession { session_id, user_id: Some(user_id), tokens: vec![TokenId::random()] };
    let recording = async move { Ok(Some(Recorded { session, is_new: true })) };
    let done = member.logout(session_id, Some(user_id), recording).await.expect("a confirmed logout");
    done.acknowledged as usize
}

/// Makes logouts, `at_a_time` of them, each at the next member, and returns how long each took.
async fn logouts(members: &Members, at_a_time: usize) -> Vec<Duration> {
    let (next, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let callers = (0..at_a_time).map(|_| {
        let (members, next, is_over) = (Arc::clone(members), Arc::clone(&next), Arc::clone(&is_over));
        tokio::spawn(async move {
            let mut times = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let member = next.fetch_add(1, Ordering::Relaxed) % members.len();
                let begin = Instant::now();
                logout(&members[member]).await;
                times.push(begin.elapsed());
            }
            times
        })
    });
    let callers: Vec<_> = callers.collect();
    time::sleep(BUSY).await;
    is_over.store(true, Ordering::Relaxed);
    let mut all = Vec::new();
    for caller in callers {
        all.extend(caller.await.unwrap());
    }
    all.sort_unstable();
    all
}

fn numbers(setting: &str, default: &str) -> Vec<usize> {
    let text = env::var(setting).unwrap_or_else(|_| default.to_owned());
    text.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

#[tokio::main]
async fn main() {
    println!(
        "members  at a time   sent B   received B   CPU us (each logout; idle traffic subtracted)   p50 ms    p99 ms  logouts/s"
    );
    for count in numbers("MEMBERS", "1 3 10 30 100") {
        let (server, mut connection) = RedisServer::start().await;
        let members = start(&server.url, count).await;
        time::sleep(Duration::from_secs(2)).await;
        let before = Usage::read(&mut connection).await;
        time::sleep(IDLE).await;
        let (idle, _) = Usage::read(&mut connection).await.since(&before);
        println!(
            "{count:7}       idle {:8.0} {:12.0} {:8.0} (each second)",
            idle.sent, idle.received, idle.cpu_us
        );
        for at_a_time in numbers("AT_A_TIME", "1 8 32 64") {
            let before = Usage::read(&mut connection).await;
            let times = logouts(&members, at_a_time).await;
            let (busy, seconds) = Usage::read(&mut connection).await.since(&before);
            let each = |busy: f64, idle: f64| (busy - idle) * seconds / times.len() as f64;
            let at = |share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1000.0;
            println!(
                "{count:7} {at_a_time:10} {:8.0} {:12.0} {:8.0} {:>48.2} {:9.2} {:10.0}",
                each(busy.sent, idle.sent),
                each(busy.received, idle.received),
                each(busy.cpu_us, idle.cpu_us),
                at(0.5),
                at(0.99),
                times.len() as f64 / seconds,
            );
        }
        for member in members.iter() {
            member.leave().await;
        }
    }
}
