//! Error messages at startup, failures of the environment while the server runs, and the command line.

use std::{fs, net::TcpListener, process::Command};

use crate::support::*;
use serde_json::json;

fn refuses_to_start(command: &mut Command, words: &[&str]) {
    let (output, text) = run(command);
    assert!(!output.status.success(), "it started: {text}");
    assert!(words.iter().all(|words| text.contains(words)), "{words:?} in {text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn invalid_settings_are_named() {
    let home = Home::new();
    refuses_to_start(
        home.command().env("HALLPASS_ACCESS_TTL", "301"),
        &["HALLPASS_ACCESS_TTL is 301", "1 to 300 seconds"],
    );
    refuses_to_start(home.command().env("HALLPASS_ACCESS_TTL", "soon"), &["access_ttl_seconds"]);
    refuses_to_start(
        home.command().env("DATABASE_URL", "mysql://localhost/x"),
        &["DATABASE_URL has to start with sqlite://"],
    );
    refuses_to_start(home.command().env("HALLPASS_ARGON2_MEMORY", "1"), &["[password]"]);
    refuses_to_start(
        home.command().env("HALLPASS_ACCES_TTL", "60"),
        &["there is no setting HALLPASS_ACCES_TTL"],
    );
    refuses_to_start(home.command().env("LEPTOS_SITE_ADDR", "everywhere"), &["[package.metadata.leptos]"]);
    let secret = "c2hvcnQ";
    refuses_to_start(
        home.command().env("HALLPASS_SIGNING_KEY", secret),
        &["HALLPASS_SIGNING_KEY", "at least 32"],
    );
    let (_, text) = run(home.command().env("HALLPASS_SIGNING_KEY", "not!base64/SECRET"));
    assert!(text.contains("HALLPASS_SIGNING_KEY is not base64url") && !text.contains("SECRET"), "{text}");
    let settings = home.path().join("Leptos.toml");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, format!("{text}\n[redis]\ntypo = 1\n")).unwrap();
    refuses_to_start(&mut home.command(), &["typo"]);
    fs::remove_file(&settings).unwrap();
    refuses_to_start(&mut home.command(), &["there is no settings file", "--config"]);
}

#[test]
fn settings_are_checked_without_a_start() {
    let home = Home::new();
    let check = || {
        let mut command = home.command();
        command.args(["config", "check"]);
        command
    };
    let (output, text) = run(&mut check());
    assert!(output.status.success() && text.contains("the settings can be used"), "{text}");
    for (name, value, complaint) in [
        ("HALLPASS_ACCESS_TTL", "301", "HALLPASS_ACCESS_TTL is 301"),
        ("HALLPASS_SIGNING_KEY", "c2hvcnQ", "at least 32"),
        ("HALLPASS_ARGON2_MEMORY", "1", "[password]"),
        ("HALLPASS_TRIES_PER_DEVICE", "5", "is now called HALLPASS_LOGIN_ATTEMPTS_PER_DEVICE"),
    ] {
        refuses_to_start(check().env(name, value), &[complaint]);
    }
    let shared = |redis| {
        let mut command = check();
        command.envs([("DATABASE_URL", "postgres://localhost/x"), ("REDIS_URL", redis)]);
        command
    };
    refuses_to_start(&mut shared("http://localhost"), &["REDIS_URL cannot be used"]);
    let ca = ("HALLPASS_REDIS_CA", "missing.pem");
    refuses_to_start(shared("rediss://localhost").env(ca.0, ca.1), &["missing.pem cannot be read"]);
    // It connects to neither.
    let (output, text) = run(&mut shared("redis://localhost:1"));
    assert!(output.status.success(), "{text}");
    assert!(!home.database().exists(), "a check writes nothing");
}

