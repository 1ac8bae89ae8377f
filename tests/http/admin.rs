//! The calls for administrators: their effects, and that nobody else may make them.

use hallpass::api::types::EndReason;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::support::*;

const ANN: &str = "ann@example.com";
const ROOT: &str = "root@example.com";

/// A server with an administrator who is signed in.
struct Office {
    home: Home,
    server: Server,
    root: Pair,
}

impl Office {
    async fn open() -> Self {
        let home = Home::new();
        home.add_administrator(ROOT);
        let server = home.start().await;
        let root = server.login(ROOT).await;
        Self { home, server, root }
    }

    fn call(&self, name: &str, body: Value) -> RequestBuilder {
        self.server.call(&format!("/api/admin/{name}"), &self.root.access, body)
    }

    async fn done(&self, name: &str, body: Value) {
        let (status, answer) = answer(self.call(name, body)).await;
        assert_eq!(status, 200, "{name}: {answer}");
    }

    /// The users that a search finds, and whether there are more.
    async fn users(&self, search: &str, after: &str) -> (Vec<Value>, bool) {
        let (status, answer) = answer(self.call("users", json!({ "search": search, "after": after }))).await;
        assert_eq!(status, 200, "{answer}");
        (answer["users"].as_array().unwrap().clone(), answer["has_more"].as_bool().unwrap())
    }

    async fn user(&self, email: &str) -> Value {
        let (users, _) = self.users(email, "").await;
        users.into_iter().find(|user| user["email"] == email).unwrap()
    }

    async fn id(&self, email: &str) -> Value {
        self.user(email).await["user_id"].clone()
    }

    async fn assert_ended(&self, pair: &Pair, reason: EndReason) {
        assert_invalid_token(&self.server.me(&pair.access).send().await.unwrap(), reason.as_str());
        let (refused, why) = answer(self.server.refresh(&pair.refresh)).await;
        assert_eq!((refused.as_u16(), why["message"].as_str()), (401, Some(reason.words())));
    }
}

fn admin_calls() -> Vec<&'static str> {
    let calls: Vec<_> = server_fn::axum::server_fn_paths()
        .map(|(path, _)| path)
        .filter(|path| path.starts_with("/api/admin/"))
        .collect();
    assert_eq!(calls.len(), 9, "{calls:?}");
    calls
}

#[tokio::test]
async fn non_admins_get_403_everywhere() {
    let office = Office::open().await;
    let (ann, bob) = (office.server.register(ANN).await, office.server.register("bob@example.com").await);
    let root = office.id(ROOT).await;
    for path in admin_calls() {
        for body in [
            json!({}),
            json!({ "user_id": root, "session_id": office.root.session, "role": "user" }),
            json!({ "user_id": office.id(ANN).await, "session_id": bob.session, "role": "admin" }),
        ] {
            let refused = office.server.call(path, &ann.access, body).send().await.unwrap();
            assert_eq!(refused.status(), 403, "{path}");
            assert_eq!(refused.headers()["www-authenticate"], "Bearer error=\"insufficient_scope\"");
            assert_eq!(refused.json::<Value>().await.unwrap()["error"], "insufficient_scope");
        }
    }
    for pair in [&ann, &bob, &office.root] {
        assert_eq!(status(office.server.me(&pair.access)).await, 200, "nothing has ended");
    }
    assert_eq!(office.user(ANN).await["role"], "user");
}

