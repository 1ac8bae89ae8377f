//! Checks that the instances work completely, without having been restarted.

use std::{
    iter,
    time::{Duration, Instant},
};

use futures::future::join_all;
use sqlx::{Executor, PgConnection};
use tokio::{task::JoinSet, time};

use crate::{
    client::{Api, PASSWORD, Pair},
    support::{
        postgres::Postgres,
        process::{RECOVERY, comes_true},
        world::World,
    },
};

/// The default number of connections that an instance uses for requests.
pub const CONNECTIONS: usize = 8;

/// The number of connections that an instance reserves for revocations.
pub const RESERVED_CONNECTIONS: usize = 4;

const EMAIL: &str = "health@checks.example";

/// The time for which the table is locked: less than the statement timeout.
const LOCKED: Duration = Duration::from_secs(4);

/// Checks that every guard and gate is ready, and that every instance is, keeps its row in the table of instances, can use all its `connections`, and
/// logs in, refreshes and logs out.
/// Returns an error if an instance does not recover.
pub async fn check_all(world: &World, api: &Api, connections: usize) -> Result<(), String> {
    let numbers = 0..world.instances.len();
    for number in numbers.clone() {
        let is_ready = comes_true(async || api.try_get(number, "/health/ready").await == Some(200)).await;
        is_ready.then_some(()).ok_or_else(|| format!("instance {number} is not ready"))?;
    }
    for number in numbers.clone() {
        check_beat(&world.postgres, number).await?;
    }
    let pools = numbers.clone().map(|number| (number, connections)).collect();
    check_pools(&world.postgres, api, pools, 0).await?;
    for number in numbers {
        check_calls(api, number).await?;
    }
    for guard in &world.guards {
        let is_ready = comes_true(async || guard.is_ready().await).await;
        is_ready.then_some(()).ok_or_else(|| format!("the guard at {} is not ready", guard.url))?;
    }
    if let Some(gate) = &world.gate {
        let is_ready = comes_true(async || gate.is_ready().await).await;
        is_ready.then_some(()).ok_or("the gate is not ready")?;
    }
    check_transactions(&world.postgres).await
}

/// Checks that the instance updates its row.
async fn check_beat(postgres: &Postgres, number: usize) -> Result<(), String> {
    let read =
        || postgres.query(&format!("select max(beat) from instances where name = 'instance-{number}'"));
    let was = read();
    let is_updated = comes_true(async || read().is_ok_and(|beat| was.as_ref() != Ok(&beat))).await;
    is_updated.then_some(()).ok_or_else(|| format!("instance {number} does not update its row"))
}

/// Checks that each of these instances can use this many connections, and of the reserved ones `reserved`, at the
/// same time, by as many logins and logouts that wait for a locked table. A reserved one may be in use for half
/// a minute after it has frozen, by the revocation of many sessions.
pub async fn check_pools(
    postgres: &Postgres,
    api: &Api,
    mut unproved: Vec<(usize, usize)>,
    reserved: usize,
) -> Result<(), String> {
    let begin = Instant::now();
    for pool in &mut unproved {
        pool.1 += reserved;
    }
    let is_known = comes_true(async || begin_session(api, unproved[0].0).await.is_some()).await;
    is_known.then_some(()).ok_or_else(|| format!("instance {} does not log in", unproved[0].0))?;
    loop {
        let mut most = vec![0; unproved.len()];
        let revoked = unproved.iter().flat_map(|&(number, _)| iter::repeat_n(number, reserved));
        let revoked = revoked.map(async |number| (number, begin_session(api, number).await));
        let revoked = join_all(revoked).await;
        let mut lock = lock_sessions(postgres).await;
        let mut calls = JoinSet::new();
        for (number, pair) in revoked {
            calls.spawn(end_session(api.clone(), number, pair));
        }
        for &(number, connections) in &unproved {
            for _ in 0..connections - reserved {
                let api = api.clone();
                calls.spawn(async move {
                    let pair = begin_session(&api, number).await;
                    end_session(api, number, pair).await;
                });
            }
        }
        let locked = Instant::now();
        while locked.elapsed() < LOCKED {
            for (place, &(number, _)) in unproved.iter().enumerate() {
                most[place] = most[place].max(postgres.waiting(number));
            }
            if unproved.iter().zip(&most).all(|((_, wanted), most)| most >= wanted) {
                break;
            }
            time::sleep(Duration::from_millis(20)).await;
        }
        lock.execute("rollback").await.unwrap();
        while calls.join_next().await.is_some() {}
        let found = unproved.iter().copied().zip(most);
        let bad: Vec<_> = found.filter(|((_, wanted), most)| most < wanted).collect();
        if bad.is_empty() {
            return Ok(());
        }
        if begin.elapsed() > RECOVERY {
            let said = bad.iter().map(|((number, wanted), most)| {
                format!("instance {number} can use {most} of its {wanted} connections")
            });
            return Err(said.collect::<Vec<_>>().join("; "));
        }
        unproved = bad.into_iter().map(|(one, _)| one).collect();
    }
}

