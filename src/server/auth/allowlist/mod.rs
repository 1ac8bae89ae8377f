//! Which tokens are alive.
//!
//! A token is valid only while its id is here. The truth is in SQL; reads never leave memory.
//! Every change goes to SQL first and to the mirror second, and is answered third.
//!
//! This is the form for one instance, which hears of every change because it makes every change:
//! the mirror is complete, so an id that is not in it is dead.
//!
//! `auth/` calls this; this calls the database. It knows ids and no JWT.

use std::{sync::Arc, time::Instant};

use anyhow::{Context, Result};
use tracing::info;

use self::mirror::Mirror;
use crate::{
    api::types::Revocation,
    server::{
        clock::UnixSeconds,
        db::{Db, DbError},
        ids::SessionId,
        sessions::TokenEntry,
    },
};

mod mirror;

/// The live tokens, as this instance knows them.
pub struct Allowlist {
    db: Db,
    mirror: Arc<Mirror>,
}

impl Allowlist {
    /// Fills the mirror from the truth: a restart signs nobody out, and brings nothing back.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn load(db: Db, now: UnixSeconds) -> Result<Self> {
        let mirror = Arc::new(Mirror::default());
        let live = db.live_tokens(now).await.context("the live tokens cannot be read")?;
        let count = live.len();
        for entry in live {
            mirror.insert(&entry);
        }
        info!(tokens = count, "the allowlist holds {count} live tokens");
        Ok(Self { db, mirror })
    }

    /// Lets in a token that SQL has recorded. If its session has been revoked meanwhile it stays
    /// out: revocation wins, in whatever order the two arrive.
    pub fn allow(&self, entry: &TokenEntry) {
        self.mirror.insert(entry);
    }

    /// Whether this very token, of this session and user, is alive: one look into local memory.
    /// That it has not expired is for the caller to check.
    pub fn is_active(&self, entry: &TokenEntry) -> bool {
        self.mirror.is_active(entry)
    }

    /// Whether the session holds, as far as this instance can tell without asking anyone: true
    /// when one of its access tokens lives.
    pub fn has_live_token(&self, session_id: SessionId, now: UnixSeconds) -> bool {
        self.mirror.has_live_token(session_id, now)
    }

    /// Ends the session. Once this has returned `Ok`, none of its tokens is accepted again, here
    /// or anywhere, nor after a restart. Ending an ended session succeeds.
    ///
    /// # Errors
    /// The truth could not be changed. Nothing is certain: the caller must not claim success.
    pub async fn revoke(
        &self,
        session_id: SessionId,
        reason: &'static str,
        now: UnixSeconds,
    ) -> Result<Revocation, DbError> {
        let started = Instant::now();
        let (db, mirror) = (self.db.clone(), Arc::clone(&self.mirror));
        // A task of its own: a client that hangs up drops its request, but not half of this.
        let revoking = tokio::spawn(async move {
            db.revoke_session(session_id, reason, now).await?;
            mirror.revoke(session_id);
            Ok(())
        });
        revoking.await.map_err(|_| DbError::WorkerCrashed).flatten()?;
        let elapsed_ms = started.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        Ok(Revocation { instances: 1, acknowledged: 1, elapsed_ms })
    }

    /// Drops what has expired, from SQL and from memory.
    ///
    /// # Errors
    /// The database cannot be written; memory has been cleaned all the same.
    pub async fn forget_expired(&self, now: UnixSeconds) -> Result<(), DbError> {
        self.mirror.forget_expired(now);
        self.db.forget_expired(now).await
    }
}
