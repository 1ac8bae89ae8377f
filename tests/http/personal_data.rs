//! Export and deletion of an account.

use hallpass::api::types::EndReason;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::{mailbox::Mailbox, support::*};

const ANN: &str = "ann@example.com";

fn delete(server: &Server, pair: &Pair, password: &str) -> RequestBuilder {
    server.call("/api/account/delete", &pair.access, json!({ "password": password }))
}

#[tokio::test]
async fn deletion_ends_every_session_and_removes_what_is_personal() {
    let home = Home::new();
    home.add_administrator("root@example.com");
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    let (ann, phone) = (server.register(ANN).await, server.login(ANN).await);
    let confirm = mailbox.wait_for(ANN, "Confirm").await.token();
    let confirm = server.post("/api/auth/verify_email").json(&json!({ "token": confirm }));
    assert_eq!(status(confirm).await, 200);
    server.post("/api/auth/forgot_password").json(&json!({ "email": ANN })).send().await.unwrap();
    let reset = mailbox.wait_for(ANN, "Reset").await.token();
    let (refused, why) = answer(delete(&server, &ann, "wrong password")).await;
    assert_eq!((refused.as_u16(), why["fields"]["password"].is_string()), (422, true));

    let (deleted, revocation) = answer(delete(&server, &ann, PASSWORD)).await;
    assert_eq!((deleted.as_u16(), &revocation["acknowledged"]), (200, &json!(1)), "{revocation}");
    for pair in [&ann, &phone] {
        assert_invalid_token(&server.me(&pair.access).send().await.unwrap(), "of the deleted account");
        let (refused, why) = answer(server.refresh(&pair.refresh)).await;
        assert_eq!((refused.as_u16(), why["message"].as_str().unwrap()), (401, EndReason::Deleted.words()));
    }
    assert_eq!(status(server.try_login(ANN, PASSWORD)).await, 401);
    let body = json!({ "token": reset, "password": "staple battery horse" });
    assert_eq!(status(server.post("/api/auth/reset_password").json(&body)).await, 401);
    mailbox.wait_for(ANN, "was deleted").await;
    for table in [
        "select json_array(email, password_hash, last_login_at, email_verified_at) from users where deleted_at is not null",
        "select json_array(user_agent, address) from sessions where revoke_reason = 'deleted'",
    ] {
        for row in rows(&home, table).await {
            assert!(!row.contains("example.com") && !row.contains("127.0") && !row.contains("m=64"), "{row}");
        }
    }
    assert_eq!(rows(&home, "select id from mail_tokens where email = 'ann@example.com'").await.len(), 0);
    let root = server.login("root@example.com").await;
    let (_, users) = answer(server.call("/api/admin/users", &root.access, json!({}))).await;
    let emails: Vec<_> = users["users"].as_array().unwrap().iter().map(|user| &user["email"]).collect();
    assert_eq!(emails, [&json!("root@example.com")]);

    // The address is free, for an account that has nothing of the former one.
    let again = server.register(ANN).await;
    assert_eq!(server.sessions(&again.access).await.len(), 1);
    assert_eq!(server.events(&again.access).await, [json!("signed_in")]);
    assert_invalid_token(&server.me(&ann.access).send().await.unwrap(), "still");
}

#[tokio::test]
async fn only_administrator_cannot_be_deleted() {
    let home = Home::new();
    home.add_administrator("root@example.com");
    let server = home.start().await;
    let (root, ann) = (server.login("root@example.com").await, server.register(ANN).await);
    let (refused, why) = answer(delete(&server, &root, PASSWORD)).await;
    assert_eq!((refused.as_u16(), &why["error"]), (409, &json!("conflict")), "{why}");
    assert_eq!(status(server.me(&root.access)).await, 200);
    let (_, me) = answer(server.me(&ann.access)).await;
    let promote = json!({ "user_id": me["sub"], "role": "admin" });
    assert_eq!(status(server.call("/api/admin/set_role", &root.access, promote)).await, 200);
    assert_eq!(status(delete(&server, &root, PASSWORD)).await, 200);
    let ann = server.login(ANN).await;
    assert_eq!(status(delete(&server, &ann, PASSWORD)).await, 409, "the last one");
}

