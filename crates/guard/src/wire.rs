//! What guards and Hallpass tell each other over HTTP, as JSON. A guard proves who it is by the id and the secret of a
//! client (HTTP Basic). A field can be added with a default, so that the two need not be of the same version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `GET`: [`Settings`].
pub const SETTINGS: &str = "/guard/settings";
/// `GET`: a list of [`InstanceRow`](hallpass_allowlist::InstanceRow). `PUT` below it, with an id: [`Facts`], answered by [`Recorded`]. `DELETE` there.
pub const INSTANCES: &str = "/guard/instances";
/// `POST`: [`TokenRecord`](hallpass_allowlist::TokenRecord), answered by [`Liveness`].
pub const TOKEN: &str = "/guard/token";
/// `GET`: the ids of revoked sessions, a line each, and [`revoked_sessions_end`].
pub const REVOKED_SESSIONS: &str = "/guard/revoked_sessions";

/// The last line of the list of revoked sessions. A list without it is not whole.
pub fn revoked_sessions_end(count: usize) -> String {
    format!("end {count}\n")
}

/// What a guard has to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// The `iss` of access tokens.
    pub issuer: String,
    /// The `aud` of access tokens.
    pub audience: String,
    /// The number of Redis servers that hold the same data.
    pub nodes: usize,
    /// The number of shares into which the users are divided.
    pub partitions: u16,
    /// The settings that all instances have in common.
    pub equal: BTreeMap<String, String>,
    /// The public keys, as the members of a JSON Web Key Set (RFC 7517, 5). They are here as well as at their public
    /// address, so that no cache stands between.
    pub keys: Vec<Value>,
}

/// What a guard records of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Facts {
    /// The name that its operator gave it.
    pub name: String,
    /// Its settings and state, as JSON of the allowlist.
    pub facts: String,
}

/// The facts were recorded.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Recorded {
    /// The time by the database's clock, in milliseconds since the Unix epoch.
    pub time_ms: i64,
}

/// Whether exactly this token was issued and its session has not ended.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the type says it")]
pub struct Liveness {
    pub is_live: bool,
}
