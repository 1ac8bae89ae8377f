//! What the calls take and answer. The JSON on the wire is these structs, field by field.

use serde::{Deserialize, Serialize};

/// A JWT that authorizes requests until it expires or its session is revoked. Never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccessToken(String);

/// An opaque token that buys one new pair of tokens. Never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RefreshToken(String);

macro_rules! secret_text {
    ($name:ident) => {
        impl $name {
            pub fn new(text: String) -> Self {
                Self(text)
            }

            /// The token itself. Keep it out of logs, errors and URLs.
            pub fn expose(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "([redacted])"))
            }
        }
    };
}
secret_text!(AccessToken);
secret_text!(RefreshToken);

/// How the refresh token reaches the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// In an HttpOnly cookie, out of reach of scripts. What a browser wants.
    #[default]
    Cookie,
    /// In the JSON answer. What a program without a cookie jar wants.
    Body,
}

/// A new pair of tokens (RFC 6749, 5.1).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenResponse {
    pub access_token: AccessToken,
    /// Always `Bearer` (RFC 6750).
    pub token_type: String,
    /// Seconds from `server_time` until the access token expires.
    pub expires_in: i64,
    /// The server's clock when it answered, in Unix seconds: a client whose own clock is wrong
    /// measures against this one.
    pub server_time: i64,
    pub session_id: String,
    /// Present only with [`Delivery::Body`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<RefreshToken>,
}

/// What the access token that made the request says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The user's id.
    pub sub: String,
    pub email: String,
    /// The session's id.
    pub sid: String,
    /// The token's own id.
    pub jti: String,
    /// When the token expires, in Unix seconds.
    pub exp: i64,
}

/// A revocation that holds: no instance accepts any token of the session from here on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// How many instances were running.
    pub instances: u32,
    /// How many of them confirmed that they refuse the session. The others no longer trust what
    /// they remember.
    pub acknowledged: u32,
    /// How long that took, in milliseconds.
    pub elapsed_ms: u64,
}

/// Whether the browser that asked for a page is signed in. Found out before the page is drawn, and
/// sent with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Presence {
    #[default]
    Anonymous,
    SignedIn,
}

/// How a revocation went, for whoever looks after the servers: neither whose it was, nor which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentRevocation {
    /// When it was answered, in Unix seconds.
    pub at: i64,
    /// How many instances were running.
    pub instances: u32,
    /// How many of them confirmed it.
    pub acknowledged: u32,
    /// How long it took, in microseconds.
    pub elapsed_us: u64,
}

/// One server process, as another sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceView {
    pub name: String,
    /// It is the one that was asked.
    pub is_this: bool,
    /// It may trust its memory.
    pub is_leased: bool,
    /// How long ago it was seen to renew its lease, in milliseconds.
    pub renewed_ms: u64,
    /// Up to which event it has followed the stream of each partition.
    pub positions: Vec<String>,
    /// How many sessions it remembers, ended ones included.
    pub sessions: usize,
    /// Those that it has asked for last, the newest first.
    pub revocations: Vec<RecentRevocation>,
}

/// All running instances, as one of them sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// Whether there is a Redis between them; alone, there is nobody to be told.
    pub is_shared: bool,
    /// The clock of the one that was asked, in Unix seconds.
    pub now: i64,
    /// By name.
    pub instances: Vec<InstanceView>,
}
