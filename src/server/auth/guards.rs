//! Guards: services beside Hallpass that have joined the instances. Each is a member like an instance, whose store is this
//! server: what an instance asks the database, a guard asks here.

use std::sync::mpsc;

use hallpass_allowlist::{InstanceRow, TokenRecord};
use hallpass_guard::wire::{Facts, Settings};

use super::{
    Auth,
    clients::{AuthenticatedClient, name},
    unavailable,
};
use crate::{
    api::error::ApiError,
    server::{
        clock::UnixSeconds,
        db::DbError,
        ids::{InstanceId, SessionId},
    },
};

/// The longest facts of a guard, in bytes: they name the bus that each partition follows.
pub fn max_facts(partitions: u16) -> usize {
    4000 + 80 * usize::from(partitions)
}

impl Auth {
    /// What a guard has to know before it can join, and while it runs.
    ///
    /// # Errors
    /// [`ApiError::Conflict`]: this instance runs alone, and there is nothing to join.
    pub fn guard_settings(&self, _: &AuthenticatedClient, now: UnixSeconds) -> Result<Settings, ApiError> {
        let keys = self.public_keys(now).into_iter().filter_map(|key| serde_json::to_value(key).ok());
        Ok(Settings { keys: keys.collect(), ..self.settings_without_keys()?.clone() })
    }

    fn settings_without_keys(&self) -> Result<&Settings, ApiError> {
        let alone = "This Hallpass runs without Redis, which guards need: set REDIS_URL, or use the gate.";
        self.guard_settings.as_ref().ok_or_else(|| ApiError::Conflict(alone.into()))
    }

    /// Records a guard and increments its beat. Returns the time by the database's clock, in milliseconds.
    ///
    /// # Errors
    /// [`ApiError::Conflict`]: it cannot run beside this instance, or the id is that of an instance or of another client's
    /// guard; [`ApiError::InvalidRequest`]; [`ApiError::Unavailable`].
    pub async fn record_guard(
        &self,
        client: &AuthenticatedClient,
        id: InstanceId,
        guard: &Facts,
    ) -> Result<i64, ApiError> {
        let shown = name(&guard.name).ok_or_else(|| {
            ApiError::InvalidRequest("The name of a guard is a line of at most 100 characters.".into())
        })?;
        if guard.facts.len() > max_facts(self.settings_without_keys()?.partitions) {
            return Err(ApiError::PayloadTooLarge);
        }
        // Before it is recorded: the running instances trust no mirror while they know of a conflict.
        if let Some(conflict) = self.allowlist.conflict_with(shown, &guard.facts).await {
            return Err(ApiError::Conflict(conflict));
        }
        let _permit = self.guard_calls.permit().await?;
        match self.db.record_instance(id, shown, &guard.facts, Some(client.id())).await {
            Err(DbError::RowNotFound) => {
                Err(ApiError::Conflict("This id is in use, or the client has too many guards.".into()))
            }
            recorded => recorded.map_err(unavailable),
        }
    }

    /// Forgets a guard of this client that has ended.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`].
    pub async fn delete_guard(
        &self,
        client: &AuthenticatedClient,
        id: &str,
        beat: Option<i64>,
    ) -> Result<(), ApiError> {
        let _permit = self.guard_calls.permit().await?;
        self.db.delete_instance(id, beat, Some(client.id())).await.map_err(unavailable)
    }

    /// All running instances and guards, as the table of instances has them.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`].
    pub async fn members(&self, client: &AuthenticatedClient) -> Result<Vec<InstanceRow>, ApiError> {
        let _permit = self.guard_calls.permit().await?;
        self.db.all_instances(Some(client.id())).await.map_err(unavailable)
    }

    /// Whether exactly this token was issued and its session has not ended, by the database.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`].
    pub async fn is_token_live(
        &self,
        _: &AuthenticatedClient,
        token: &TokenRecord,
    ) -> Result<bool, ApiError> {
        let _permit = self.guard_calls.permit().await?;
        self.db.is_token_live(token).await.map_err(unavailable)
    }

    /// Every revoked session that may still have a token which some clock considers unexpired, by the database.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`].
    pub async fn revoked_sessions(
        &self,
        _: &AuthenticatedClient,
        now: UnixSeconds,
    ) -> Result<Vec<SessionId>, ApiError> {
        let (sender, receiver) = mpsc::channel();
        let permit = self.guard_calls.permit().await?;
        let each = move |session| {
            // Held until the transaction has ended, which goes on when the guard has hung up.
            let _ = (&permit, sender.send(session));
        };
        self.db.revoked_sessions_for_a_guard(now, each).await.map_err(unavailable)?;
        Ok(receiver.into_iter().collect())
    }
}
