//! All the processes of a run: a PostgreSQL, a Redis of some kind, three instances, and the links
//! between them.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, thread};

use tempfile::TempDir;

use crate::support::{
    cluster::Cluster, instance::Instance, link::Link, postgres::Postgres, redis::Redis, sentinel::Sentinel,
};

pub const INSTANCES: usize = 3;
/// Of a cluster; elsewhere there is one.
pub const PARTITIONS: usize = 4;

/// Which kind of Redis.
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

    pub fn url(&self) -> String {
        match self {
            Self::Single(redis) => format!("redis://127.0.0.1:{}", redis.port),
            Self::Sentinel(sentinel) => sentinel.url(),
            Self::Cluster(cluster) => cluster.url(),
        }
    }

    /// What an instance has to know about it besides.
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

/// Its processes end with it, the instances first.
pub struct World {
    pub instances: Vec<Instance>,
    pub store: Store,
    pub postgres: Postgres,
    folder: TempDir,
}

impl World {
    pub async fn start(kind: Kind) -> Self {
        Self::start_with(kind, true, &[], &[]).await
    }

    /// With further settings.
    pub async fn with(kind: Kind, settings: &[(&'static str, &str)]) -> Self {
        Self::start_with(kind, true, settings, &[]).await
    }

    /// With further settings, also of PostgreSQL.
    pub async fn with_postgres(settings: &[(&'static str, &str)], postgres: &[&str]) -> Self {
        Self::start_with(Kind::Single, true, settings, postgres).await
    }

    /// With nothing between its processes, for measuring.
    pub async fn without_links(kind: Kind) -> Self {
        Self::without_links_with(kind, &[]).await
    }

    /// The same, with further settings.
    pub async fn without_links_with(kind: Kind, settings: &[(&'static str, &str)]) -> Self {
        Self::start_with(kind, false, settings, &[]).await
    }

    async fn start_with(
        kind: Kind,
        links: bool,
        settings: &[(&'static str, &str)],
        of_postgres: &[&str],
    ) -> Self {
        let folder = TempDir::with_prefix("hallpass-faults-").unwrap();
        // For PostgreSQL, which may run as another user.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let postgres = Postgres::with(folder.path(), of_postgres).await;
        let store = Store::start(kind, folder.path()).await;
        let mut instances = Vec::new();
        for number in 0..INSTANCES {
            instances.push(Instance::start(number, folder.path(), &postgres, &store, links, settings).await);
        }
        let mut world = Self { instances, store, postgres, folder };
        world.wait_until_ready().await;
        world
    }

    pub async fn wait_until_ready(&mut self) {
        for instance in &mut self.instances {
            instance.wait_until_ready().await;
        }
    }

    /// The Redis of a world that has one.
    pub fn redis(&mut self) -> &mut Redis {
        match &mut self.store {
            Store::Single(redis) => redis,
            Store::Sentinel(_) | Store::Cluster(_) => panic!("there are several"),
        }
    }

    /// Where it is, not through a link.
    pub fn redis_url(&self) -> String {
        self.store.url()
    }

    /// The ways to it.
    pub fn redis_links(&self) -> impl Iterator<Item = &Link> {
        self.instances.iter().map(Instance::redis)
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

    /// Leaves the logs of all processes behind, for whoever has to find out what went wrong.
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
