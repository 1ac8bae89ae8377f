//! What each instance holds of what could leak, when there is no load.

use crate::{
    client::Api,
    support::{
        health::{self, CONNECTIONS},
        world::World,
    },
};

/// By how many hundredths it may have grown.
const TOLERANCE: u64 = 5;

#[derive(Debug, Clone, Copy)]
struct Holding {
    connections: u64,
    files: u64,
    threads: u64,
    bytes: u64,
}

/// One for each instance.
#[derive(Debug)]
pub struct Holdings(Vec<Holding>);

impl Holdings {
    pub async fn of(world: &World) -> Self {
        let api = Api::of(world);
        // So that each has opened all connections that it may open.
        health::check_all(world, &api, CONNECTIONS).await.unwrap();
        drop(api);
        let holdings = world.instances.iter().enumerate().map(|(number, instance)| {
            let (files, threads) = instance.holds();
            let query =
                format!("select count(*) from pg_stat_activity where application_name = 'instance-{number}'");
            Holding {
                connections: world.postgres.query(&query).unwrap().parse().unwrap(),
                files: files as u64,
                threads: threads as u64,
                bytes: instance.resident_bytes(),
            }
        });
        Self(holdings.collect())
    }

    /// Whether none of it has grown since `before`.
    pub fn are_within(&self, before: &Self) -> bool {
        let is_within = |now: u64, then: u64| now * 100 <= then * (100 + TOLERANCE);
        self.0.iter().zip(&before.0).all(|(now, then)| {
            is_within(now.connections, then.connections)
                && is_within(now.files, then.files)
                && is_within(now.threads, then.threads)
                && is_within(now.bytes, then.bytes)
        })
    }
}
