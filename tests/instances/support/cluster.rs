//! A Redis Cluster: three masters with a replica each.

use std::path::Path;

use crate::support::{
    process::{run, wait_until},
    redis::Redis,
};

const SETTINGS: &str = "cluster-enabled yes\ncluster-config-file nodes.conf\ncluster-node-timeout 1000\n\
                        cluster-replica-validity-factor 0\n";

pub struct Cluster {
    pub nodes: Vec<Redis>,
}

impl Cluster {
    pub async fn start(folder: &Path) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..6 {
            nodes.push(Redis::start(folder, SETTINGS).await);
        }
        let cluster = Self { nodes };
        let hosts = cluster.hosts();
        let hosts: Vec<_> = hosts.iter().map(String::as_str).collect();
        let options = ["--cluster-replicas", "1", "--cluster-yes"];
        run("redis-cli", &[&["--cluster", "create"][..], &hosts, &options].concat()).unwrap();
        cluster.wait_until_whole().await;
        cluster
    }

    pub fn url(&self) -> String {
        format!("redis+cluster://{}", self.hosts().join(","))
    }

    /// The URL with only one of the nodes.
    pub fn url_by(&self, node: usize) -> String {
        format!("redis+cluster://127.0.0.1:{}", self.nodes[node].port)
    }

    fn hosts(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect()
    }

    /// The index in `nodes` of the master that has a key, according to the node `witness`.
    pub fn master_of(&self, key: &str, witness: usize) -> Option<usize> {
        let witness = &self.nodes[witness];
        let slot: u16 = witness.ask(&["CLUSTER", "KEYSLOT", key]).ok()?.parse().ok()?;
        let nodes = witness.ask(&["CLUSTER", "NODES"]).ok()?;
        // id ip:port@bus flags master ping pong epoch link slots...
        let has_slot = |fields: &[&str]| {
            fields.iter().skip(8).any(|slots| {
                let (first, last) = slots.split_once('-').unwrap_or((slots, slots));
                let (first, last) = (first.parse::<u16>(), last.parse::<u16>());
                first.is_ok_and(|first| first <= slot) && last.is_ok_and(|last| slot <= last)
            })
        };
        let lines = nodes.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let master = lines.into_iter().find(|fields| has_slot(fields))?;
        let port: u16 = master[1].split(['@', ':']).nth(1)?.parse().ok()?;
        self.nodes.iter().position(|node| node.port == port)
    }

    pub async fn wait_until_master_is_not(&self, old: usize, key: &str) {
        let witness = (old + 1) % self.nodes.len();
        wait_until("a replica is promoted", async || {
            self.master_of(key, witness).is_some_and(|master| master != old)
        })
        .await;
    }

    /// Waits until each master has its replica, and all nodes agree.
    pub async fn wait_until_whole(&self) {
        wait_until("the cluster is whole", async || {
            self.nodes.iter().all(|node| {
                let info = node.ask(&["CLUSTER", "INFO"]).unwrap_or_default();
                let nodes = node.ask(&["CLUSTER", "NODES"]).unwrap_or_default();
                let is_replica_in_touch = node.info("master_link_status").is_none_or(|link| link == "up");
                info.contains("cluster_state:ok")
                    && !nodes.contains("fail")
                    && nodes.matches("slave").count() == 3
                    && is_replica_in_touch
            })
        })
        .await;
    }
}
