//! The system of record, which the application implements on its database.

use std::error::Error;

use serde::{Deserialize, Serialize};

use crate::{
    clock::UnixSeconds,
    id::{InstanceId, SessionId},
    record::TokenRecord,
};

/// The system of record: it decides which sessions are live, and all instances share it. The allowlist only
/// reads sessions and tokens; the application writes them, in transactions of its own.
///
/// It need not be a database in reach: a service beside the application can implement it by asking the application.
///
/// Each read has to see every commit that was answered before it began: no read may go to a standby that lags.
/// A call that does not answer in time has to return an error; five to fifteen seconds are usual.
pub trait SessionStore: Clone + Send + Sync + 'static {
    /// The reason why the store cannot be used, or why the application has not recorded a revocation.
    type Error: Error + Send + Sync + 'static;

    /// Whether exactly this token was issued and its session is not revoked. The caller checks that it has not
    /// expired.
    fn is_token_live(&self, token: &TokenRecord) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Calls `each` with every revoked session that may still have a token which some clock considers unexpired.
    /// Called whenever a connection to the bus is opened, and every half minute.
    fn revoked_sessions(
        &self,
        now: UnixSeconds,
        each: impl FnMut(SessionId) + Send + 'static,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Writes the row of an instance and increments its beat. Returns the store's time in milliseconds since the
    /// Unix epoch: its clock is the one that all instances share.
    fn record_instance(
        &self,
        id: InstanceId,
        name: &str,
        facts: &str,
    ) -> impl Future<Output = Result<i64, Self::Error>> + Send;

    /// The rows of the other instances.
    fn other_instances(
        &self,
        id: InstanceId,
    ) -> impl Future<Output = Result<Vec<InstanceRow>, Self::Error>> + Send;

    /// Deletes the row of an instance that has ended; with `beat`, only if its beat is still this one.
    fn delete_instance(
        &self,
        id: &str,
        beat: Option<i64>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// A store from which the mirror can be filled at startup ([`Allowlist::load`](crate::Allowlist::load)).
pub trait LiveTokens: SessionStore {
    /// Calls `each` with every unexpired token of a session that is not revoked. There may be millions.
    fn live_tokens(
        &self,
        now: UnixSeconds,
        each: impl FnMut(TokenRecord) + Send,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// An instance that is running, or ended without deleting its row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRow {
    /// The id of this run of the instance.
    pub id: String,
    /// The name that its operator gave it.
    pub name: String,
    /// A counter that grows while the instance runs.
    pub beat: i64,
    /// What has to be the same for all instances, as JSON.
    pub facts: String,
}
