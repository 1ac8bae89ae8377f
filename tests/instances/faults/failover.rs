//! Faults of a Redis that consists of several nodes.

use fastrand::Rng;
use tokio::time::sleep;

use crate::{
    faults::strike::{DOWN, STOP},
    support::{cluster::Cluster, link::Which, sentinel::Sentinel, world::PARTITIONS},
};

pub async fn kill_primary(sentinel: &mut Sentinel) {
    let old = sentinel.primary().unwrap();
    sentinel.nodes[old].kill();
    sentinel.wait_until_primary_is_not(old).await;
    sleep(DOWN).await;
    sentinel.nodes[old].start_again().await;
    sentinel.wait_until_whole().await;
}

/// The primary is stopped until a replica is promoted. When it continues, it still acts as a primary, and
/// some clients are still connected to it.
pub async fn stop_primary(sentinel: &mut Sentinel) {
    let old = sentinel.primary().unwrap();
    sentinel.nodes[old].signal("STOP");
    sentinel.wait_until_primary_is_not(old).await;
    sentinel.nodes[old].signal("CONT");
    sleep(DOWN).await;
    sentinel.wait_until_whole().await;
}

/// While the replicas are stopped, they confirm no write of the primary.
pub async fn stop_replicas(sentinel: &mut Sentinel) {
    let primary = sentinel.primary().unwrap();
    let replicas = || sentinel.nodes.iter().enumerate().filter(|(place, _)| *place != primary);
    replicas().for_each(|(_, node)| node.signal("STOP"));
    sleep(STOP).await;
    replicas().for_each(|(_, node)| node.signal("CONT"));
    sentinel.wait_until_whole().await;
}

/// A replica falls behind, then the two other nodes are killed: the replica is promoted without the writes
/// that it missed.
pub async fn promote_stale_replica(sentinel: &mut Sentinel) {
    let primary = sentinel.primary().unwrap();
    let (stale, fresh) = ((primary + 1) % 3, (primary + 2) % 3);
    sentinel.nodes[stale].signal("STOP");
    sleep(STOP).await;
    for node in [primary, fresh] {
        sentinel.nodes[node].kill();
    }
    sentinel.nodes[stale].signal("CONT");
    sentinel.wait_until_primary_is_not(primary).await;
    sleep(DOWN).await;
    for node in [primary, fresh] {
        sentinel.nodes[node].start_again().await;
    }
    sentinel.wait_until_whole().await;
}

/// All but one instance lose the primary, and so do the replicas and the Sentinels: there are two primaries.
pub async fn isolate_primary(sentinel: &mut Sentinel, instance: usize) {
    let old = sentinel.primary().unwrap();
    sentinel.links[old].set(|weather| (weather.cut, weather.which) = (true, Which::AllBut(instance)));
    sentinel.wait_until_primary_is_not(old).await;
    sleep(DOWN).await;
    sentinel.links[old].heal();
}

pub async fn kill_master(cluster: &mut Cluster, rng: &mut Rng) {
    let (old, key) = any_master(cluster, rng);
    cluster.nodes[old].kill();
    cluster.wait_until_master_is_not(old, &key).await;
    sleep(DOWN).await;
    cluster.nodes[old].start_again().await;
    cluster.wait_until_whole().await;
}

/// The master is stopped until a replica is promoted. When it continues, it acts as a master for a moment.
pub async fn stop_master(cluster: &mut Cluster, rng: &mut Rng) {
    let (old, key) = any_master(cluster, rng);
    cluster.nodes[old].signal("STOP");
    cluster.wait_until_master_is_not(old, &key).await;
    sleep(DOWN).await;
    cluster.nodes[old].signal("CONT");
    cluster.wait_until_whole().await;
}

/// The master of a random partition, and a key of that partition.
fn any_master(cluster: &Cluster, rng: &mut Rng) -> (usize, String) {
    let key = format!("{{hp:{}}}:events", rng.usize(..PARTITIONS));
    (cluster.master_of(&key, 0).unwrap(), key)
}
