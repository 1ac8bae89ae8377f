//! A service beside Hallpass: each user has notes, which live in this process's memory.
//!
//! ```sh
//! HALLPASS_URL=http://127.0.0.1:3000 REDIS_URL=redis://127.0.0.1:6379 CLIENT_ID=... CLIENT_SECRET=... \
//!     cargo run -p hallpass-guard --example notes
//! curl -H "authorization: Bearer $TOKEN" 127.0.0.1:4001/notes
//! ```

use std::{
    collections::HashMap,
    env,
    error::Error,
    fs, io,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use hallpass_guard::{Authenticated, Claims, Guard, UserId};
use tokio::{
    net::TcpListener,
    signal::{
        ctrl_c,
        unix::{SignalKind, signal},
    },
};

/// The notes of each user.
type Notes = Arc<Mutex<HashMap<UserId, Vec<String>>>>;

async fn list(State(notes): State<Notes>, Authenticated(user): Authenticated<Claims>) -> Json<Vec<String>> {
    let notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
    Json(notes.get(&user.sub).cloned().unwrap_or_default())
}

async fn add(
    State(notes): State<Notes>,
    Authenticated(user): Authenticated<Claims>,
    note: String,
) -> StatusCode {
    notes.lock().unwrap_or_else(PoisonError::into_inner).entry(user.sub).or_default().push(note);
    StatusCode::CREATED
}

/// Whether requests can be served, for a load balancer.
async fn ready(State(guard): State<Guard>) -> StatusCode {
    if guard.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// The number of users who have notes: for administrators.
async fn users(State(notes): State<Notes>) -> Json<usize> {
    Json(notes.lock().unwrap_or_else(PoisonError::into_inner).len())
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("notes: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let mut guard = Guard::builder()
        .issuer(env::var("HALLPASS_URL")?)
        .redis(env::var("REDIS_URL")?)
        .client(env::var("CLIENT_ID")?, env::var("CLIENT_SECRET")?)
        .name(env::var("NAME").unwrap_or_else(|_| "notes".to_owned()));
    if let Ok(file) = env::var("HALLPASS_CA") {
        guard = guard.issuer_ca(fs::read(file)?);
    }
    if let Ok(audience) = env::var("AUDIENCE") {
        guard = guard.audience(audience);
    }
    if let Ok(seconds) = env::var("STARTUP_TIMEOUT") {
        guard = guard.startup_timeout(Duration::from_secs(seconds.parse()?));
    }
    let guard = guard.build().await?;
    let for_users = Router::new().route("/notes", get(list).post(add)).layer(guard.layer());
    let for_administrators = Router::new().route("/users", get(users)).layer(guard.layer().for_role("admin"));
    let for_anyone = Router::new().route("/health/ready", get(ready)).with_state(guard.clone());
    let app = for_users.merge(for_administrators).with_state(Notes::default()).merge(for_anyone);

    let address = env::var("ADDRESS").unwrap_or_else(|_| "127.0.0.1:4001".to_owned());
    let listener = TcpListener::bind(&address).await?;
    println!("notes at http://{}", listener.local_addr()?);
    let mut terminated = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = ctrl_c() => {}
            _ = terminated.recv() => {}
        }
    };
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    // Logouts do not wait for this process any more.
    guard.leave().await;
    Ok(())
}