#[test]
fn check_says_what_is_missing_in_production() {
    let home = Home::new();
    let (path, signing_key) = (home.path().display().to_string(), "HALLPASS_SIGNING_KEY");
    let keys = format!("{path}/keys");
    let file = home.path().join("Leptos.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        text.lines().filter(|line| !line.starts_with("signing_key")).collect::<Vec<_>>().join("\n"),
    )
    .unwrap();
    let complete = || {
        let mut command = home.command();
        command
            .args(["config", "check"])
            .env("HALLPASS_KEYS", &keys)
            .env("LEPTOS_SITE_ADDR", "127.0.0.1:3000");
        command.env("HALLPASS_HTTPS", "true").env("HALLPASS_TRUSTED_PROXIES", "127.0.0.1");
        command.env("HALLPASS_PUBLIC_URL", "https://id.example.com");
        command.env("HALLPASS_ADMIN_SECOND_FACTOR", "true");
        command.env("HALLPASS_SMTP_URL", "smtps://mail.example.com");
        command.env("HALLPASS_MAIL_FROM", "Acme <no-reply@example.com>");
        command
    };
    let (made, text) = run(home.command().args(["keys", "new"]).env("HALLPASS_KEYS", &keys));
    assert!(made.status.success(), "{text}");
    let (output, text) = run(complete().arg("--production"));
    assert!(output.status.success() && text == "the settings can be used\n", "{text}");
    for (name, value, finding) in [
        ("HALLPASS_KEYS", "elsewhere", "HALLPASS_KEYS: there is no signing key in elsewhere"),
        ("HALLPASS_HTTPS", "false", "HALLPASS_HTTPS: it is false"),
        ("HALLPASS_ADMIN_SECOND_FACTOR", "false", "HALLPASS_ADMIN_SECOND_FACTOR: it is false"),
        ("HALLPASS_TRUSTED_PROXIES", "", "HALLPASS_TRUSTED_PROXIES: it is empty"),
        ("HALLPASS_SMTP_URL", "", "HALLPASS_SMTP_URL: it is not set"),
        ("HALLPASS_MAIL_FROM", "", "HALLPASS_MAIL_FROM: it is Hallpass <hallpass@localhost>"),
        ("LEPTOS_SITE_ADDR", "0.0.0.0:3000", "0.0.0.0:3000 is open to other machines"),
        ("DATABASE_URL", "sqlite://data/hallpass.db", "DATABASE_URL: data/hallpass.db is relative"),
        ("LEPTOS_SITE_ROOT", "elsewhere", "LEPTOS_SITE_ROOT: there is no folder elsewhere/pkg"),
    ] {
        let (output, text) = run(complete().env(name, value));
        let found: Vec<_> = text.lines().skip(1).collect();
        assert!(output.status.success() && found.len() == 1 && found[0].contains(finding), "{name}: {text}");
        let (output, text) = run(complete().env(name, value).arg("--production"));
        assert!(output.status.code() == Some(1) && text.contains(finding), "{name}: {text}");
        assert!(text.contains("not ready for production, findings: 1"), "{name}: {text}");
    }
    let (output, text) = run(complete().env("HALLPASS_PUBLIC_URL", ""));
    assert!(!output.status.success() && text.contains("HALLPASS_PUBLIC_URL is not"), "mails need it: {text}");
    let without_mail = [("HALLPASS_PUBLIC_URL", ""), ("HALLPASS_SMTP_URL", "")];
    let (output, text) = run(complete().envs(without_mail));
    let finding = "/.well-known/oauth-authorization-server names http://127.0.0.1:3000";
    assert!(output.status.success() && text.contains(finding), "{text}");
    let (output, text) = run(complete().env("HALLPASS_SMTP_URL", "smtp://mail.example.com"));
    assert!(!output.status.success() && text.contains("unencrypted"), "{text}");
    // A key that is set, and a database that instances share, are complete, too.
    let key = "MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY";
    let (output, text) =
        run(complete().env("HALLPASS_KEYS", "elsewhere").env(signing_key, key).arg("--production"));
    assert!(output.status.success(), "{text}");
    let shared = [
        ("DATABASE_URL", "postgres://localhost/x"),
        ("REDIS_URL", "redis://localhost:1"),
        ("LEPTOS_SITE_ADDR", "0.0.0.0:3000"),
    ];
    let (output, text) = run(complete().envs(shared).arg("--production"));
    assert!(output.status.success(), "{text}");
}

