//! The deletion of rows that are no longer needed. A backlog of any size shrinks, on a slow database too.

use std::time::{Duration, Instant};

use sqlx::AssertSqlSafe;

use super::{Db, DbError, events};
use crate::server::clock::UnixSeconds;

const DAY: i64 = 86_400;

/// The number of rows that one statement deletes: few, so that locks are held briefly and a slow database is
/// done before the timeout of a statement.
const DELETED_AT_ONCE: i64 = 1000;

/// How long the statements for one table are repeated.
const DELETE_FOR: Duration = Duration::from_secs(5);

/// The tables with the rows of each that are not needed, and for how many seconds they are kept. An expired
/// token or session is dead with or without its row.
const EXPIRED: [(&str, &str, i64); 6] = [
    ("access_tokens", "expires_at <= $1", DAY),
    (
        "sessions",
        "expires_at <= $1 and not exists (select 1 from access_tokens where session_id = sessions.id)",
        DAY,
    ),
    ("account_events", "at <= $1", events::KEPT),
    ("mail_tokens", "expires_at <= $1", 0),
    ("completed_ceremonies", "expires_at <= $1", DAY),
    (
        "users",
        "deleted_at <= $1 and not exists (select 1 from sessions where user_id = users.id) \
         and not exists (select 1 from account_events where user_id = users.id) \
         and not exists (select 1 from mail_tokens where user_id = users.id) \
         and not exists (select 1 from totp where user_id = users.id) \
         and not exists (select 1 from recovery_codes where user_id = users.id) \
         and not exists (select 1 from passkeys where user_id = users.id)",
        DAY,
    ),
];

impl Db {
    /// Deletes access tokens, sessions, tokens of mails and passkey ceremonies that have expired, old events, and
    /// what is left of deleted users, as many as there is time for. A failure at one table does not skip the others.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn delete_expired(&self, now: UnixSeconds) -> Result<(), DbError> {
        let mut result = Ok(());
        for (table, expired, kept) in EXPIRED {
            result = result.and(self.delete_in_portions(table, expired, now - kept).await);
        }
        result
    }

    async fn delete_in_portions(
        &self,
        table: &str,
        expired: &str,
        until: UnixSeconds,
    ) -> Result<(), DbError> {
        let started = Instant::now();
        // Instances that delete at the same time take different rows.
        let lock = if self.is_postgres() { "for update skip locked" } else { "" };
        let statement = format!(
            "delete from {table} where id in (select id from {table} where {expired} limit {DELETED_AT_ONCE} {lock})"
        );
        loop {
            let deleted = sqlx::query(AssertSqlSafe(statement.clone()))
                .bind(until)
                .execute(&mut *self.reserved_pool().acquire().await?)
                .await?
                .rows_affected();
            if deleted < DELETED_AT_ONCE.cast_unsigned() || started.elapsed() >= DELETE_FOR {
                return Ok(());
            }
        }
    }
}
