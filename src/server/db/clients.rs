//! The table of clients: other services that may ask about tokens and revoke them.

use sqlx::FromRow;

use super::{Db, DbError};
use crate::server::clock::UnixSeconds;

/// A client, without its secret.
#[derive(Debug, Clone, FromRow)]
pub struct Client {
    pub id: String,
    pub name: String,
    pub created_at: UnixSeconds,
}

impl Db {
    pub async fn add_client(&self, client: &Client, secret_hash: &str) -> Result<(), DbError> {
        sqlx::query("insert into clients (id, name, secret_hash, created_at) values ($1, $2, $3, $4)")
            .bind(&client.id)
            .bind(&client.name)
            .bind(secret_hash)
            .bind(client.created_at)
            .execute(&mut *self.pool.acquire().await?)
            .await?;
        Ok(())
    }

    /// All clients, the oldest first.
    pub async fn clients(&self) -> Result<Vec<Client>, DbError> {
        sqlx::query_as("select id, name, created_at from clients order by created_at, id")
            .fetch_all(&mut *self.pool.acquire().await?)
            .await
    }

    /// The hash of the client's secret; `None` if there is no such client.
    pub async fn client_secret_hash(&self, id: &str) -> Result<Option<String>, DbError> {
        let row: Option<(String,)> = sqlx::query_as("select secret_hash from clients where id = $1")
            .bind(id)
            .fetch_optional(&mut *self.pool.acquire().await?)
            .await?;
        Ok(row.map(|(hash,)| hash))
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
