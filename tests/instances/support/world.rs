//! All processes of a run: a PostgreSQL, a Redis of some kind, three instances, and the links between them.

use std::{
    fs, mem,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::sleep;

use crate::support::{
    cluster::Cluster,
    gate::{Address, Gate},
    instance::{GATE, Instance, make_key},
    link::{Link, Which},
    notes::{Credentials, Notes},
    postgres::Postgres,
    process::wait_until,
    redis::Redis,
    sentinel::Sentinel,
};

pub const INSTANCES: usize = 3;
/// The number of partitions with a Redis Cluster; otherwise there is one.
pub const PARTITIONS: usize = 4;

/// The kind of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Single,
    Sentinel,
    Cluster,
}

pub enum Store {
    Single(Redis),
    Sentinel(Sentinel),
    Cluster(Cluster),
}

impl Store {
    async fn start(kind: Kind, folder: &Path) -> Self {
        match kind {
            Kind::Single => Self::Single(Redis::start(folder, "").await),
            Kind::Sentinel => Self::Sentinel(Sentinel::start(folder).await),
            Kind::Cluster => Self::Cluster(Cluster::start(folder).await),
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Single(_) => Kind::Single,
            Self::Sentinel(_) => Kind::Sentinel,
            Self::Cluster(_) => Kind::Cluster,
        }
    }

    /// The URL by which one more process connects, and its link if there is only one server.
    pub async fn linked(&self) -> (Option<Link>, String) {
        match self {
            Self::Single(redis) => {
                let link = Link::to(redis.port).await;
                let url = format!("redis://127.0.0.1:{}", link.port);
                (Some(link), url)
            }
            Self::Sentinel(_) | Self::Cluster(_) => (None, self.url()),
        }
    }

    pub fn url(&self) -> String {
        match self {
            Self::Single(redis) => format!("redis://127.0.0.1:{}", redis.port),
            Self::Sentinel(sentinel) => sentinel.url(),
            Self::Cluster(cluster) => cluster.url(),
        }
    }

    /// The settings that an instance needs in addition to the URL.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Single(_) => vec![],
            Self::Sentinel(_) => vec![("HALLPASS_REDIS_NODES", "3".into())],
            Self::Cluster(_) => {
                let partitions = PARTITIONS.to_string();
                vec![("HALLPASS_REDIS_NODES", "2".into()), ("HALLPASS_REDIS_PARTITIONS", partitions)]
            }
        }
    }
}

const MAILS: &str = "mails";

/// All processes of a run. They end when this is dropped, the instances first.
pub struct World {
    pub instances: Vec<Instance>,
    /// Services beside the instances, in a world for faults.
    pub guards: Vec<Notes>,
    /// A gate of its own, in a world for faults.
    pub gate: Option<Gate>,
    pub store: Store,
    pub postgres: Postgres,
    /// The servers that have been replaced, but still run or can be inspected.
    retired: (Option<Redis>, Option<Postgres>),
    folder: TempDir,
    /// The signing keys and the mails, if the instances share a folder of them.
    shared: Option<TempDir>,
}

impl World {
    pub async fn start(kind: Kind) -> Self {
        Self::start_with(kind, true, &[], &[]).await
    }

