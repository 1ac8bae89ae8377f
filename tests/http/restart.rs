//! What must survive a restart, however abruptly the server ended.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::process::ExitStatusExt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crate::support::*;

#[tokio::test]
async fn restart_keeps_live_sessions_live_and_dead_sessions_dead() {
    let home = Home::new();
    let server = home.start().await;
    let alive = server.register("ann@example.com").await;
    let dead = server.login("ann@example.com").await;
    assert_eq!(status(server.logout(&dead.access)).await, 200);
    server.stop().await;

    let server = home.start().await;
    assert_eq!(status(server.me(&alive.access)).await, 200);
    assert_eq!(status(server.refresh(&alive.refresh)).await, 200);
    assert_invalid_token(&server.me(&dead.access).send().await.unwrap(), "logged out before the restart");
    assert_eq!(status(server.refresh(&dead.refresh)).await, 401);
}

#[derive(Default)]
struct Journal {
    /// The login was answered, and no logout was requested.
    signed_in: Vec<Pair>,
    /// The logout was answered.
    signed_out: Vec<Pair>,
}

/// Eight concurrent clients make 200 logins, every other one followed by a logout. The server is killed after
/// 100 responses.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_logins_and_logouts_survive_a_kill() {
    const CLIENTS: usize = 8;
    const EACH: usize = 25;
    let home = Home::new();
    let server = Arc::new(home.spawn());
    server.register("ann@example.com").await;
    let (journal, answered) = (Arc::new(Mutex::new(Journal::default())), Arc::new(AtomicUsize::new(0)));
    let killed = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (server, journal, answered, killed) =
                (server.clone(), journal.clone(), answered.clone(), killed.clone());
            tokio::spawn(async move {
                for turn in 0..EACH {
                    let response = match server.try_login("ann@example.com", PASSWORD).send().await {
                        Ok(response) => response.json().await,
                        Err(error) => Err(error),
                    };
                    let Ok(answer) = response else { break };
                    let pair = Pair::of(&answer);
                    answered.fetch_add(1, Ordering::Relaxed);
                    if turn % 2 == 0 {
                        journal.lock().unwrap().signed_in.push(pair);
                        continue;
                    }
                    match server.logout(&pair.access).send().await {
                        Ok(response) if response.status() == 200 => {
                            answered.fetch_add(1, Ordering::Relaxed);
                            journal.lock().unwrap().signed_out.push(pair);
                        }
                        // Requested, but never answered: the logout may have been carried out or not.
                        _ => break,
                    }
                }
                assert!(killed.load(Ordering::Relaxed) || answered.load(Ordering::Relaxed) >= CLIENTS * EACH);
            })
        })
        .collect();
    while answered.load(Ordering::Relaxed) < CLIENTS * EACH / 2 {
        tokio::task::yield_now().await;
    }
    killed.store(true, Ordering::Relaxed);
    server.signal("KILL");
    for client in clients {
        client.await.unwrap();
    }
    let status_ = Arc::into_inner(server).unwrap().wait();
    assert_eq!(status_.signal(), Some(9));

    let server = home.spawn();
    let journal = Arc::into_inner(journal).unwrap().into_inner().unwrap();
    assert!(journal.signed_in.len() > 10 && journal.signed_out.len() > 10);
    for pair in &journal.signed_in {
        assert_eq!(status(server.me(&pair.access)).await, 200);
        assert_eq!(status(server.refresh(&pair.refresh)).await, 200);
    }
    for pair in &journal.signed_out {
        assert_invalid_token(&server.me(&pair.access).send().await.unwrap(), "acknowledged log-out");
        assert_eq!(status(server.refresh(&pair.refresh)).await, 401);
    }
}

#[test]
fn request_in_progress_is_finished_on_sigterm() {
    let home = Home::new();
    let server = home.spawn();
    let address = server.url.strip_prefix("http://").unwrap();
    let body = r#"{"email":"nobody@example.com","password":"wrong password"}"#;
    let mut connection = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /api/auth/login HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).unwrap();
    // `100 Continue` means that the server has begun to read the body: the request is in progress.
    let mut go_on = [0; 25];
    connection.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    server.signal("TERM");
    server.wait_for_log("stopping");
    connection.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("invalid_grant"), "{answer}");
    assert!(server.wait().success());
}
