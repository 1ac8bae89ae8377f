//! A Redis primary with two replicas, and three Sentinels that monitor them.

use std::{fs, path::Path};

use crate::support::{
    link::Link,
    process::{Process, free_port, wait_until},
    redis::{Redis, redis_cli},
};

const NAME: &str = "hallpass";

pub struct Sentinel {
    pub nodes: Vec<Redis>,
    /// The link to each node, whose address the node announces to clients, replicas and Sentinels.
    pub links: Vec<Link>,
    pub ports: Vec<u16>,
    _sentinels: Vec<Process>,
}

impl Sentinel {
    pub async fn start(folder: &Path) -> Self {
        let (mut nodes, mut links) = (Vec::<Redis>::new(), Vec::<Link>::new());
        for _ in 0..3 {
            let port = free_port();
            let link = Link::to(port).await;
            let announced = format!("replica-announce-ip 127.0.0.1\nreplica-announce-port {}\n", link.port);
            let primary = links.first().map(|primary| format!("replicaof 127.0.0.1 {}\n", primary.port));
            nodes.push(Redis::start_at(port, folder, &(announced + &primary.unwrap_or_default())).await);
            links.push(link);
        }
        let ports: Vec<_> = (0..3).map(|_| free_port()).collect();
        let sentinels = ports.iter().map(|port| spawn(folder, *port, links[0].port)).collect();
        let sentinel = Self { nodes, links, ports, _sentinels: sentinels };
        sentinel.wait_until_whole().await;
        sentinel
    }

    pub fn url(&self) -> String {
        self.url_by("", &self.ports)
    }

    /// The URL with these Sentinels and these credentials (`user:password@`).
    pub fn url_by(&self, credentials: &str, ports: &[u16]) -> String {
        let hosts: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis+sentinel://{credentials}{}/{NAME}", hosts.join(","))
    }

    /// Starts another Sentinel, which monitors only the node at `named`, as the primary.
    pub async fn stray(folder: &Path, named: u16) -> (u16, Process) {
        let port = free_port();
        let process = spawn(folder, port, named);
        let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME];
        wait_until("the other Sentinel is up", async || {
            redis_cli(port, &question).is_ok_and(|answer| answer.ends_with(&named.to_string()))
        })
        .await;
        (port, process)
    }

    /// Sends each Sentinel a command that has to succeed.
    pub fn tell_all(&self, command: &[&str]) {
        for port in &self.ports {
            redis_cli(*port, command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
        }
    }

    /// The index in `nodes` of the primary that all Sentinels agree on.
    pub fn primary(&self) -> Option<usize> {
        let named: Option<Vec<_>> = self.ports.iter().map(|port| self.primary_by(*port)).collect();
        let named = named?;
        named.iter().all(|node| *node == named[0]).then_some(named[0])
    }

    fn primary_by(&self, sentinel: u16) -> Option<usize> {
        let answer = redis_cli(sentinel, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).ok()?;
        let port: u16 = answer.lines().nth(1)?.parse().ok()?;
        self.links.iter().position(|link| link.port == port)
    }

    pub async fn wait_until_primary_is_not(&self, old: usize) {
        wait_until("another primary is promoted", async || {
            let new = self.primary().filter(|new| *new != old);
            new.is_some_and(|new| self.nodes[new].info("role").as_deref() == Some("master"))
        })
        .await;
    }

    /// Waits until two replicas follow one primary, and all Sentinels report it.
    pub async fn wait_until_whole(&self) {
        wait_until("two replicas follow the primary", async || {
            let Some(primary) = self.primary() else { return false };
            let follows = |node: &Redis| node.info("master_link_status").as_deref() == Some("up");
            let know_all = self.ports.iter().all(|port| {
                let seen = redis_cli(*port, &["INFO", "sentinel"]).unwrap_or_default();
                seen.contains("status=ok") && seen.contains("slaves=2,sentinels=3")
            });
            know_all && self.nodes.iter().enumerate().all(|(place, node)| place == primary || follows(node))
        })
        .await;
    }
}

fn spawn(folder: &Path, port: u16, primary: u16) -> Process {
    let folder = folder.join(format!("sentinel-{port}"));
    fs::create_dir(&folder).unwrap();
    // The Sentinel rewrites this file with its state.
    let settings = folder.join("sentinel.conf");
    let text = format!(
        "port {port}\nbind 127.0.0.1\nsentinel monitor {NAME} 127.0.0.1 {primary} 2\n\
         sentinel down-after-milliseconds {NAME} 1000\nsentinel failover-timeout {NAME} 4000\n\
         sentinel parallel-syncs {NAME} 2\n"
    );
    fs::write(&settings, text).unwrap();
    Process::start("sentinel", &folder, None, Path::new("redis-sentinel"), |command| {
        command.arg(settings);
    })
}