#[tokio::test]
async fn user_search_matches_substrings_literally() {
    let office = Office::open().await;
    for email in
        ["a_b@example.com", "acb@example.com", "50%@example.com", "500@example.com", "renée@exämple.com"]
    {
        office.server.register(email).await;
    }
    for (search, found) in [
        ("a_b", &["a_b@example.com"][..]),
        ("_", &["a_b@example.com"]),
        ("%", &["50%@example.com"]),
        ("50%@", &["50%@example.com"]),
        ("50", &["50%@example.com", "500@example.com"]),
        (" A_B@Example ", &["a_b@example.com"]),
        ("RENÉE@EXÄMPLE", &["renée@exämple.com"]),
        ("rene\u{301}e", &["renée@exämple.com"]),
        ("@XN--EXMPLE-CUA.com", &["renée@exämple.com"]),
        ("\\", &[]),
        ("' or 1=1 --", &[]),
        ("nobody", &[]),
    ] {
        let (users, has_more) = office.users(search, "").await;
        let emails: Vec<_> = users.iter().map(|user| user["email"].as_str().unwrap()).collect();
        assert_eq!((emails.as_slice(), has_more), (found, false), "{search}");
    }
    assert_eq!(office.users("", "").await.0.len(), 6);
}

#[tokio::test]
async fn administrators_see_the_role_and_the_live_sessions_of_a_user() {
    let office = Office::open().await;
    office.server.register(ANN).await;
    let user = office.user(ANN).await;
    assert_eq!((&user["role"], &user["is_disabled"]), (&json!("user"), &json!(false)));
    assert_eq!((&user["sessions"], &user["last_login_at"]), (&json!(1), &Value::Null));
    let ended = office.server.login(ANN).await;
    assert_eq!(status(office.server.logout(&ended.access)).await, 200);
    let live = office.server.login(ANN).await;
    let user = office.user(ANN).await;
    assert_eq!(user["sessions"], 2);
    assert!(user["last_login_at"].as_i64().unwrap() > 1_700_000_000);
    let text = user.to_string();
    assert!(!text.contains("argon2") && !text.contains("password"), "{text}");
    let (status, answer) = answer(office.call("sessions", json!({ "user_id": user["user_id"] }))).await;
    assert_eq!(status, 200);
    let sessions = answer["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 2);
    assert!(sessions.iter().any(|session| session["session_id"] == live.session.as_str()));
    assert!(sessions.iter().all(|session| session["is_current"] == false));
}

#[tokio::test]
async fn user_list_has_pages_of_fifty_without_gaps() {
    let office = Office::open().await;
    for number in 0..100 {
        office.server.register(&format!("user{number:03}@example.com")).await;
    }
    let mut found: Vec<String> = Vec::new();
    let mut pages = Vec::new();
    loop {
        let after = found.last().cloned().unwrap_or_default();
        let (users, has_more) = office.users("user", &after).await;
        pages.push(users.len());
        found.extend(users.iter().map(|user| user["email"].as_str().unwrap().to_owned()));
        if !has_more {
            break;
        }
    }
    assert_eq!(pages, [50, 50]);
    let all: Vec<_> = (0..100).map(|number| format!("user{number:03}@example.com")).collect();
    assert_eq!(found, all);
}

#[tokio::test]
async fn disabled_user_is_signed_out_at_once_and_cannot_log_in_until_enabled() {
    let office = Office::open().await;
    let (one, two) = (office.server.register(ANN).await, office.server.login(ANN).await);
    let ann = json!({ "user_id": office.id(ANN).await });
    let (status_, answer_) = answer(office.call("disable_user", ann.clone())).await;
    assert_eq!((status_.as_u16(), &answer_["instances"]), (200, &json!(1)));
    for pair in [&one, &two] {
        office.assert_ended(pair, EndReason::Disabled).await;
    }
    assert_eq!(office.user(ANN).await["is_disabled"], true);
    // The response is the same as for a wrong password.
    let right = answer(office.server.try_login(ANN, PASSWORD)).await;
    assert_eq!(right.0, 401);
    assert_eq!(right, answer(office.server.try_login(ANN, "wrong password")).await);
    office.done("disable_user", ann.clone()).await;

    office.done("enable_user", ann.clone()).await;
    assert_eq!(office.user(ANN).await["is_disabled"], false);
    let back = office.server.login(ANN).await;
    assert_eq!(status(office.server.me(&back.access)).await, 200);
    office.assert_ended(&one, EndReason::Disabled).await;
    let events = office.server.events(&back.access).await;
    for kind in [json!("disabled"), json!("enabled"), json!({ "session_ended": "disabled" })] {
        assert!(events.contains(&kind), "{kind} in {events:?}");
    }
}

#[tokio::test]
async fn role_change_ends_all_sessions_and_new_tokens_carry_the_role() {
    let office = Office::open().await;
    let before = office.server.register(ANN).await;
    assert!(parts(&before.access).1.get("role").is_none_or(|role| role == "user"));
    let ann = office.id(ANN).await;
    office.done("set_role", json!({ "user_id": ann, "role": "admin" })).await;
    office.assert_ended(&before, EndReason::RoleChanged).await;
    let admin = office.server.login(ANN).await;
    assert_eq!(parts(&admin.access).1["role"], "admin");
    let (_, next) = answer(office.server.refresh(&admin.refresh)).await;
    let admin = Pair::of(&next);
    let (_, me) = answer(office.server.me(&admin.access)).await;
    assert_eq!(me["role"], "admin");
    let users = || office.server.call("/api/admin/users", &admin.access, json!({}));
    assert_eq!(status(users()).await, 200);

    office.done("set_role", json!({ "user_id": ann, "role": "user" })).await;
    assert_invalid_token(&users().send().await.unwrap(), "demoted");
    office.assert_ended(&admin, EndReason::RoleChanged).await;
    let after = office.server.login(ANN).await;
    assert_eq!(status(office.server.call("/api/admin/users", &after.access, json!({}))).await, 403);
    for (body, code) in [
        (json!({ "user_id": ann }), 422),
        (json!({ "user_id": ann, "role": null }), 422),
        (json!({ "user_id": ann, "role": "root" }), 400),
        (json!({ "user_id": ann, "role": "" }), 400),
    ] {
        assert_eq!(status(office.call("set_role", body)).await, code);
    }
    assert_eq!(status(office.server.me(&after.access)).await, 200);
}

#[tokio::test]
async fn administrators_end_one_session_those_of_a_user_or_all() {
    let office = Office::open().await;
    let server = &office.server;
    let anns = [server.register(ANN).await, server.login(ANN).await, server.login(ANN).await];
    let bob = server.register("bob@example.com").await;
    office.done("revoke_session", json!({ "session_id": anns[0].session })).await;
    office.assert_ended(&anns[0], EndReason::EndedByAdmin).await;
    for pair in [&anns[1], &anns[2], &bob] {
        assert_eq!(status(server.me(&pair.access)).await, 200);
    }
    office.done("revoke_session", json!({ "session_id": anns[0].session })).await;
    office.done("revoke_sessions", json!({ "user_id": office.id(ANN).await })).await;
    for pair in &anns {
        office.assert_ended(pair, EndReason::EndedByAdmin).await;
    }
    assert_eq!(status(server.me(&bob.access)).await, 200);
    office.done("revoke_all_sessions", json!({})).await;
    for pair in [&bob, &office.root] {
        office.assert_ended(pair, EndReason::EndedByAdmin).await;
    }
    server.login(ANN).await;
}

#[tokio::test]
async fn administrators_cannot_lock_themselves_out() {
    let office = Office::open().await;
    let root = office.id(ROOT).await;
    for name in ["disable_user", "enable_user", "set_role"] {
        let (status, answer) = answer(office.call(name, json!({ "user_id": root, "role": "user" }))).await;
        assert_eq!(status, 422, "{name}");
        assert!(answer["fields"]["user_id"].is_string(), "{answer}");
    }
    assert_eq!(status(office.server.me(&office.root.access)).await, 200);
    office.done("revoke_session", json!({ "session_id": office.root.session })).await;
    office.assert_ended(&office.root, EndReason::EndedByAdmin).await;
}

#[tokio::test]
async fn unknown_ids_are_answered_404() {
    let office = Office::open().await;
    for id in ["AAAAAAAAAAAAAAAAAAAAAA", "", "x", "%", &"x".repeat(5000)] {
        for name in
            ["sessions", "disable_user", "enable_user", "set_role", "revoke_session", "revoke_sessions"]
        {
            let body = json!({ "user_id": id, "session_id": id, "role": "user" });
            let (status, answer) = answer(office.call(name, body)).await;
            assert_eq!((status.as_u16(), &answer["error"]), (404, &json!("not_found")), "{name} {id}");
        }
    }
}

/// Only sessions that began after the change may be live.
#[tokio::test]
async fn no_session_survives_a_concurrent_disable_or_role_change() {
    let office = Office::open().await;
    let server = &office.server;
    server.register(ANN).await;
    let ann = office.id(ANN).await;
    for round in 0..60 {
        let role = ["admin", "user"][round / 2 % 2];
        let (name, body) = match round % 2 {
            0 => ("disable_user", json!({ "user_id": ann })),
            _ => ("set_role", json!({ "user_id": ann, "role": role })),
        };
        let old = server.login(ANN).await;
        let ((began, new), (refreshed, next), (changed, _)) = tokio::join!(
            answer(server.try_login(ANN, PASSWORD)),
            answer(server.refresh(&old.refresh)),
            answer(office.call(name, body))
        );
        assert_eq!(changed, 200, "round {round}");
        if refreshed == 200 {
            assert_eq!(status(server.me(&Pair::of(&next).access)).await, 401, "round {round}");
        }
        if began == 200 {
            let alive = status(server.me(&Pair::of(&new).access)).await;
            let says = parts(&Pair::of(&new).access).1["role"].as_str().unwrap_or("user").to_owned();
            // The login may have come after the change of the role; then the token carries the new role.
            assert!(
                alive == StatusCode::UNAUTHORIZED || (name == "set_role" && says == role),
                "round {round}: {name} {says}"
            );
        }
        office.done("enable_user", json!({ "user_id": ann })).await;
    }
}

#[tokio::test]
async fn command_line_manages_users_and_sessions() {
    let Office { home, server, root } = Office::open().await;
    let anns = [server.register(ANN).await, server.login(ANN).await];
    let bob = server.register("bob@example.com").await;
    let tell = |arguments: &[&str]| {
        let (output, text) = run(home.command().args(arguments));
        (output.status.success(), text)
    };
    let done = |arguments: &[&str]| {
        let (done, text) = tell(arguments);
        assert!(done, "{arguments:?}: {text}");
        text
    };
    // While the server runs, the command line may read, but not change anything that the server caches.
    assert!(done(&["user", "list"]).contains("root@example.com  admin"));
    let listed = done(&["sessions", "list", "--user", ANN]);
    assert!(anns.iter().all(|pair| listed.contains(&pair.session)), "{listed}");
    assert_eq!(listed.lines().count(), 2, "{listed}");
    for arguments in [
        &["user", "role", ANN, "admin"][..],
        &["user", "disable", ANN],
        &["sessions", "revoke", "--all"],
        &["sessions", "revoke", "--session", &bob.session],
    ] {
        assert!(!tell(arguments).0, "{arguments:?}");
    }
    for pair in anns.iter().chain([&bob, &root]) {
        assert_eq!(status(server.me(&pair.access)).await, 200);
    }
    server.stop().await;

    for wrong in [
        &["user", "role", ANN, "boss"][..],
        &["user", "role", "nobody@example.com", "admin"],
        &["user", "enable", "nobody@example.com"],
        &["sessions", "list", "--user", "nobody@example.com"],
        &["sessions", "revoke"],
        &["sessions", "revoke", "--all", "--user", ANN],
        &["sessions", "revoke", "--session", "x"],
        &["sessions", "revoke", "--session", "AAAAAAAAAAAAAAAAAAAAAA"],
        &["sessions", "revoke", "--user", "nobody@example.com"],
    ] {
        let (is_done, text) = tell(wrong);
        assert!(!is_done && !text.contains("panicked"), "{wrong:?}: {text}");
    }
    // An id may begin with a hyphen, as an option does.
    let (_, text) = tell(&["sessions", "revoke", "--session", "-AAAAAAAAAAAAAAAAAAAAA"]);
    assert!(text.contains("there is no session -AAAAAAAAAAAAAAAAAAAAA"), "{text}");
    done(&["sessions", "revoke", "--session", &anns[0].session]);
    done(&["user", "role", "bob@example.com", "admin"]);
    let server = home.start().await;
    let statuses = async |server: &Server| {
        let mut statuses = Vec::new();
        for pair in anns.iter().chain([&bob, &root]) {
            statuses.push(status(server.me(&pair.access)).await.as_u16());
        }
        statuses
    };
    assert_eq!(statuses(&server).await, [401, 200, 401, 200]);
    let bob = server.login("bob@example.com").await;
    assert_eq!(parts(&bob.access).1["role"], "admin");
    server.stop().await;

    done(&["user", "disable", ANN]);
    let server = home.start().await;
    assert_eq!(status(server.me(&anns[1].access)).await, 401);
    assert_eq!(status(server.try_login(ANN, PASSWORD)).await, 401);
    done(&["user", "enable", ANN]);
    let ann = server.login(ANN).await;
    server.stop().await;

    done(&["sessions", "revoke", "--user", ANN]);
    let server = home.start().await;
    assert_eq!(status(server.me(&ann.access)).await, 401);
    assert_eq!(status(server.me(&bob.access)).await, 200);
    server.stop().await;

    done(&["sessions", "revoke", "--all"]);
    let server = home.start().await;
    for pair in [&bob, &root] {
        assert_eq!(status(server.me(&pair.access)).await, 401);
    }
    let (_, why) = answer(server.refresh(&root.refresh)).await;
    assert_eq!(why["message"], EndReason::EndedByAdmin.words());
}

#[tokio::test]
async fn command_line_sets_a_password() {
    const NEW: &str = "staple battery horse";
    let Office { home, server, .. } = Office::open().await;
    let ann = server.register(ANN).await;
    let set = |password: &str| run_with_input(home.command().args(["user", "set-password", ANN]), password);
    assert!(!set(NEW).0, "beside the server");
    server.stop().await;
    for weak in ["", "short", "password1", ANN] {
        let (is_done, text) = set(weak);
        assert!(!is_done && !text.contains("panicked"), "{weak}: {text}");
    }
    let (is_done, text) = set(NEW);
    assert!(is_done && !text.contains(NEW), "{text}");
    let server = home.start().await;
    assert_eq!(status(server.me(&ann.access)).await, 401);
    let (_, why) = answer(server.refresh(&ann.refresh)).await;
    assert_eq!(why["message"], EndReason::PasswordSet.words());
    assert_eq!(status(server.try_login(ANN, PASSWORD)).await, 401);
    let (status, back) = answer(server.try_login(ANN, NEW)).await;
    assert_eq!(status, 200);
    let events = server.events(&Pair::of(&back).access).await;
    assert!(events.contains(&json!("password_set")), "{events:?}");
}

#[tokio::test]
async fn page_for_administrators_is_403_for_other_users() {
    let office = Office::open().await;
    let server = &office.server;
    server.register(ANN).await;
    for (email, expected) in [(ROOT, 200), (ANN, 403)] {
        let browser = browser();
        let form = [("email", email), ("password", PASSWORD)];
        assert_eq!(status(browser.post(format!("{}/api/auth/login", server.url)).form(&form)).await, 200);
        for (path, expected) in [("/admin", expected), ("/account", 200)] {
            assert_eq!(
                status(browser.get(format!("{}{path}", server.url))).await,
                expected,
                "{email} {path}"
            );
        }
    }
}