#[tokio::test]
async fn empty_and_kubernetes_variables_are_ignored() {
    let home = Home::new();
    let mut command = home.command();
    for name in
        ["REDIS_URL", "DATABASE_URL", "RUST_LOG", "HALLPASS_SIGNING_KEY", "HALLPASS_PREVIOUS_SIGNING_KEY"]
    {
        command.env(name, "");
    }
    for name in [
        "HALLPASS_REDIS_CA",
        "HALLPASS_INSTANCE",
        "HALLPASS_ACCESS_TTL",
        "HALLPASS_HTTPS",
        "LEPTOS_SITE_ADDR",
    ] {
        command.env(name, " ");
    }
    for (name, value) in [
        ("HALLPASS_SERVICE_HOST", "10.0.0.7"),
        ("HALLPASS_SERVICE_PORT", "80"),
        ("HALLPASS_SERVICE_PORT_HTTP", "80"),
        ("HALLPASS_PORT", "tcp://10.0.0.7:80"),
        ("HALLPASS_PORT_80_TCP", "tcp://10.0.0.7:80"),
        ("HALLPASS_PORT_80_TCP_ADDR", "10.0.0.7"),
    ] {
        command.env(name, value);
    }
    let server = Process::start(&mut command);
    let pair = server.register("ann@example.com").await;
    let me = server.me(&pair.access).send().await.unwrap();
    assert!(me.status() == 200 && !me.headers()["hallpass-instance"].is_empty());
    drop(server);
    for (name, value) in [("HALLPASS_PORT", "8080"), ("HALLPASS_SERVICE_HOTS", "10.0.0.7")] {
        refuses_to_start(home.command().env(name, value), &[&format!("there is no setting {name}")]);
    }
}

/// HMAC pads short keys with zeros, so a key of zeros equals an empty key.
#[test]
fn signing_key_of_zeros_is_refused() {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
    let home = Home::new();
    for bytes in [32, 64, 100] {
        for name in ["HALLPASS_SIGNING_KEY", "HALLPASS_PREVIOUS_SIGNING_KEY"] {
            let key = BASE64.encode(vec![0; bytes]);
            refuses_to_start(home.command().env(name, key), &[name, "all zeros", "openssl rand"]);
        }
    }
}

/// An older version can replace a newer one.
#[tokio::test]
async fn migration_of_a_later_version_does_not_prevent_startup() {
    use sqlx::{Connection, Executor, SqliteConnection};
    let home = Home::new();
    let server = home.spawn();
    let pair = server.register("ann@example.com").await;
    server.kill();
    let url = format!("sqlite://{}", home.database().display());
    let mut database = SqliteConnection::connect(&url).await.unwrap();
    let later = "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
                 values (9999, 'later', true, x'00', 0)";
    database.execute(later).await.unwrap();
    database.close().await.unwrap();
    let server = home.spawn();
    assert_eq!(status(server.me(&pair.access)).await, 200);
    let (output, text) = run(home.command().args(["user", "list"]));
    assert!(output.status.success() && text.contains("ann@example.com"), "{text}");
}

#[test]
fn missing_site_folder_is_named() {
    let home = Home::new();
    fs::remove_dir_all(home.path().join("site")).unwrap();
    refuses_to_start(&mut home.command(), &["there is no site folder", "make build"]);
    assert!(!home.database().exists(), "nothing was touched");
}

#[test]
fn port_in_use_is_named() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holder = TcpListener::bind(taken).unwrap();
    let address = holder.local_addr().unwrap().to_string();
    refuses_to_start(home.command().env("LEPTOS_SITE_ADDR", &address), &[&address, "LEPTOS_SITE_ADDR"]);
}

#[tokio::test]
async fn second_process_on_the_same_sqlite_database_is_refused() {
    let home = Home::new();
    let server = home.spawn();
    let pair = server.register("ann@example.com").await;
    let refused = &["another Hallpass is running on the database"];
    refuses_to_start(&mut home.command(), refused);
    // Also under another name of the same file.
    let other_name = home.path().join("other.db");
    std::os::unix::fs::symlink(home.database(), &other_name).unwrap();
    let url = |file: &str| format!("sqlite://{}/{file}", home.path().display());
    refuses_to_start(home.command().env("DATABASE_URL", url("other.db")), refused);
    refuses_to_start(home.command().env("DATABASE_URL", url("data/../data/hallpass.db")), refused);
    refuses_to_start(home.command().env("DATABASE_URL", url("data/hallpass%2Edb")), &["DATABASE_URL"]);
    assert_eq!(status(server.me(&pair.access)).await, 200);
    // The lock is released when its holder ends, in whatever way.
    server.kill();
    let server = home.spawn();
    assert_eq!(status(server.me(&pair.access)).await, 200);
}