    /// Starts a world with further settings.
    pub async fn with(kind: Kind, settings: &[(&'static str, &str)]) -> Self {
        Self::start_with(kind, true, settings, &[]).await
    }

    /// Starts a world with further settings of the instances and of PostgreSQL.
    pub async fn with_postgres(settings: &[(&'static str, &str)], postgres: &[&str]) -> Self {
        Self::start_with(Kind::Single, true, settings, postgres).await
    }

    /// Starts a world with the defaults that a client notices, except that tokens live for a minute; with a gate at each
    /// instance and one of its own, and with two guards; and with a PostgreSQL that commits asynchronously unless a
    /// transaction overrides it.
    pub async fn for_faults(kind: Kind) -> Self {
        let gate = format!("unix:FOLDER/{GATE}");
        let shared = TempDir::new().unwrap();
        let (keys, mails) = (shared.path().join("keys"), shared.path().join(MAILS));
        make_key(&keys);
        let settings = [
            ("HALLPASS_SIGNING_KEY", ""),
            ("HALLPASS_KEYS", keys.to_str().unwrap()),
            ("HALLPASS_MAIL_DIR", mails.to_str().unwrap()),
            ("HALLPASS_REFRESH_GRACE", "10"),
            ("HALLPASS_ACCESS_TTL", "60"),
            ("HALLPASS_GATE_ADDR", gate.as_str()),
        ];
        let of_postgres = ["synchronous_commit=off", "wal_writer_delay=10000"];
        let mut world = Self::start_with(kind, true, &settings, &of_postgres).await;
        world.shared = Some(shared);
        let client = Credentials::of_new_client(&world.instances[0]);
        for (number, name) in ["notes-0", "notes-1"].into_iter().enumerate() {
            let notes = Notes::start(&world, name, number, &client).await;
            world.guards.push(notes);
        }
        let address = Address::Socket(world.folder().join("own-gate.sock"));
        world.gate = Some(Gate::start(&world, address).await);
        world
    }

    /// The folder of the mails, in a world for faults.
    pub fn mails(&self) -> Option<PathBuf> {
        self.shared.as_ref().map(|shared| shared.path().join(MAILS))
    }

    /// The number of processes that a revocation waits for.
    pub fn members(&self) -> usize {
        self.instances.len() + self.guards.len() + usize::from(self.gate.is_some())
    }

    /// Starts a world without links between its processes and with the system's clock.
    pub async fn without_links(kind: Kind) -> Self {
        Self::start_with(kind, false, &[], &[]).await
    }

    /// Starts a world for measurements: without links, with further settings, and with a PostgreSQL that waits for the disk,
    /// as one that serves users does.
    pub async fn for_figures(kind: Kind, settings: &[(&'static str, &str)]) -> Self {
        Self::start_with(kind, false, settings, &["fsync=on"]).await
    }

    async fn start_with(
        kind: Kind,
        links: bool,
        settings: &[(&'static str, &str)],
        of_postgres: &[&str],
    ) -> Self {
        let folder = TempDir::with_prefix("hallpass-faults-").unwrap();
        // PostgreSQL may run as another user.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let postgres = Postgres::with(folder.path(), of_postgres).await;
        let store = Store::start(kind, folder.path()).await;
        let mut instances = Vec::new();
        for number in 0..INSTANCES {
            instances.push(Instance::start(number, folder.path(), &postgres, &store, links, settings).await);
        }
        let (guards, gate, retired) = (Vec::new(), None, (None, None));
        let mut world = Self { instances, guards, gate, store, postgres, retired, folder, shared: None };
        world.wait_until_ready().await;
        world
    }

    pub async fn wait_until_ready(&mut self) {
        for instance in &mut self.instances {
            instance.wait_until_ready().await;
        }
        for guard in &mut self.guards {
            guard.wait_until_ready().await;
        }
        if let Some(gate) = &mut self.gate {
            gate.wait_until_ready().await;
        }
    }

    /// The Redis server, if there is only one.
    pub fn redis(&mut self) -> &mut Redis {
        match &mut self.store {
            Store::Single(redis) => redis,
            Store::Sentinel(_) | Store::Cluster(_) => panic!("there are several"),
        }
    }

    /// Starts a standby of PostgreSQL.
    pub async fn standby(&self, settings: &[&str]) -> Postgres {
        self.postgres.standby(&self.new_folder("standby"), settings).await
    }

    /// A failover of PostgreSQL that loses nothing. The connections of one instance stay at the old server,
    /// which is read-only now.
    pub async fn replace_postgres(&mut self, stays: usize) {
        let successor = self.standby(&[]).await;
        self.postgres.set_read_only(true);
        let writing = "select count(*) from pg_stat_activity where backend_xid is not null";
        // A connection applies the new setting when it begins its next transaction.
        sleep(Duration::from_millis(500)).await;
        wait_until("the last transaction has ended", async || {
            self.postgres.query(writing).as_deref() == Ok("0")
        })
        .await;
        successor.replace(&self.postgres).await;
        for (number, instance) in self.instances.iter().enumerate() {
            instance.sql.retarget(successor.port);
            if number != stays {
                instance.sql.reset();
            }
        }
        if let Some(gate) = &self.gate {
            gate.sql.retarget(successor.port);
            gate.sql.reset();
        }
        self.retired.1 = Some(mem::replace(&mut self.postgres, successor));
    }

    /// A failover of Redis behind one address: the followers are disconnected, other connections stay at the
    /// old server.
    pub async fn replace_redis(&mut self) {
        let replica_of = format!("replicaof 127.0.0.1 {}\n", self.redis().port);
        let successor = Redis::start(&self.new_folder("redis"), &replica_of).await;
        wait_until("it follows", async || successor.info("master_link_status").as_deref() == Some("up"))
            .await;
        successor.tell(&["REPLICAOF", "NO", "ONE"]);
        // Otherwise a restart would make it a replica again.
        successor.tell(&["CONFIG", "REWRITE"]);
        for link in self.redis_links() {
            link.retarget(successor.port);
        }
        self.redis_links().for_each(|link| link.reset_only(Which::Followers));
        self.retired.0 = Some(mem::replace(self.redis(), successor));
    }

    fn new_folder(&self, name: &str) -> PathBuf {
        let number = fs::read_dir(self.folder()).unwrap().count();
        let folder = self.folder().join(format!("{name}-{number}"));
        fs::create_dir(&folder).unwrap();
        folder
    }

    /// The URL of Redis itself, not through a link.
    pub fn redis_url(&self) -> String {
        self.store.url()
    }

    /// The links to Redis.
    pub fn redis_links(&self) -> impl Iterator<Item = &Link> {
        let of_instances = self.instances.iter().map(Instance::redis);
        of_instances.chain(self.guards.iter().map(Notes::redis)).chain(self.gate.iter().map(Gate::redis))
    }

    pub fn sentinel(&mut self) -> &mut Sentinel {
        match &mut self.store {
            Store::Sentinel(sentinel) => sentinel,
            Store::Single(_) | Store::Cluster(_) => panic!("there are no Sentinels"),
        }
    }

    pub fn cluster(&mut self) -> &mut Cluster {
        match &mut self.store {
            Store::Cluster(cluster) => cluster,
            Store::Single(_) | Store::Sentinel(_) => panic!("there is no cluster"),
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the logs of all processes, to find out what went wrong.
    pub fn keep(&mut self) {
        self.folder.disable_cleanup(true);
        eprintln!("the logs of all processes are in {}", self.folder().display());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            self.keep();
        }
    }
}