/// Checks that login, refresh and logout work at this instance, and that the logout takes effect on all
/// instances.
pub async fn check_calls(api: &Api, number: usize) -> Result<(), String> {
    let mut pair = None;
    let logs_in = comes_true(async || {
        pair = begin_session(api, number).await;
        pair.is_some()
    });
    logs_in.await.then_some(()).ok_or_else(|| format!("instance {number} does not log in"))?;
    let pair = pair.unwrap();
    let mut next = None;
    let refreshes = comes_true(async || {
        // A refresh is repeated within the default grace. If it takes longer, the session has ended, and
        // another one is used.
        next = match api.try_refresh(number, &pair).await {
            Some((200, next)) => next,
            Some((401, _)) => begin_session(api, number).await,
            _ => None,
        };
        next.is_some()
    });
    refreshes.await.then_some(()).ok_or_else(|| format!("instance {number} does not refresh"))?;
    let next = next.unwrap();
    let logs_out = comes_true(async || api.status(api.logout_request(number, &next)).await == Some(200));
    logs_out.await.then_some(()).ok_or_else(|| format!("instance {number} does not log out"))?;
    let statuses = join_all((0..api.count()).map(|one| api.status(api.me_request(one, &next)))).await;
    if statuses.iter().any(|status| *status != Some(401)) {
        return Err(format!("after a logout at instance {number} its token is answered {statuses:?}"));
    }
    Ok(())
}

/// Checks that no transaction is left open, and that none was begun within another.
pub async fn check_transactions(postgres: &Postgres) -> Result<(), String> {
    let left = "select count(*) from pg_stat_activity where state like 'idle in transaction%' \
                and application_name like 'instance-%' and now() - state_change > interval '2 seconds'";
    let none_stays = comes_true(async || postgres.query(left).as_deref() == Ok("0")).await;
    none_stays.then_some(()).ok_or("a transaction is left open")?;
    let nested = postgres.nested_transactions();
    if nested > 0 { Err(format!("{nested} transactions were begun within another")) } else { Ok(()) }
}

/// Locks the sessions against writes until the transaction is rolled back.
pub async fn lock_sessions(postgres: &Postgres) -> PgConnection {
    let mut lock = postgres.connect().await;
    lock.execute("begin; lock table sessions in exclusive mode").await.unwrap();
    lock
}

async fn begin_session(api: &Api, number: usize) -> Option<Pair> {
    let login = api.try_login(number, EMAIL, PASSWORD);
    match api.answered(login).await? {
        (200, body) => Some(Pair::of(&body)),
        (401, _) => {
            let (status, body) = api.answered(api.register_request(number, EMAIL)).await?;
            (status == 200).then(|| Pair::of(&body))
        }
        _ => None,
    }
}

async fn end_session(api: Api, number: usize, pair: Option<Pair>) {
    if let Some(pair) = pair {
        let _ = api.status(api.logout_request(number, &pair)).await;
    }
}
