//! The table of issued access tokens. It fills the mirror of an instance that starts, and answers for a token that
//! neither the mirror nor Redis lists, and for any token while there is no lease.

use std::time::Duration;

use futures::TryStreamExt;
use hallpass_allowlist::TokenRecord;
use sqlx::{AnyConnection, Connection, FromRow};
use tokio::time;

use crate::server::{
    clock::UnixSeconds,
    db::{Db, DbError, decode::parse},
};

/// The timeout for each row of a result with many rows.
pub const ROW_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(FromRow)]
pub struct TokenRow {
    pub id: String,
    pub session_id: String,
    pub user_id: String,
    pub expires_at: UnixSeconds,
}

/// Records an access token, in the same transaction as the login or refresh that issues it.
pub async fn record(connection: &mut AnyConnection, entry: &TokenRecord) -> Result<(), DbError> {
    sqlx::query("insert into access_tokens (id, session_id, expires_at) values ($1, $2, $3)")
        .bind(entry.token_id.to_string())
        .bind(entry.session_id.to_string())
        .bind(entry.expires_at)
        .execute(connection)
        .await?;
    Ok(())
}

impl Db {
    /// Whether exactly this access token was issued, and its session is not revoked. The caller checks that
    /// it has not expired.
    pub async fn is_token_live(&self, entry: &TokenRecord) -> Result<bool, DbError> {
        let live = sqlx::query(
            "select 1 from access_tokens join sessions on sessions.id = session_id \
             where access_tokens.id = $1 and session_id = $2 and user_id = $3 \
             and access_tokens.expires_at = $4 and revoked_at is null",
        )
        .bind(entry.token_id.to_string())
        .bind(entry.session_id.to_string())
        .bind(entry.user_id.to_string())
        .bind(entry.expires_at)
        .fetch_optional(&mut *self.pool.acquire().await?)
        .await?;
        Ok(live.is_some())
    }

    /// Calls `each` with every live access token. There may be millions, so they are read one by one, on a
    /// connection of their own without a statement timeout.
    pub async fn live_tokens(
        &self,
        now: UnixSeconds,
        mut each: impl FnMut(TokenRecord),
    ) -> Result<(), DbError> {
        let mut connection = self.unlimited_connection().await?;
        let mut rows = sqlx::query_as::<_, TokenRow>(
            "select access_tokens.id, session_id, user_id, access_tokens.expires_at \
             from access_tokens join sessions on sessions.id = session_id \
             where revoked_at is null and access_tokens.expires_at > $1",
        )
        .bind(now)
        .fetch(&mut connection);
        while let Some(row) =
            time::timeout(ROW_TIMEOUT, rows.try_next()).await.map_err(|_| DbError::PoolTimedOut)??
        {
            each(TokenRecord {
                token_id: parse(&row.id)?,
                session_id: parse(&row.session_id)?,
                user_id: parse(&row.user_id)?,
                expires_at: row.expires_at,
            });
        }
        drop(rows);
        connection.close().await
    }
}
