//! Examples of responses.

use crate::{
    api::types::{
        AccessToken, Account, AccountExport, ClientInfo, ClientList, ClusterView, EndReason, EventKind,
        ExportedSession, InstanceView, MemberKind, RecentRevocation, RefreshToken, Revocation, Role,
        SecurityEvent, SecurityEvents, SessionInfo, SessionList, TokenResponse, UserInfo, UserList,
        UserProfile,
    },
    server::{
        auth::{
            introspect::{Introspection, LiveToken},
            key::PublicJwk,
        },
        config::SigningAlgorithm,
    },
};

/// Examples of ids: 128 bits in base64url.
pub const SESSION: &str = "Vq3nq0mXQ1Kc9vUo5w2hTA";
pub const USER: &str = "mB7yq0pJT4uZ1r8cXk6dWQ";
const TOKEN: &str = "Xw4u2m9sR7e0aJ5tQz8bLg";
/// The time of the examples, in Unix seconds.
const NOW: i64 = 1_790_000_000;

pub fn tokens() -> TokenResponse {
    TokenResponse {
        access_token: AccessToken::new("eyJ0eXAiOiJhdCtqd3Qi….eyJpc3MiOiJo….c2lnbmF0dXJl".into()),
        token_type: "Bearer".into(),
        expires_in: 300,
        server_time: NOW,
        session_id: SESSION.into(),
        refresh_token: Some(refresh_token()),
    }
}

pub fn refresh_token() -> RefreshToken {
    RefreshToken::new(format!("{SESSION}.1.kq3xk0o0r9cTq0m2cB1mYg"))
}

pub fn revocation() -> Revocation {
    Revocation { instances: 3, acknowledged: 3, elapsed_ms: 9 }
}

pub fn me() -> Account {
    Account {
        sub: USER.into(),
        email: "ann@example.com".into(),
        sid: SESSION.into(),
        jti: TOKEN.into(),
        exp: NOW + 300,
        role: Role::User,
    }
}

pub fn sessions(is_current: bool) -> SessionList {
    let session = SessionInfo {
        session_id: SESSION.into(),
        device: "Firefox on Linux".into(),
        address: "192.0.2.0/24".into(),
        created_at: NOW - 3600,
        last_seen_at: NOW - 60,
        is_current,
    };
    SessionList { now: NOW, sessions: vec![session] }
}

pub fn events() -> SecurityEvents {
    let event = |ago, kind| SecurityEvent {
        at: NOW - ago,
        kind,
        device: "Firefox on Linux".into(),
        address: "192.0.2.0/24".into(),
    };
    let events =
        vec![event(60, EventKind::SessionEnded(EndReason::SignedOut)), event(3600, EventKind::SignedIn)];
    SecurityEvents { now: NOW, events }
}

pub fn profile() -> UserProfile {
    UserProfile { email: "ann@example.com".into(), is_verified: true, created_at: NOW - 86_400 }
}

pub fn export() -> AccountExport {
    let session = ExportedSession {
        session_id: SESSION.into(),
        user_agent: "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0".into(),
        address: "192.0.2.0/24".into(),
        created_at: NOW - 3600,
        refreshed_at: NOW - 60,
        expires_at: NOW + 1_206_000,
        revoked_at: None,
        revoke_reason: None,
    };
    let event = SecurityEvent {
        at: NOW - 7200,
        kind: EventKind::PasswordChanged,
        device: String::new(),
        address: String::new(),
    };
    AccountExport {
        exported_at: NOW,
        user_id: USER.into(),
        role: Role::User,
        profile: profile(),
        last_login_at: Some(NOW - 3600),
        sessions: vec![session],
        events: vec![event],
    }
}

/// The token of a mail.
pub fn mail_token() -> String {
    format!("{TOKEN}.kq3xk0o0r9cTq0m2cB1mYgVq3nq0mXQ1Kc9vUo5w2hQ")
}

pub fn users() -> UserList {
    let user = UserInfo {
        user_id: USER.into(),
        email: "ann@example.com".into(),
        role: Role::User,
        is_disabled: false,
        sessions: 1,
        last_login_at: Some(NOW - 3600),
    };
    UserList { users: vec![user], has_more: false }
}

pub fn cluster() -> ClusterView {
    let revocation =
        RecentRevocation { number: 1, at: NOW - 5, instances: 1, acknowledged: 1, elapsed_us: 912 };
    let instance = InstanceView {
        name: "a".into(),
        kind: MemberKind::Instance,
        is_this: true,
        is_leased: true,
        renewed_ms: 120,
        positions: vec!["1024".into()],
        sessions: 1,
        revocations: vec![revocation],
    };
    ClusterView { is_shared: true, now: NOW, instances: vec![instance] }
}

/// The example of RFC 8037, A.2.
pub fn public_key() -> PublicJwk {
    PublicJwk {
        kty: "OKP",
        crv: "Ed25519",
        x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo".into(),
        y: None,
        kid: "kPrK_qmxVWaYVA9w".into(),
        alg: SigningAlgorithm::EdDsa,
        usage: "sig",
    }
}

pub fn introspection() -> Introspection {
    let Account { sub, email, sid, jti, exp, role } = me();
    let (active, token_type) = (true, "Bearer".into());
    let (iss, aud) = ("hallpass".into(), "hallpass".into());
    let live =
        LiveToken { active, token_type, username: email, role, iss, aud, sub, sid, jti, iat: NOW, exp };
    Introspection::Live(live)
}

pub fn clients() -> ClientList {
    let client_id = format!("hpc_{TOKEN}");
    ClientList {
        now: NOW,
        clients: vec![ClientInfo {
            client_id,
            name: "notes API".into(),
            created_at: NOW - 86_400,
            may_revoke_users: false,
        }],
    }
}
