//! The types that the calls take and return. The JSON in requests and responses has the same fields.

use std::{
    convert::Infallible,
    fmt::{self, Display, Formatter},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::ToSchema;

/// A JWT that authorizes requests until it expires or its session is revoked. It is never logged.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct AccessToken(String);

/// An opaque token that is exchanged, once, for a new pair of tokens. It is never logged.
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

/// How the refresh token is delivered: `cookie`, for browsers, sets an HttpOnly cookie; `body`, for programs
/// without a cookie jar, puts it into the response. `cookie` unless given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// In an HttpOnly cookie, which scripts cannot read: for browsers.
    #[default]
    Cookie,
    /// In the JSON response: for programs without a cookie jar.
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
    /// The server's time when it answered, in Unix seconds, for clients whose own clock is wrong.
    pub server_time: i64,
    /// The id of the session.
    pub session_id: String,
    /// The refresh token, only with `delivery=body`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<RefreshToken>,
}

/// The claims of the access token in the request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Account {
    /// The user's id.
    pub sub: String,
    /// The user's e-mail address.
    pub email: String,
    /// The session's id.
    pub sid: String,
    /// The id of the token.
    pub jti: String,
    /// When the token expires, in Unix seconds.
    pub exp: i64,
    pub role: Role,
}

/// The result of checking an access token, except for whether it is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatelessCheck {
    /// Whether the signature and all claims are valid, and the token has not expired.
    pub is_valid: bool,
    /// The seconds until the token expires; 0 if it is not valid.
    pub expires_in: i64,
}

/// The role of a user. A change of the role revokes all sessions of the user, so that the role in a live
/// token is always the current one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    #[default]
    User,
    /// May manage users and their sessions.
    Admin,
}

impl Role {
    pub fn is_user(&self) -> bool {
        *self == Self::User
    }

    /// The role as it is written in tokens, in the database and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
        }
    }
}

/// The reason why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    SignedOut,
    /// The user signed out everywhere, from one of their sessions.
    SignedOutEverywhere,
    /// The user revoked it from another session.
    EndedElsewhere,
    /// A new session was started in the same browser.
    Replaced,
    /// A used refresh token was presented again (RFC 9700, 4.14.2).
    TokenReused,
    PasswordChanged,
    /// An administrator set the password.
    PasswordSet,
    RoleChanged,
    Disabled,
    EndedByAdmin,
    /// The session was not used for too long, or reached its maximum age.
    Expired,
    /// The user logged in once more while they had the maximum number of sessions.
    Displaced,
    /// The password was reset by the link in a mail.
    PasswordReset,
    EmailChanged,
    /// The account was deleted.
    Deleted,
    /// An authenticator app or a passkey was added or removed.
    FactorsChanged,
}

impl EndReason {
    /// The reasons as they are written in the database and in JSON.
    pub const ALL: [(Self, &str); 16] = [
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
        (Self::PasswordReset, "password_reset"),
        (Self::EmailChanged, "email_changed"),
        (Self::Deleted, "deleted"),
        (Self::FactorsChanged, "factors_changed"),
    ];

    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(reason, _)| *reason == self).map_or("", |(_, text)| text)
    }

    /// The message for the user of the session.
    pub fn words(self) -> &'static str {
        match self {
            Self::SignedOut => "You have been signed out.",
            Self::SignedOutEverywhere => "You have been signed out everywhere, from another device.",
            Self::EndedElsewhere => "You have been signed out: this session was ended from another device.",
            Self::Replaced => "You have been signed out: someone signed in again in this browser.",
            Self::TokenReused => {
                "Your session was used from two places, so it was ended: someone may have copied it. Sign in again, and change your password if this was not you."
            }
            Self::PasswordChanged | Self::PasswordReset => {
                "You have been signed out, because your password was changed. Sign in with the new one."
            }
            Self::PasswordSet => {
                "You have been signed out: an administrator has changed your password. Ask them for the new one."
            }
            Self::RoleChanged => "You have been signed out, because your role was changed. Sign in again.",
            Self::Disabled => "You have been signed out: your account is disabled. Ask an administrator.",
            Self::EndedByAdmin => "You have been signed out by an administrator.",
            Self::EmailChanged => {
                "You have been signed out, because the e-mail address of your account was changed."
            }
            Self::Deleted => "You have been signed out: this account was deleted.",
            Self::FactorsChanged => {
                "You have been signed out, because an authenticator app or a passkey was added to your account or removed. Sign in again."
            }
            Self::Expired => "Your session has expired. Sign in again.",
            Self::Displaced => {
                "You have been signed out: your account had too many sessions, and this one was the least recently used."
            }
        }
    }
}

