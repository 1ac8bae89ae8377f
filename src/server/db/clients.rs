//! The table of clients: other services that may ask about tokens and revoke them.

use super::{Db, DbError};
use crate::server::clock::UnixSeconds;

/// A client, without its secret.
#[derive(Debug, Clone)]
pub struct Client {
    pub id: String,
    pub name: String,
    pub created_at: UnixSeconds,
    /// Whether the client may end all sessions of a user, of whom it has no token.
    pub may_revoke_users: bool,
}

/// What tells whether a request comes from a client, and what the client may do.
pub struct Credentials {
    pub secret_hash: String,
    pub may_revoke_users: bool,
}

impl Db {
    pub async fn add_client(&self, client: &Client, secret_hash: &str) -> Result<(), DbError> {
        sqlx::query(
            "insert into clients (id, name, secret_hash, created_at, may_revoke_users) values ($1, $2, $3, $4, $5)",
        )
        .bind(&client.id)
        .bind(&client.name)
        .bind(secret_hash)
        .bind(client.created_at)
        .bind(i64::from(client.may_revoke_users))
        .execute(&mut *self.pool.acquire().await?)
        .await?;
        Ok(())
    }

    /// All clients, the oldest first.
    pub async fn clients(&self) -> Result<Vec<Client>, DbError> {
        let rows: Vec<(String, String, UnixSeconds, i64)> = sqlx::query_as(
            "select id, name, created_at, may_revoke_users from clients order by created_at, id",
        )
        .fetch_all(&mut *self.pool.acquire().await?)
        .await?;
        let client = |(id, name, created_at, may_revoke_users)| Client {
            id,
            name,
            created_at,
            may_revoke_users: may_revoke_users != 0,
        };
        Ok(rows.into_iter().map(client).collect())
    }

    /// `None` if there is no such client.
    pub async fn client_credentials(&self, id: &str) -> Result<Option<Credentials>, DbError> {
        let row: Option<(String, i64)> =
            sqlx::query_as("select secret_hash, may_revoke_users from clients where id = $1")
                .bind(id)
                .fetch_optional(&mut *self.pool.acquire().await?)
                .await?;
        Ok(row.map(|(secret_hash, may)| Credentials { secret_hash, may_revoke_users: may != 0 }))
    }

    /// Returns whether there is such a client.
    pub async fn set_client_secret_hash(&self, id: &str, secret_hash: &str) -> Result<bool, DbError> {
        let updated = sqlx::query("update clients set secret_hash = $2 where id = $1")
            .bind(id)
            .bind(secret_hash)
            .execute(&mut *self.pool.acquire().await?)
            .await?;
        Ok(updated.rows_affected() > 0)
    }

    /// Returns whether there was such a client.
    pub async fn remove_client(&self, id: &str) -> Result<bool, DbError> {
        let deleted = sqlx::query("delete from clients where id = $1")
            .bind(id)
            .execute(&mut *self.pool.acquire().await?)
            .await?;
        Ok(deleted.rows_affected() > 0)
    }
}
