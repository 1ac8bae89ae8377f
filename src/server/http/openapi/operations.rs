//! The list of calls, with an example of each. A new server function gets one entry in [`all`] and a route
//! in `calls.rs`; everything else is generated from its types and doc comments.

use serde_json::json;

use crate::{
    api::{
        CLUSTER_EVENTS, SESSION_EVENTS, account, admin, auth,
        error::ApiError,
        factors, token,
        types::{
            Accepted, Assurance, Confirmation, Confirmed, Delivery, EndReason, Role, StatelessCheck, StepUp,
        },
    },
    server::{
        auth::password::LENGTH,
        http::{
            oauth::{self, UserToRevoke},
            openapi::{
                examples::*,
                operation::{Call, Who},
            },
            well_known::{self, KeySet, Metadata},
        },
    },
};

/// The calls by topic: a name, a heading, and the calls, each with an example that works.
pub fn all() -> Vec<(&'static str, &'static str, Vec<Call>)> {
    let email = || "ann@example.com".to_owned();
    let password = || "correct horse battery".to_owned();
    let session_id = || SESSION.to_owned();
    let user_id = || USER.to_owned();
    let refresh_token = Some(refresh_token());
    let delivery = Delivery::Body;
    let often = || ApiError::TooManyRequests(30);
    let sign_in_again = || ApiError::ReauthenticationRequired(StepUp { acr: Assurance::Aal1, max_age: 300 });
    let needs_two_factors =
        || ApiError::ReauthenticationRequired(StepUp { acr: Assurance::Aal2, max_age: 900 });
    let not_yours = |field| ApiError::invalid_field(field, "This is not your password.");
    let yourself = || {
        ApiError::invalid_field(
            "user_id",
            "You cannot do this to your own account. Ask another administrator.",
        )
    };
    let has_totp = || ApiError::Conflict("There is an authenticator app already. Remove it first.".into());
    let address = ("email".to_owned(), "Enter an e-mail address, like ann@example.com.".to_owned());
    let short = ("password".to_owned(), "Use at least 8 characters.".to_owned());

    let of_tokens = vec![
        Call::of(
            Who::Anyone,
            auth::Register { email: email(), password: password(), delivery },
            tokens(),
            vec![
                ApiError::EmailTaken,
                ApiError::VerificationRequired,
                ApiError::InvalidFields([address.clone(), short.clone()].into()),
                often(),
            ],
        )
        .with_address("email")
        .with_length("password", LENGTH),
        Call::of(
            Who::Anyone,
            auth::Login { email: email(), password: password(), code: "287082".into(), delivery },
            tokens(),
            vec![
                ApiError::wrong_credentials(),
                ApiError::SecondFactorRequired,
                ApiError::VerificationRequired,
                ApiError::InvalidFields([address.clone()].into()),
                often(),
            ],
        )
        .with_address("email")
        .with_length("password", 1..=*LENGTH.end()),
        Call::of(Who::Anyone, auth::BeginPasskeyLogin {}, passkey_ceremony(), vec![]),
        Call::of(
            Who::Anyone,
            auth::LoginWithPasskey {
                ceremony: passkey_ceremony().ceremony,
                credential: credential(),
                delivery,
            },
            tokens(),
            vec![ApiError::wrong_passkey(), ApiError::VerificationRequired, often()],
        ),
        Call::of(
            Who::RefreshToken,
            auth::Refresh { refresh_token: refresh_token.clone() },
            tokens(),
            vec![ApiError::dead_refresh_token(), often()],
        ),
        Call::of(
            Who::AnyToken,
            auth::Logout { refresh_token },
            revocation(),
            vec![ApiError::MissingToken, ApiError::InvalidToken],
        ),
        Call::of(
            Who::Anyone,
            auth::ForgotPassword { email: email() },
            Accepted {},
            vec![ApiError::InvalidFields([address.clone()].into()), often()],
        )
        .with_address("email"),
        Call::of(
            Who::Anyone,
            auth::ResetPassword { token: mail_token(), password: password() },
            revocation(),
            vec![ApiError::dead_mail_token(), ApiError::InvalidFields([short].into())],
        )
        .with_length("password", LENGTH),
        Call::of(
            Who::Anyone,
            auth::VerifyEmail { token: mail_token(), password: password() },
            Confirmation { confirmed: Confirmed::Verified, revocation: None },
            vec![ApiError::dead_mail_token(), often()],
        ),
    ];
    let of_a_token = vec![Call::of(
        Who::Anyone,
        token::CheckStatelessly { access_token: tokens().access_token },
        StatelessCheck { is_valid: true, expires_in: 299 },
        vec![],
    )];
    let of_the_account = vec![
        Call::of(Who::Bearer, account::Me {}, me(), vec![]),
        Call::of(Who::Bearer, account::Sessions {}, sessions(true), vec![]),
        Call::of(Who::Bearer, account::Events {}, events(), vec![]),
        Call::of(
            Who::Bearer,
            account::RevokeSession { session_id: session_id() },
            revocation(),
            vec![ApiError::NotFound],
        ),
        Call::of(
            Who::Bearer,
            account::LogoutEverywhere { keep_current: true, password: password() },
            revocation(),
            vec![sign_in_again(), not_yours("password"), often()],
        ),
        Call::of(
            Who::Bearer,
            account::ChangePassword { current: password(), new: "staple battery horse".into() },
            revocation(),
            vec![sign_in_again(), not_yours("current"), often()],
        )
        .with_length("current", 1..=*LENGTH.end())
        .with_length("new", LENGTH),
        Call::of(Who::Bearer, account::Profile {}, profile(), vec![]),
        Call::of(Who::Bearer, account::SendVerification {}, Accepted {}, vec![often()]),
        Call::of(
            Who::Bearer,
            account::ChangeEmail { email: "ann@example.org".into(), password: password() },
            Accepted {},
            vec![sign_in_again(), ApiError::InvalidFields([address.clone()].into()), often()],
        )
        .with_address("email"),
        Call::of(
            Who::Bearer,
            account::Delete { password: password() },
            revocation(),
            vec![
                sign_in_again(),
                ApiError::Conflict(
                    "You are the only administrator. Make another user an administrator first.".into(),
                ),
                not_yours("password"),
                often(),
            ],
        ),
        Call::of(Who::Bearer, account::Export {}, export(), vec![often()]),
    ];
    let passkey_id = || PASSKEY.to_owned();
    let of_methods = vec![
        Call::of(Who::Bearer, factors::SignInMethods {}, sign_in_methods(), vec![]),
        Call::of(
            Who::Bearer,
            factors::BeginTotp { password: password() },
            totp_secret(),
            vec![sign_in_again(), has_totp(), not_yours("password"), often()],
        ),
        Call::of(
            Who::Bearer,
            factors::AddTotp { code: "287082".into(), password: password() },
            recovery_codes(),
            vec![sign_in_again(), has_totp(), not_yours("password"), often()],
        ),
        Call::of(
            Who::Bearer,
            factors::RemoveTotp { password: password() },
            revocation(),
            vec![sign_in_again(), ApiError::NotFound, not_yours("password"), often()],
        ),
        Call::of(
            Who::Bearer,
            factors::RenewRecoveryCodes { password: password() },
            recovery_codes(),
            vec![sign_in_again(), ApiError::NotFound, not_yours("password"), often()],
        ),
        Call::of(
            Who::Bearer,
            factors::BeginPasskey { password: password() },
            passkey_ceremony(),
            vec![
                sign_in_again(),
                ApiError::Conflict("20 passkeys are the most. Remove one first.".into()),
                not_yours("password"),
                often(),
            ],
        ),
        Call::of(
            Who::Bearer,
            factors::AddPasskey {
                ceremony: passkey_ceremony().ceremony,
                credential: credential(),
                name: "Ann's laptop".into(),
            },
            revocation(),
            vec![
                ApiError::Conflict("This passkey was added before.".into()),
                ApiError::invalid_field("name", "Enter a name of at most 64 characters."),
            ],
        )
        .with_length("name", 1..=64),
        Call::of(
            Who::Bearer,
            factors::RenamePasskey { passkey_id: passkey_id(), name: "Ann's old laptop".into() },
            Accepted {},
            vec![
                ApiError::NotFound,
                ApiError::invalid_field("name", "Enter a name of at most 64 characters."),
            ],
        )
        .with_length("name", 1..=64),
        Call::of(
            Who::Bearer,
            factors::RemovePasskey { passkey_id: passkey_id(), password: password() },
            revocation(),
            vec![sign_in_again(), ApiError::NotFound, not_yours("password"), often()],
        ),
        Call::of(
            Who::Bearer,
            factors::Reauthenticate { password: password(), code: "287082".into(), delivery },
            tokens(),
            vec![ApiError::SecondFactorRequired, not_yours("password"), often()],
        ),
        Call::of(
            Who::Bearer,
            factors::ReauthenticateWithPasskey {
                ceremony: passkey_ceremony().ceremony,
                credential: credential(),
                delivery,
            },
            tokens(),
            vec![
                ApiError::invalid_field(
                    "credential",
                    "This passkey was not accepted. Try again, or sign in in another way.",
                ),
                often(),
            ],
        ),
    ];
    let of_administrators = vec![
        Call::of(
            Who::Administrator,
            admin::Users { search: "example.com".into(), after: "amy@example.com".into() },
            users(),
            vec![],
        ),
        Call::of(
            Who::Administrator,
            admin::Sessions { user_id: user_id() },
            sessions(false),
            vec![ApiError::NotFound],
        ),
        Call::of(Who::Administrator, admin::Clients {}, clients(), vec![]),
        Call::of(
            Who::Administrator,
            admin::DisableUser { user_id: user_id() },
            revocation(),
            vec![needs_two_factors(), ApiError::NotFound, yourself()],
        ),
        Call::of(
            Who::Administrator,
            admin::EnableUser { user_id: user_id() },
            (),
            vec![needs_two_factors(), ApiError::NotFound, yourself()],
        ),
        Call::of(
            Who::Administrator,
            admin::SetRole { user_id: user_id(), role: Some(Role::Admin) },
            revocation(),
            vec![needs_two_factors(), ApiError::NotFound, yourself()],
        ),
        Call::of(
            Who::Administrator,
            admin::RevokeSession { session_id: session_id() },
            revocation(),
            vec![needs_two_factors(), ApiError::NotFound],
        ),
        Call::of(
            Who::Administrator,
            admin::RevokeSessions { user_id: user_id() },
            revocation(),
            vec![needs_two_factors(), ApiError::NotFound],
        ),
        Call::of(Who::Administrator, admin::RevokeAllSessions {}, revocation(), vec![needs_two_factors()]),
    ];
    let of_streams = vec![
        Call::stream(
            SESSION_EVENTS,
            "Sends the end of the session and its reason: an event `live` with the version of the site first, an event `ended` with the reason last.",
            &EndReason::SignedOut,
        ),
        Call::stream(
            CLUSTER_EVENTS,
            "Sends the state of all running instances twice a second, until the session ends.",
            &cluster(),
        ),
    ];
    let of_services = vec![
        Call::about_token(
            oauth::INTROSPECT,
            "Says whether an access token is live, and what it says (RFC 7662). `{\"active\":false}` is the answer whatever is \
             wrong with it. An answer holds for the moment in which it was given: do not keep it.",
            &introspection(),
        ),
        Call::about_token(
            oauth::REVOKE,
            "Ends the session of an access token or a refresh token, everywhere, as a logout does (RFC 7009). A token that was not \
             issued here is answered with 200 as well, with zeros.",
            &revocation(),
        ),
        Call::command::<UserToRevoke>(
            Who::ClientWhoMayRevokeUsers,
            oauth::REVOKE_USER,
            "Ends all sessions of a user, everywhere, on the authority of an identity provider or a security tool \
             (draft-parecki-oauth-global-token-revocation). After 204 no instance accepts any token of the user, access tokens \
             included; the user can log in again.",
            &json!({ "sub_id": { "format": "email", "email": "ann@example.com" } }),
        ),
        Call::document(
            well_known::METADATA,
            "Says where all this is (RFC 8414).",
            "application/json",
            &Metadata::of("hallpass", "https://id.example.com"),
        ),
        Call::document(
            well_known::KEYS,
            "Returns the public keys with which a service can verify access tokens (RFC 7517). Whether a token is still live only \
             Hallpass knows. The set is empty if tokens are signed with HS256.",
            "application/jwk-set+json",
            &KeySet { keys: vec![public_key()] },
        ),
    ];
    let of_operators = vec![
        Call::probe("/health/live", "Answers 200 while the process runs.", None, vec![]),
        Call::probe(
            "/health/ready",
            "Answers 200 if this instance can serve requests: it holds a lease, can write to the database, and its clock is right.",
            None,
            vec![ApiError::Unavailable],
        ),
        Call::probe(
            "/metrics",
            "Returns metrics for Prometheus, such as the age of the lease, the requests answered from memory, and the duration of revocations.",
            Some("hallpass_lease_held 1\n"),
            vec![],
        ),
    ];
    vec![
        ("auth", "Register, log in, refresh, log out, and the links in mails", of_tokens),
        ("account", "The account of the signed-in user", of_the_account),
        ("sign-in", "Passkeys, the authenticator app and recovery codes", of_methods),
        ("admin", "Users and their sessions, for administrators", of_administrators),
        ("token", "A check that ignores revocation, for comparison", of_a_token),
        ("events", "Server-sent events", of_streams),
        ("services", "For other services that verify tokens", of_services),
        ("operations", "Health and metrics", of_operators),
    ]
}
