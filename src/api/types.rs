//! What the calls take and answer. The JSON on the wire is these structs, field by field.

use std::{
    convert::Infallible,
    fmt::{self, Display, Formatter},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::ToSchema;

/// A JWT that authorizes requests until it expires or its session is revoked. Never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct AccessToken(String);

/// An opaque token that buys one new pair of tokens. Never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// In an HttpOnly cookie, out of reach of scripts. What a browser wants.
    #[default]
    Cookie,
    /// In the JSON answer. What a program without a cookie jar wants.
    Body,
}

/// A new pair of tokens (RFC 6749, 5.1).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    pub role: Role,
}

/// What can be said of an access token without asking whether it has been revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatelessCheck {
    /// Its signature is ours, and it has not expired.
    pub is_valid: bool,
    /// For how many more seconds it would pass.
    pub expires_in: i64,
}

/// What a user may do. A change of it ends all of the user's sessions, so that what a live token
/// says is true.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    #[default]
    User,
    /// May look after users and their sessions.
    Admin,
}

impl Role {
    pub fn is_user(&self) -> bool {
        *self == Self::User
    }

    /// As it is written: in tokens, in the database, on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
        }
    }
}

/// Why a session has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    SignedOut,
    /// Signed out everywhere, from one of the user's sessions.
    SignedOutEverywhere,
    /// By the user, from another session.
    EndedElsewhere,
    /// Someone signed in where it was in use.
    Replaced,
    /// A used refresh token came back (RFC 9700, 4.14.2).
    TokenReused,
    PasswordChanged,
    /// By an administrator.
    PasswordSet,
    RoleChanged,
    Disabled,
    EndedByAdmin,
    /// Not used for too long, or as old as a session may get.
    Expired,
    /// The user signed in while they had as many sessions as a user may have.
    Displaced,
}

impl EndReason {
    /// As it is written in the database: as on the wire.
    pub const ALL: [(Self, &str); 12] = [
        (Self::SignedOut, "signed_out"),
        (Self::SignedOutEverywhere, "signed_out_everywhere"),
        (Self::EndedElsewhere, "ended_elsewhere"),
        (Self::Replaced, "replaced"),
        (Self::TokenReused, "token_reused"),
        (Self::PasswordChanged, "password_changed"),
        (Self::PasswordSet, "password_set"),
        (Self::RoleChanged, "role_changed"),
        (Self::Disabled, "disabled"),
        (Self::EndedByAdmin, "ended_by_admin"),
        (Self::Expired, "expired"),
        (Self::Displaced, "displaced"),
    ];

    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(reason, _)| *reason == self).map_or("", |(_, text)| text)
    }

    /// What to tell the one whose session it was.
    pub fn words(self) -> &'static str {
        match self {
            Self::SignedOut => "You have been signed out.",
            Self::SignedOutEverywhere => {
                "You have been signed out: someone who is signed in as you signed out everywhere."
            }
            Self::EndedElsewhere => "You have been signed out: this session was ended from another device.",
            Self::Replaced => "You have been signed out: someone signed in again in this browser.",
            Self::TokenReused => {
                "Your session was used from two places, so it was ended: someone may have copied it. Sign in again, and change your password if this was not you."
            }
            Self::PasswordChanged => "You have been signed out, because your password was changed.",
            Self::PasswordSet => "You have been signed out: an administrator has set your password.",
            Self::RoleChanged => "You have been signed out, because your role was changed. Sign in again.",
            Self::Disabled => "You have been signed out: your account is disabled.",
            Self::EndedByAdmin => "You have been signed out by an administrator.",
            Self::Expired => "Your session has expired. Sign in again.",
            Self::Displaced => {
                "You have been signed out: your account was signed in on too many devices, and this one was used least lately."
            }
        }
    }
}

/// A live session of the user who asks, or of one that an administrator asks about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionInfo {
    pub session_id: String,
    /// The browser and the device, in words.
    pub device: String,
    /// The network it signed in from, `192.0.2.0/24`; empty when it is not known.
    pub address: String,
    /// When it signed in, in Unix seconds, to the minute.
    pub created_at: i64,
    /// When it last renewed its access token, in Unix seconds, to the minute.
    pub last_seen_at: i64,
    /// It is the one that asks.
    pub is_current: bool,
}

/// The live sessions of a user, the one that asks first, then those that were used last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionList {
    /// The server's clock, in Unix seconds.
    pub now: i64,
    pub sessions: Vec<SessionInfo>,
}

/// What happened to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    SignedIn,
    SessionEnded(EndReason),
    PasswordChanged,
    PasswordSet,
    RoleChanged,
    Disabled,
    Enabled,
    /// The answer to a refresh was asked for again, within the grace, from another device or network.
    RefreshedElsewhere,
}

/// One thing that happened to an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecurityEvent {
    /// In Unix seconds.
    pub at: i64,
    pub kind: EventKind,
    /// The browser and the device of the session it was about; empty when it was about none.
    pub device: String,
    pub address: String,
}

/// What happened to an account lately, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecurityEvents {
    /// The server's clock, in Unix seconds.
    pub now: i64,
    pub events: Vec<SecurityEvent>,
}

/// A user, as an administrator sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserInfo {
    pub user_id: String,
    pub email: String,
    pub role: Role,
    pub is_disabled: bool,
    /// How many sessions are live.
    pub sessions: i64,
    /// In Unix seconds; `None` if they have never signed in with their password.
    pub last_login_at: Option<i64>,
}

/// A page of users, by e-mail address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserList {
    pub users: Vec<UserInfo>,
    /// There are more: ask again for those after the last one.
    pub has_more: bool,
}

/// A revocation that holds: no instance accepts any token of the session from here on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Presence {
    #[default]
    Anonymous,
    SignedIn,
    /// It was, and its user has not been told yet that its session has ended.
    Ended(EndReason),
}

const ANONYMOUS: &str = "anonymous";
const SIGNED_IN: &str = "signed_in";

/// As it is sent: in a word, for which the first load of the app needs no JSON.
impl Display for Presence {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => ANONYMOUS,
            Self::SignedIn => SIGNED_IN,
            Self::Ended(reason) => reason.as_str(),
        })
    }
}

impl FromStr for Presence {
    type Err = Infallible;

    fn from_str(word: &str) -> Result<Self, Infallible> {
        Ok(match word {
            SIGNED_IN => Self::SignedIn,
            word => {
                let reason = EndReason::ALL.iter().find(|(_, text)| *text == word);
                reason.map_or(Self::Anonymous, |(reason, _)| Self::Ended(*reason))
            }
        })
    }
}

/// How a revocation went, for whoever looks after the servers: neither whose it was, nor which.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecentRevocation {
    /// Counted by the instance that was asked, from 1 on. 0: by one too old to count.
    #[serde(default)]
    pub number: u64,
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstanceView {
    pub name: String,
    /// It is the one that was asked.
    pub is_this: bool,
    /// It may trust its memory; else it asks SQL. Of the others this is known only while the one that
    /// was asked is leased itself.
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

/// All running instances, as one of them sees them; and for a while those who have fallen silent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterView {
    /// Whether there is a Redis between them; alone, there is nobody to be told.
    pub is_shared: bool,
    /// The clock of the one that was asked, in Unix seconds.
    pub now: i64,
    /// By name.
    pub instances: Vec<InstanceView>,
}