/// A live session of the calling user, or of one that an administrator asks about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionInfo {
    /// The id of the session.
    pub session_id: String,
    /// The browser and the operating system, such as `Firefox on Linux`.
    pub device: String,
    /// The network that the session was started from, such as `192.0.2.0/24`; empty if it is not known.
    pub address: String,
    /// The start of the session, in Unix seconds, to the minute.
    pub created_at: i64,
    /// The last refresh of the session, in Unix seconds, to the minute.
    pub last_seen_at: i64,
    /// Whether this is the session that makes the request.
    pub is_current: bool,
}

/// The live sessions of a user: the one that makes the request first, then the most recently used ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionList {
    /// The server's time, in Unix seconds.
    pub now: i64,
    /// The sessions.
    pub sessions: Vec<SessionInfo>,
}

/// The kind of an event of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    SignedIn,
    SessionEnded(EndReason),
    PasswordChanged,
    PasswordSet,
    /// The password was reset by the link in a mail.
    PasswordReset,
    EmailChanged,
    /// The address was changed back by the link in a mail to it.
    EmailRestored,
    RoleChanged,
    Disabled,
    Enabled,
    /// A refresh was repeated within the grace, from another device or network.
    RefreshedElsewhere,
    TotpAdded,
    TotpRemoved,
    PasskeyAdded,
    PasskeyRemoved,
    RecoveryCodesRenewed,
    /// An operator has removed the authenticator app and the passkeys.
    FactorsRemoved,
    RecoveryCodeUsed,
    /// The password was entered with a wrong code.
    SecondFactorMissed,
}

/// An event of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecurityEvent {
    /// The time of the event, in Unix seconds.
    pub at: i64,
    pub kind: EventKind,
    /// The browser and the operating system of the session that the event is about; empty if it is about
    /// none.
    pub device: String,
    /// The network of that session; empty if it is not known.
    pub address: String,
}

/// The recent events of an account, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecurityEvents {
    /// The server's time, in Unix seconds.
    pub now: i64,
    /// The events.
    pub events: Vec<SecurityEvent>,
}

/// A user, as administrators see them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserInfo {
    /// The id of the user.
    pub user_id: String,
    /// The user's e-mail address.
    pub email: String,
    pub role: Role,
    /// Whether the user is disabled and cannot log in.
    pub is_disabled: bool,
    /// The number of live sessions.
    pub sessions: i64,
    /// The last login with the password, in Unix seconds; `null` if there was none.
    pub last_login_at: Option<i64>,
}

/// A page of users, ordered by e-mail address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserList {
    /// The users.
    pub users: Vec<UserInfo>,
    /// Whether there are more users after the last one on this page.
    pub has_more: bool,
}

/// A client: another service that may ask about tokens and revoke them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClientInfo {
    /// The id of the client.
    pub client_id: String,
    pub name: String,
    /// When it was added, in Unix seconds.
    pub created_at: i64,
    /// Whether it may also end all sessions of a user.
    #[serde(default)]
    pub may_revoke_users: bool,
}

/// All clients, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClientList {
    /// The server's time, in Unix seconds.
    pub now: i64,
    /// The clients.
    pub clients: Vec<ClientInfo>,
}

/// The answer of a call that was accepted and has nothing else to say: `{}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Accepted {}

/// What the calling user's account is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserProfile {
    /// The e-mail address.
    pub email: String,
    /// Whether the user has opened the link in a mail to this address. Notices are sent to confirmed addresses only.
    pub is_verified: bool,
    /// When the account was made, in Unix seconds.
    pub created_at: i64,
}

/// How surely the user was recognized when the session began: the claim `acr` of its tokens. The levels are those of
/// NIST SP 800-63B.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Assurance {
    /// By one factor: the password.
    #[default]
    Aal1,
    /// By two: the password and a code, or a passkey.
    Aal2,
}

