//! The table of running instances, in PostgreSQL: the facts of each, and a counter (`beat`) that grows while
//! it runs. The rules about them are in the allowlist, the only caller.

use std::time::Duration;

use hallpass_allowlist::InstanceRow;
use sqlx::AssertSqlSafe;
use tokio::time;

use crate::server::{
    db::{Db, DbError},
    ids::InstanceId,
};

const POSTGRES_CLOCK_MS: &str = "(extract(epoch from clock_timestamp()) * 1000)::bigint";

/// The timeout of a statement, including the wait for a connection.
const TIMEOUT: Duration = Duration::from_secs(6);

impl Db {
    /// Records the facts of the instance and increments its beat. Returns the time by the database's clock,
    /// in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn record_instance(&self, id: InstanceId, name: &str, facts: &str) -> Result<i64, DbError> {
        let statement = format!(
            "insert into instances (id, name, facts) values ($1, $2, $3) \
             on conflict (id) do update set beat = instances.beat + 1, facts = excluded.facts \
             returning {POSTGRES_CLOCK_MS}"
        );
        let recording =
            sqlx::query_scalar(AssertSqlSafe(statement)).bind(id.to_string()).bind(name).bind(facts);
        // Not `fetch_one`: only the end of the result shows that the change was committed.
        let rows: Vec<i64> =
            in_time(async { recording.fetch_all(&mut *self.instances_pool().acquire().await?).await })
                .await?;
        rows.first().copied().ok_or(DbError::RowNotFound)
    }

    /// The other instances in the table.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn other_instances(&self, id: InstanceId) -> Result<Vec<InstanceRow>, DbError> {
        let reading =
            sqlx::query_as("select id, name, beat, facts from instances where id <> $1").bind(id.to_string());
        let rows: Vec<(String, String, i64, String)> =
            in_time(async { reading.fetch_all(&mut *self.instances_pool().acquire().await?).await }).await?;
        Ok(rows.into_iter().map(|(id, name, beat, facts)| InstanceRow { id, name, beat, facts }).collect())
    }

    /// Deletes an instance that has ended; with `beat`, only if it has recorded nothing since.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn delete_instance(&self, id: &str, beat: Option<i64>) -> Result<(), DbError> {
        let deleting = sqlx::query("delete from instances where id = $1 and beat = coalesce($2, beat)")
            .bind(id)
            .bind(beat);
        in_time(async { deleting.execute(&mut *self.instances_pool().acquire().await?).await })
            .await
            .map(|_| ())
    }
}

async fn in_time<T>(statement: impl Future<Output = Result<T, DbError>>) -> Result<T, DbError> {
    time::timeout(TIMEOUT, statement).await.unwrap_or(Err(DbError::PoolTimedOut))
}
