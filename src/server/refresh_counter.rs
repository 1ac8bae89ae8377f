//! What the refresh token that is current in a session counts, for those who only look at it:
//! `sessions.rs` changes it.

use super::{
    db::{Db, DbError},
    ids::SessionId,
};

impl Db {
    /// `None` if there is no such session.
    pub async fn refresh_counter(&self, session_id: SessionId) -> Result<Option<i64>, DbError> {
        let row: Option<(i64,)> = sqlx::query_as("select counter from sessions where id = $1")
            .bind(session_id.to_string())
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|(counter,)| counter))
    }
}