impl Assurance {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aal1 => "aal1",
            Self::Aal2 => "aal2",
        }
    }
}

/// How a call needs its bearer's session to have begun (RFC 9470, 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepUp {
    pub acr: Assurance,
    /// How long ago at most, in seconds.
    pub max_age: i64,
}

/// What begins a passkey ceremony in the browser (WebAuthn Level 3, 7).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PasskeyCeremony {
    /// To be sent back with the credential, within five minutes, once.
    pub ceremony: String,
    /// The options as JSON text, for `parseCreationOptionsFromJSON` or `parseRequestOptionsFromJSON` of
    /// `PublicKeyCredential`.
    pub options: String,
}

/// A passkey of the calling user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PasskeyInfo {
    /// The id of the passkey.
    pub passkey_id: String,
    /// The name that the user has given it.
    pub name: String,
    /// When it was added, in Unix seconds.
    pub created_at: i64,
    /// The last sign-in with it, in Unix seconds; `null` if there was none.
    pub last_used_at: Option<i64>,
    /// Whether it is synchronized between devices; otherwise it is lost with its device.
    pub is_backed_up: bool,
    /// How many signatures it has made, as it says; 0 if it does not count.
    pub signatures: i64,
}

/// The ways in which the calling user can sign in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MethodList {
    /// The server's time, in Unix seconds.
    pub now: i64,
    /// When an authenticator app was added, in Unix seconds; `null` if there is none.
    pub totp_added_at: Option<i64>,
    /// The number of recovery codes that were not used.
    pub recovery_codes: i64,
    /// The passkeys, the oldest first.
    pub passkeys: Vec<PasskeyInfo>,
    /// How the session that makes the request began.
    pub acr: Assurance,
}

/// A secret for an authenticator app, which is in use once a code was entered.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TotpSecret {
    /// The secret as base32 (RFC 4648, 6), to be typed into the app.
    pub secret: String,
    /// The same for apps, as `otpauth://totp/…`.
    pub uri: String,
    /// The URI as a QR code: an SVG document.
    pub qr_svg: String,
}

/// Codes with which the user can sign in without the authenticator app, each once. They are shown only here.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecoveryCodes {
    pub codes: Vec<String>,
    /// The end of the other sessions, if a factor was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
}

macro_rules! debug_redacted {
    ($($name:ident),+) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "([redacted])"))
            }
        }
    )+};
}
debug_redacted!(TotpSecret, RecoveryCodes);

/// What a link in a mail has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Confirmed {
    /// The address of the account is confirmed.
    Verified,
    /// The account was made.
    Registered,
    /// The account has the new address.
    EmailChanged,
    /// The account has its earlier address again. Its password is void, and has to be reset.
    EmailRestored,
}

/// The answer to a link in a mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Confirmation {
    pub confirmed: Confirmed,
    /// The end of all sessions, if the address has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
}

/// A session in an [`AccountExport`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExportedSession {
    /// The id of the session.
    pub session_id: String,
    /// The `User-Agent` header of the login.
    pub user_agent: String,
    /// The network that the session was started from.
    pub address: String,
    /// The start of the session, in Unix seconds.
    pub created_at: i64,
    /// The last refresh, in Unix seconds.
    pub refreshed_at: i64,
    /// When the session ends at the latest, in Unix seconds.
    pub expires_at: i64,
    /// When the session was revoked, in Unix seconds; `null` if it was not.
    pub revoked_at: Option<i64>,
    pub revoke_reason: Option<EndReason>,
}

/// What is kept about a user, except for secrets and links that were sent and not used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccountExport {
    /// The time of the export, in Unix seconds.
    pub exported_at: i64,
    /// The id of the user.
    pub user_id: String,
    pub role: Role,
    pub profile: UserProfile,
    /// The last sign-in, in Unix seconds; `null` if there was none.
    pub last_login_at: Option<i64>,
    /// When an authenticator app was added, in Unix seconds; `null` if there is none. Its secret is not exported.
    #[serde(default)]
    pub totp_added_at: Option<i64>,
    /// The number of recovery codes that were not used.
    #[serde(default)]
    pub recovery_codes: i64,
    #[serde(default)]
    pub passkeys: Vec<PasskeyInfo>,
    /// The sessions, the latest first.
    pub sessions: Vec<ExportedSession>,
    /// What happened to the account, the latest first.
    pub events: Vec<SecurityEvent>,
}

