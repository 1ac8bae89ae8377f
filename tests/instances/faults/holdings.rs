//! The resources that each instance holds, and that could leak, when there is no load.

use futures::future::join_all;

use crate::{
    client::Api,
    support::{
        health::{self, CONNECTIONS, RESERVED_CONNECTIONS},
        world::World,
    },
};

/// The growth that is tolerated, in percent.
const TOLERANCE: u64 = 5;

#[derive(Debug, Clone, Copy)]
struct Holding {
    connections: u64,
    files: u64,
    threads: u64,
    tasks: u64,
    bytes: u64,
}

/// The resources of each instance whose process has not been replaced.
#[derive(Debug)]
pub struct Holdings(Vec<Holding>);

impl Holdings {
    pub async fn of(world: &World, instances: &[usize]) -> Self {
        let api = Api::of(world);
        // Makes each instance open all connections that it may open.
        health::check_all(world, &api, CONNECTIONS).await.unwrap();
        let pools = instances.iter().map(|number| (*number, CONNECTIONS)).collect();
        health::check_pools(&world.postgres, &api, pools, RESERVED_CONNECTIONS).await.unwrap();
        let holdings = instances.iter().map(async |number| {
            let instance = &world.instances[*number];
            let tasks = api.metric(*number, "hallpass_tasks").await as u64;
            let (files, threads) = instance.holds();
            let query =
                format!("select count(*) from pg_stat_activity where application_name = 'instance-{number}'");
            Holding {
                connections: world.postgres.query(&query).unwrap().parse().unwrap(),
                files: files as u64,
                threads: threads as u64,
                tasks,
                bytes: instance.resident_bytes(),
            }
        });
        Self(join_all(holdings).await)
    }

    /// Whether no resource has grown since `before`.
    pub fn are_within(&self, before: &Self) -> bool {
        let is_within = |now: u64, then: u64| now * 100 <= then * (100 + TOLERANCE);
        self.0.iter().zip(&before.0).all(|(now, then)| {
            is_within(now.connections, then.connections)
                && is_within(now.files, then.files)
                && is_within(now.threads, then.threads)
                && is_within(now.tasks, then.tasks)
                && is_within(now.bytes, then.bytes)
        })
    }
}
