//! Examples of responses.

use crate::{
    api::types::{
        AccessToken, Account, AccountExport, Assurance, ClientInfo, ClientList, ClusterView, EndReason,
        EventKind, ExportedSession, InstanceView, MemberKind, MethodList, PasskeyCeremony, PasskeyInfo,
        RecentRevocation, RecoveryCodes, RefreshToken, Revocation, Role, SecurityEvent, SecurityEvents,
        SessionInfo, SessionList, TokenResponse, TotpSecret, UserInfo, UserList, UserProfile,
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
        totp_added_at: Some(NOW - 86_400),
        recovery_codes: 10,
        passkeys: vec![passkey()],
        sessions: vec![session],
        events: vec![event],
    }
}

/// The token of a mail.
pub fn mail_token() -> String {
    format!("{TOKEN}.kq3xk0o0r9cTq0m2cB1mYgVq3nq0mXQ1Kc9vUo5w2hQ")
}

pub const PASSKEY: &str = "Jr2cV8xqT5u0oWm4nYk7Gg";

fn passkey() -> PasskeyInfo {
    PasskeyInfo {
        passkey_id: PASSKEY.into(),
        name: "Ann's laptop".into(),
        created_at: NOW - 86_400,
        last_used_at: Some(NOW - 3600),
        is_backed_up: true,
        signatures: 0,
    }
}

pub fn sign_in_methods() -> MethodList {
    MethodList {
        now: NOW,
        totp_added_at: Some(NOW - 86_400),
        recovery_codes: 10,
        passkeys: vec![passkey()],
        acr: Assurance::Aal2,
    }
}

/// The secret of RFC 6238, appendix B.
pub fn totp_secret() -> TotpSecret {
    let secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
    TotpSecret {
        secret: secret.into(),
        uri: format!("otpauth://totp/Hallpass:ann%40example.com?secret={secret}&issuer=Hallpass"),
        qr_svg: "<svg xmlns=\"http://www.w3.org/2000/svg\">…</svg>".into(),
    }
}

pub fn recovery_codes() -> RecoveryCodes {
    RecoveryCodes { codes: vec!["mzxw-6ytb-oi7g-43dp-nb2h-i2lt".into()], revocation: Some(revocation()) }
}

pub fn passkey_ceremony() -> PasskeyCeremony {
    PasskeyCeremony {
        ceremony: "eyJpZCI6….kq3xk0o0r9cTq0m2cB1mYgVq3nq0mXQ1Kc9vUo5w2hQ".into(),
        options: "{\"challenge\":\"…\",\"rpId\":\"id.example.com\",\"userVerification\":\"required\"}".into(),
    }
}

/// The answer of a passkey.
pub fn credential() -> String {
    "{\"id\":\"…\",\"type\":\"public-key\",\"response\":{}}".into()
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
    Introspection::Live(Box::new(LiveToken {
        active,
        token_type,
        username: email,
        role,
        iss,
        aud,
        sub,
        sid,
        jti,
        iat: NOW,
        exp,
        auth_time: Some(NOW - 3600),
        acr: Some(Assurance::Aal1),
        amr: vec!["pwd".into()],
    }))
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