/// A confirmed revocation: no instance accepts any token of the revoked sessions from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Revocation {
    /// The number of instances that were running.
    pub instances: u32,
    /// The number of instances that confirmed the revocation. The others have no lease any more, so they do
    /// not answer from memory.
    pub acknowledged: u32,
    /// The duration of the revocation, in milliseconds.
    pub elapsed_ms: u64,
}

/// What a page shows of a logout that was posted as a plain form, and is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfirmedLogout {
    /// The number of instances that were running.
    pub instances: u32,
    /// The duration of the revocation, in milliseconds.
    pub elapsed_ms: u64,
}

/// The form in which it is in a cookie, such as `3.4`.
impl Display for ConfirmedLogout {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.instances, self.elapsed_ms)
    }
}

impl FromStr for ConfirmedLogout {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (instances, elapsed_ms) = text.split_once('.').ok_or(())?;
        Ok(Self {
            instances: instances.parse().map_err(drop)?,
            elapsed_ms: elapsed_ms.parse().map_err(drop)?,
        })
    }
}

/// A version of the site's files: that of an instance, or of the one that has rendered a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteVersion {
    /// The number of the instance's start, which grows from start to start.
    pub start: i64,
    /// The hash of the files.
    pub hash: String,
}

impl SiteVersion {
    /// Whether the other files are not these, and were started later.
    pub fn is_replaced_by(&self, other: &Self) -> bool {
        self.hash != other.hash && self.start < other.start
    }
}

/// The form in which it is in a page and in an event, such as `7.NTBz7cU4y2D1pQrs`.
impl Display for SiteVersion {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.start, self.hash)
    }
}

impl FromStr for SiteVersion {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (start, hash) = text.split_once('.').ok_or(())?;
        Ok(Self { start: start.parse().map_err(drop)?, hash: hash.to_owned() })
    }
}

/// Whether the browser that requests a page is signed in. It is determined before the page is rendered, and
/// sent with the page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Presence {
    #[default]
    Anonymous,
    SignedIn,
    /// The browser was signed in, and its user has not seen yet that the session has ended.
    Ended(EndReason),
}

const ANONYMOUS: &str = "anonymous";
const SIGNED_IN: &str = "signed_in";

/// The form in which it is sent: one word, so that the first load of the app needs no JSON.
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

/// A recent revocation, for operators: without the user and the session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecentRevocation {
    /// The number of the revocation on the instance that made it, from 1 on; 0 from an older version that
    /// does not count.
    #[serde(default)]
    pub number: u64,
    /// The time of the answer, in Unix seconds.
    pub at: i64,
    /// The number of instances that were running.
    pub instances: u32,
    /// The number of instances that confirmed the revocation.
    pub acknowledged: u32,
    /// The duration of the revocation, in microseconds.
    pub elapsed_us: u64,
}

/// What a process does that a revocation waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MemberKind {
    /// It serves the site and the API.
    #[default]
    Instance,
    /// It tells proxies which tokens are live.
    Gate,
    /// It is another service, with a guard.
    Guard,
}

/// An instance, as the instance that answers sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstanceView {
    /// The name of the instance.
    pub name: String,
    pub kind: MemberKind,
    /// Whether this is the instance that answers.
    pub is_this: bool,
    /// Whether the instance has a lease and answers from memory; otherwise it queries SQL. For other instances
    /// this is known only while the one that answers has a lease itself.
    pub is_leased: bool,
    /// The time since the last lease renewal that was seen, in milliseconds.
    pub renewed_ms: u64,
    /// The serial number of the last event that the instance has applied, in each partition.
    pub positions: Vec<String>,
    /// The number of sessions in the instance's memory, including ended ones.
    pub sessions: usize,
    /// The most recent revocations that the instance has made, newest first.
    pub revocations: Vec<RecentRevocation>,
}

/// All running instances, as the one that answers sees them, and for a while those that no longer report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterView {
    /// Whether the instances share a Redis; false for a single instance.
    pub is_shared: bool,
    /// The time of the instance that answers, in Unix seconds.
    pub now: i64,
    /// The instances, ordered by name.
    pub instances: Vec<InstanceView>,
}