#[test]
fn corrupt_database_is_named_and_not_modified() {
    let home = Home::new();
    fs::create_dir_all(home.path().join("data")).unwrap();
    let junk = vec![b'x'; 10_000];
    fs::write(home.database(), &junk).unwrap();
    refuses_to_start(&mut home.command(), &["hallpass.db", "not a database"]);
    assert_eq!(fs::read(home.database()).unwrap(), junk);
}

/// Runs in a user namespace without a mapping, because root may write to read-only files.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn read_only_database_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    home.start().await.stop().await;
    let read_only =
        |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for entry in fs::read_dir(home.path().join("data")).unwrap() {
        read_only(&entry.unwrap().path(), 0o444);
    }
    read_only(&home.path().join("data"), 0o555);
    let program =
        format!("exec {} --config {}/Leptos.toml", env!("CARGO_BIN_EXE_hallpass"), home.path().display());
    let mut command = Command::new("unshare");
    // Without a mapping the process has no privileges, whichever user runs the tests.
    command.args(["--user", "sh", "-c", &program]).current_dir(home.path());
    refuses_to_start(&mut command, &["hallpass.db", "cannot be"]);
    read_only(&home.path().join("data"), 0o755);
}

/// The database is on a file system of one megabyte that another file fills up. Existing data stays, failed
/// writes are answered 503, and writes succeed again when there is room.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn full_disk_loses_no_acknowledged_data() {
    let home = Home::new();
    let path = home.path().display();
    let program = env!("CARGO_BIN_EXE_hallpass");
    let script = format!(
        "mkdir {path}/data && mount -t tmpfs -o size=1m none {path}/data && exec {program} --config {path}/Leptos.toml"
    );
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]).current_dir(home.path());
    let server = Process::start(&mut command);
    // The path of the file system in the mount namespace of that process.
    let junk = format!("/proc/{}/root{path}/data/junk", server.id());
    let before = server.register("ann@example.com").await;

    let full = fs::write(&junk, vec![0; 2_000_000]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let mut acknowledged = Vec::new();
    let refused = loop {
        let (status, answer) = answer(server.try_login("ann@example.com", PASSWORD)).await;
        if status != 200 {
            assert_eq!((status.as_u16(), &answer["error"]), (503, &json!("temporarily_unavailable")));
            break status;
        }
        acknowledged.push(Pair::of(&answer));
    };
    assert_eq!(refused, 503);
    assert_eq!(status(server.me(&before.access)).await, 200);
    let logout = server.logout(&before.access).send().await.unwrap();
    match logout.status().as_u16() {
        503 => {
            assert_eq!(logout.headers()["retry-after"], "1");
            assert_eq!(status(server.me(&before.access)).await, 200, "half a log-out");
        }
        200 => assert_eq!(status(server.me(&before.access)).await, 401),
        other => panic!("{other}"),
    }

    fs::remove_file(&junk).unwrap();
    assert_eq!(status(server.logout(&before.access)).await, 200);
    assert_eq!(status(server.me(&before.access)).await, 401);
    for pair in acknowledged {
        assert_eq!(status(server.me(&pair.access)).await, 200);
        assert_eq!(status(server.refresh(&pair.refresh)).await, 200);
    }
}

