//! The table of running instances and guards, in PostgreSQL: the facts of each, and a counter (`beat`) that grows
//! while it runs. The rules about them are in the allowlist, which calls this here and in guards.

use std::time::Duration;

use hallpass_allowlist::InstanceRow;
use sqlx::AssertSqlSafe;
use tokio::time;

use crate::server::{
    db::{Db, DbError, pool::Pool},
    ids::InstanceId,
};

/// The maximum number of guards of one client.
const MOST_GUARDS: u32 = 100;

const POSTGRES_CLOCK_MS: &str = "(extract(epoch from clock_timestamp()) * 1000)::bigint";

/// The timeout of a statement, including the wait for a connection.
const TIMEOUT: Duration = Duration::from_secs(6);

impl Db {
    /// Records the facts of the instance, or of the guard of a client, and increments its beat. Returns the time by
    /// the database's clock, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// The database cannot be used; [`DbError::RowNotFound`] if the id is that of someone else, or the client has
    /// [`MOST_GUARDS`] already.
    pub async fn record_instance(
        &self,
        id: InstanceId,
        name: &str,
        facts: &str,
        client_id: Option<&str>,
    ) -> Result<i64, DbError> {
        let statement = format!(
            "insert into instances (id, name, facts, client_id) select $1, $2, $3, $4 \
             where (select count(*) from instances where client_id = $4 and id <> $1) < {MOST_GUARDS} \
             on conflict (id) do update set beat = instances.beat + 1, facts = excluded.facts \
             where coalesce(instances.client_id, '') = coalesce(excluded.client_id, '') \
             returning {POSTGRES_CLOCK_MS}"
        );
        let recording = sqlx::query_scalar(AssertSqlSafe(statement))
            .bind(id.to_string())
            .bind(name)
            .bind(facts)
            .bind(client_id);
        // Not `fetch_one`: only the end of the result shows that the change was committed.
        let rows: Vec<i64> =
            in_time(async { recording.fetch_all(&mut *self.table_pool(client_id).acquire().await?).await })
                .await?;
        rows.first().copied().ok_or(DbError::RowNotFound)
    }

    /// All instances and guards in the table, for an instance, or for the guard of a client.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn all_instances(&self, client_id: Option<&str>) -> Result<Vec<InstanceRow>, DbError> {
        let reading = sqlx::query_as("select id, name, beat, facts from instances");
        let rows: Vec<(String, String, i64, String)> =
            in_time(async { reading.fetch_all(&mut *self.table_pool(client_id).acquire().await?).await })
                .await?;
        Ok(rows.into_iter().map(|(id, name, beat, facts)| InstanceRow { id, name, beat, facts }).collect())
    }

    /// Deletes an instance or a guard that has ended; with `beat`, only if it has recorded nothing since; with
    /// `client_id`, only if it is a guard of this client.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn delete_instance(
        &self,
        id: &str,
        beat: Option<i64>,
        client_id: Option<&str>,
    ) -> Result<(), DbError> {
        let deleting = sqlx::query(
            "delete from instances where id = $1 and beat = coalesce($2, beat) \
             and coalesce(client_id, '') = coalesce($3, client_id, '')",
        )
        .bind(id)
        .bind(beat)
        .bind(client_id);
        in_time(async { deleting.execute(&mut *self.table_pool(client_id).acquire().await?).await })
            .await
            .map(|_| ())
    }
}

impl Db {
    /// The connection of this instance for its own row must not wait for those of guards.
    fn table_pool(&self, client_id: Option<&str>) -> &Pool {
        if client_id.is_some() { &self.pool } else { self.instances_pool() }
    }
}

async fn in_time<T>(statement: impl Future<Output = Result<T, DbError>>) -> Result<T, DbError> {
    time::timeout(TIMEOUT, statement).await.unwrap_or(Err(DbError::PoolTimedOut))
}