/// Nor refresh, and an administrator who looks at them finds them or not.
#[tokio::test]
async fn user_cannot_log_in_while_they_are_deleted() {
    let home = Home::new();
    home.add_administrator("root@example.com");
    let server = home.start().await;
    let root = server.login("root@example.com").await;
    for round in 0..5 {
        let email = format!("user{round}@example.com");
        let (pair, other) = (server.register(&email).await, server.login(&email).await);
        let (_, me) = answer(server.me(&pair.access)).await;
        let logins = futures::future::join_all((0..8).map(|_| answer(server.try_login(&email, PASSWORD))));
        let look = server.call("/api/admin/sessions", &root.access, json!({ "user_id": me["sub"] }));
        let (deleted, logins, refreshed, looked) = tokio::join!(
            status(delete(&server, &pair, PASSWORD)),
            logins,
            answer(server.refresh(&other.refresh)),
            status(look)
        );
        assert_eq!(deleted, 200);
        assert!(matches!(looked.as_u16(), 200 | 404), "{looked}");
        if refreshed.0 == 200 {
            let next = Pair::of(&refreshed.1);
            assert_invalid_token(&server.me(&next.access).send().await.unwrap(), "refreshed before the end");
            assert_eq!(status(server.refresh(&next.refresh)).await, 401);
        }
        for (status_of_login, tokens) in logins {
            assert!(matches!(status_of_login.as_u16(), 200 | 401), "{tokens}");
            if status_of_login == 200 {
                let pair = Pair::of(&tokens);
                assert_invalid_token(&server.me(&pair.access).send().await.unwrap(), "begun before the end");
                assert_eq!(status(server.refresh(&pair.refresh)).await, 401);
            }
        }
    }
}

#[tokio::test]
async fn export_has_what_is_kept_and_no_secret() {
    let home = Home::new();
    let server = home.start().await;
    let (ann, phone) = (server.register(ANN).await, server.login(ANN).await);
    server.register("bob@example.com").await;
    assert_eq!(status(server.logout(&phone.access)).await, 200);
    let change = json!({ "current": PASSWORD, "new": "staple battery horse" });
    assert_eq!(status(server.call("/api/account/change_password", &ann.access, change)).await, 200);
    let (status_of_export, export) = answer(server.call("/api/account/export", &ann.access, json!({}))).await;
    assert_eq!(status_of_export, 200, "{export}");
    assert_eq!(export["profile"]["email"], ANN);
    let sessions = export["sessions"].as_array().unwrap();
    let ended = sessions.iter().find(|session| session["session_id"] == phone.session).unwrap();
    assert_eq!((sessions.len(), &ended["revoke_reason"]), (2, &json!("signed_out")), "{export}");
    assert_eq!(export["events"][0]["kind"], "password_changed");
    let text = export.to_string();
    for secret in ["argon2", "bob@", PASSWORD, &ann.access, &ann.refresh] {
        assert!(!text.contains(secret), "{secret}");
    }
    assert_eq!(status(server.post("/api/account/export").json(&json!({}))).await, 401);
}

/// An export of many sessions is one answer.
#[tokio::test]
async fn ten_thousand_sessions_are_exported() {
    let home = Home::new();
    let server = home.start().await;
    let ann = server.register(ANN).await;
    let (_, me) = answer(server.me(&ann.access)).await;
    let url = format!("sqlite://{}", home.database().display());
    let mut database = <sqlx::SqliteConnection as sqlx::Connection>::connect(&url).await.unwrap();
    sqlx::query(
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 10000) \
         insert into sessions (id, user_id, rotated_at, created_at, expires_at, user_agent, address) \
         select 'x' || i, $1, i, i, i, 'agent', '192.0.2.0/24' from n",
    )
    .bind(me["sub"].as_str().unwrap())
    .execute(&mut database)
    .await
    .unwrap();
    let (status, export): (_, Value) =
        answer(server.call("/api/account/export", &ann.access, json!({}))).await;
    assert_eq!((status.as_u16(), export["sessions"].as_array().unwrap().len()), (200, 10_001));
}
