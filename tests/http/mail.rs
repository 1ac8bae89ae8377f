//! The outbox: no mail is lost, and no request waits for the mail server. With a real one.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use reqwest::header::HOST;
use serde_json::json;
use tokio::time;

use crate::{
    mailbox::{MailServer, Mailbox},
    support::*,
};

const ANN: &str = "ann@example.com";
const CONFIRM: &str = "Confirm your e-mail";

/// A home whose server sends its mails to a mail server.
fn with_mail_server() -> (Home, MailServer) {
    let folder = tempfile::tempdir().unwrap().keep();
    let mails = MailServer::start(&folder, 0);
    (Home::with(&MailServer::settings(mails.port)), mails)
}

#[tokio::test]
async fn mail_is_sent_with_the_name_and_the_address_of_the_site() {
    let (home, mails) = with_mail_server();
    let server = home.start().await;
    server.register(ANN).await;
    let mail = mails.mailbox.wait_for(ANN, "Confirm your e-mail address for Acme").await;
    let link = format!("https://id.example.com/verify?token={}", mail.token());
    assert!(mail.text.contains(&link) && mail.html.contains(&link), "{mail:#?}");
    assert!(mail.id.ends_with("@example.com"), "{}", mail.id);
    // Even if the request names another host.
    let forgot = server.post("/api/auth/forgot_password").json(&json!({ "email": ANN }));
    assert_eq!(status(forgot.header(HOST, "evil.example")).await, 200);
    let mail = mails.mailbox.wait_for(ANN, "Reset").await;
    assert!(!mail.text.contains("evil") && mail.text.contains("https://id.example.com/reset?token="));
    // A mail is deleted when the mail server has accepted it.
    while !rows(&home, "select id from outbox").await.is_empty() {
        time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn mail_is_sent_when_the_mail_server_is_there_again() {
    let (home, mails) = with_mail_server();
    let (port, folder) = (mails.port, mails.mailbox.0.clone());
    drop(mails);
    let server = home.spawn();
    server.register(ANN).await;
    server.wait_for_log("was not sent, next attempt in 2 s");
    let mails = MailServer::start(&folder, port);
    mails.set_mode("defer");
    server.wait_for_log("answered 451");
    mails.set_mode("accept");
    mails.mailbox.wait_for(ANN, CONFIRM).await;
}

#[tokio::test]
async fn mail_that_is_refused_for_good_is_dropped() {
    let (home, mails) = with_mail_server();
    mails.set_mode("refuse");
    let server = home.spawn();
    server.register(ANN).await;
    let line = server.wait_for_log("is dropped");
    assert!(line.contains("answered 550") && !line.contains(ANN), "{line}");
    mails.set_mode("accept");
    server.register("bob@example.com").await;
    mails.mailbox.wait_for("bob@example.com", CONFIRM).await;
    assert_eq!(mails.mailbox.to(ANN, "").len(), 0);
    for line in ["hallpass_mails_total{result=\"dropped\"} 1", "hallpass_mails_total{result=\"sent\"} 1"] {
        while !server.get("/metrics").send().await.unwrap().text().await.unwrap().contains(line) {
            time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn slow_mail_server_delays_no_request() {
    let (home, mails) = with_mail_server();
    mails.set_mode("stall");
    let server = home.start().await;
    let ann = server.register(ANN).await;
    while !mails.mailbox.0.join("stalled").exists() {
        time::sleep(Duration::from_millis(10)).await;
    }
    // The mail server answers none of the attempts, so these would not be answered either.
    for _ in 0..3 {
        let forgot = server.post("/api/auth/forgot_password").json(&json!({ "email": ANN }));
        assert_eq!(status(forgot).await, 200);
    }
    assert_eq!(status(server.logout(&ann.access)).await, 200);
    server.stop().await;
}

/// The mail server has taken the mail, and the connection is lost before it could say so.
#[tokio::test]
async fn mail_whose_acceptance_is_lost_arrives_again_with_the_same_id() {
    let (home, mails) = with_mail_server();
    mails.set_mode("drop");
    let server = home.start().await;
    server.register(ANN).await;
    let first = mails.mailbox.wait_for(ANN, CONFIRM).await;
    mails.set_mode("accept");
    while !rows(&home, "select id from outbox").await.is_empty() {
        time::sleep(Duration::from_millis(20)).await;
    }
    let both = mails.mailbox.to(ANN, CONFIRM);
    assert!(both.len() >= 2 && both.iter().all(|mail| mail.id == first.id), "{both:#?}");
}

#[tokio::test]
async fn no_mail_is_lost_when_the_process_is_killed() {
    let (home, mails) = with_mail_server();
    let (port, folder) = (mails.port, mails.mailbox.0.clone());
    drop(mails);
    let server = home.spawn();
    let emails: Vec<_> = (0..20).map(|number| format!("user{number}@example.com")).collect();
    for email in &emails {
        server.register(email).await;
    }
    server.kill();
    assert_eq!(rows(&home, "select id from outbox").await.len(), 20);
    let mails = MailServer::start(&folder, port);
    let _server = home.start().await;
    for email in &emails {
        mails.mailbox.wait_for(email, CONFIRM).await;
    }
}

#[tokio::test]
async fn mails_are_private_files_without_a_mail_server() {
    let home = Home::new();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    server.register(ANN).await;
    mailbox.wait_for(ANN, CONFIRM).await;
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&mailbox.0), 0o700);
    for file in fs::read_dir(&mailbox.0).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
    assert_eq!(status(server.get("/dev/mail")).await, 404, "unless it is set");
}

#[tokio::test]
async fn page_of_mails_is_shown_on_this_machine_only() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::with(&format!("[mail]\ndir = \"{}\"\non_site = true\n", folder.path().display()));
    let (server, mailbox) = (home.start().await, Mailbox(folder.path().to_owned()));
    let empty = server.get("/dev/mail").send().await.unwrap().text().await.unwrap();
    assert!(empty.contains("No mail yet"), "{empty}");
    server.register(ANN).await;
    let token = mailbox.wait_for(ANN, CONFIRM).await.token();
    let page = server.get("/dev/mail").send().await.unwrap();
    assert_eq!(
        (page.status().as_u16(), &page.headers()["cache-control"]),
        (200, &"private, no-store".parse().unwrap())
    );
    let page = page.text().await.unwrap();
    assert!(page.contains(ANN) && page.contains(&format!("/verify?token={token}\"")), "{page}");
    // A name that another site has made to resolve to this machine, or a proxy in front of it.
    for host in ["evil.example", "evil.example:3000", "127.0.0.1.evil.example", "10.0.0.1"] {
        assert_eq!(status(server.get("/dev/mail").header(HOST, host)).await, 404, "{host}");
    }
    for header in ["x-forwarded-for", "x-forwarded-host", "forwarded", "via"] {
        assert_eq!(status(server.get("/dev/mail").header(header, "192.0.2.1")).await, 404, "{header}");
    }
}

#[tokio::test]
async fn settings_that_would_give_links_away_are_refused() {
    for (settings, words) in [
        ("[mail]\nsmtp_url = \"smtps://mail.example.com\"\n", "HALLPASS_PUBLIC_URL"),
        (
            "[mail]\nsmtp_url = \"smtp://mail.example.com\"\n[server]\npublic_url = \"https://a.example\"\n",
            "unencrypted",
        ),
        (
            "[mail]\nsmtp_url = \"mail.example.com\"\n[server]\npublic_url = \"https://a.example\"\n",
            "HALLPASS_SMTP_URL",
        ),
        ("[mail]\nfrom = \"nobody\"\n", "from"),
        ("[mail]\ncolor = \"red; background: url(x)\"\n", "HALLPASS_MAIL_COLOR"),
        ("[mail]\non_site = true\n[server]\nhttps = true\n", "HALLPASS_MAIL_ON_SITE"),
        (
            "[mail]\non_site = true\nsmtp_url = \"smtp://localhost\"\n[server]\npublic_url = \"http://localhost:3000\"\n",
            "HALLPASS_MAIL_ON_SITE",
        ),
    ] {
        let (output, text) = run(&mut Home::with(settings).command());
        assert!(!output.status.success() && text.contains(words), "{settings}: {text}");
    }
    let home = Home::with("[mail]\non_site = true\n");
    let (output, text) = run(home.command().env("LEPTOS_SITE_ADDR", "0.0.0.0:0"));
    assert!(!output.status.success() && text.contains("HALLPASS_MAIL_ON_SITE"), "{text}");
}