#[test]
fn development_key_is_created_once_and_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::with("[token]\n");
    let server = home.spawn();
    // Logged after the first query, so SQLite's files exist.
    server.wait_for_log("there are no users yet");
    for file in ["hallpass.db", "hallpass.db-wal", "hallpass.db.lock"] {
        let mode = fs::metadata(home.path().join("data").join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    drop(server);
    let files = || -> Vec<_> {
        fs::read_dir(home.path().join("data/keys")).unwrap().map(|file| file.unwrap().path()).collect()
    };
    let [file] = &files()[..] else { panic!("{:?}", files()) };
    let made = fs::read(file).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    drop(home.spawn());
    assert_eq!((files(), fs::read(file).unwrap()), (vec![file.clone()], made));
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    refuses_to_start(&mut home.command(), &[name, "chmod 600"]);
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(file, "???").unwrap();
    refuses_to_start(&mut home.command(), &[name, "not a PEM file with a private key"]);
}

#[tokio::test]
async fn users_are_managed_on_the_command_line() {
    let home = Home::new();
    let user =
        |arguments: &[&str], input: &str| run_with_input(home.command().arg("user").args(arguments), input);

    let (done, text) = user(&["add", "Ann@example.com"], "correct horse battery\n");
    assert!(done && text.contains("added ann@example.com"), "{text}");
    for (arguments, input, complaint) in [
        (&["add", "ann@example.com"], "correct horse battery\n", "already"),
        (&["add", "bob@example.com"], "short\n", "at least 8 characters"),
        (&["add", "bob@example.com"], "", "at least 8 characters"),
        (&["add", "bob"], "correct horse battery\n", "e-mail address"),
        (&["disable", "bob@example.com"], "", "there is no user"),
        (&["set-password", "bob@example.com"], "correct horse battery\n", "there is no user"),
    ] {
        let (done, text) = user(arguments, input);
        assert!(!done && text.contains(complaint), "{arguments:?}: {text}");
    }

    let server = home.spawn();
    let pair = server.login("ann@example.com").await;
    let (done, text) = user(&["add", "bob@example.com"], "correct horse battery\n");
    assert!(done, "adding beside a server: {text}");
    server.login("bob@example.com").await;
    let (done, text) = user(&["disable", "ann@example.com"], "");
    assert!(!done && text.contains("another Hallpass is running"), "{text}");
    assert_eq!(status(server.me(&pair.access)).await, 200);
    server.kill();

    let (done, text) = user(&["set-password", "bob@example.com"], "another good one\n");
    assert!(done, "{text}");
    let (done, text) = user(&["disable", "ann@example.com"], "");
    assert!(done, "{text}");
    let (_, text) = user(&["list"], "");
    assert!(
        text.contains("disabled  ann@example.com") && text.contains("active    bob@example.com"),
        "{text}"
    );

    let server = home.spawn();
    assert_eq!(status(server.me(&pair.access)).await, 401, "a disabled user's session");
    assert_eq!(status(server.refresh(&pair.refresh)).await, 401);
    assert_eq!(status(server.try_login("ann@example.com", PASSWORD)).await, 401);
    assert_eq!(status(server.try_login("bob@example.com", PASSWORD)).await, 401);
    assert_eq!(status(server.try_login("bob@example.com", "another good one")).await, 200);
}

/// The soft limit of open files is 1024 on most systems, even if the hard limit is higher.
#[cfg(target_os = "linux")]
#[test]
fn server_raises_the_limit_of_open_files() {
    let home = Home::new();
    let server = home.spawn_limited("ulimit -Sn 128 && ulimit -Hn 512");
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
    let open_files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(open_files.split_whitespace().collect::<Vec<_>>()[3..5], ["512", "512"], "{open_files}");
}

/// Connections that cannot be accepted neither stop the server nor make it spin, and it accepts new ones as
/// soon as there is room.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn server_survives_more_connections_than_open_files_allowed() {
    let home = Home::new();
    let server = home.spawn_limited("ulimit -n 128");
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let connections: Vec<_> = (0..200).map(|_| std::net::TcpStream::connect(&address).unwrap()).collect();
    server.wait_for_log("accept error");
    // The processor time hardly grows: the server does not retry in a busy loop.
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", server.id())).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    // 100 ticks are one second.
    assert!(ticks() - before < 100, "it is busy");
    drop(connections);
    assert_eq!(status(server.get("/health/live")).await, 200);
    assert_eq!(status(server.get("/health/ready")).await, 200);
}
