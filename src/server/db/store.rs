//! The database as the store of the allowlist.

use hallpass_allowlist::{InstanceRow, LiveTokens, SessionStore, TokenRecord};

use crate::server::{
    clock::UnixSeconds,
    db::{ChangeError, Db},
    ids::{InstanceId, SessionId},
};

impl SessionStore for Db {
    type Error = ChangeError;

    async fn is_token_live(&self, token: &TokenRecord) -> Result<bool, ChangeError> {
        Ok(self.is_token_live(token).await?)
    }

    async fn revoked_sessions(
        &self,
        now: UnixSeconds,
        each: impl FnMut(SessionId) + Send + 'static,
    ) -> Result<(), ChangeError> {
        Ok(self.revoked_sessions(now, each).await?)
    }

    async fn record_instance(&self, id: InstanceId, name: &str, facts: &str) -> Result<i64, ChangeError> {
        Ok(self.record_instance(id, name, facts, None).await?)
    }

    async fn other_instances(&self, id: InstanceId) -> Result<Vec<InstanceRow>, ChangeError> {
        let (id, mut all) = (id.to_string(), self.all_instances(None).await?);
        all.retain(|row| row.id != id);
        Ok(all)
    }

    async fn delete_instance(&self, id: &str, beat: Option<i64>) -> Result<(), ChangeError> {
        Ok(self.delete_instance(id, beat, None).await?)
    }
}

impl LiveTokens for Db {
    async fn live_tokens(
        &self,
        now: UnixSeconds,
        each: impl FnMut(TokenRecord) + Send,
    ) -> Result<(), ChangeError> {
        Ok(self.live_tokens(now, each).await?)
    }
}
