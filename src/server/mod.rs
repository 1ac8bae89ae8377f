//! The server's half of Hallpass: it issues, verifies and revokes tokens, and renders the pages.
//!
//! `http/` has the routes and handlers, `auth/` the rules about accounts, sessions and tokens, `db/` the SQL.
//! `http/` calls `auth/`, `auth/` calls `db/`, and never the other way round. Only `http/router.rs` names
//! `app/`.

use std::{
    future::IntoFuture, net::SocketAddr, ops::Deref, panic::AssertUnwindSafe, path::Path, sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use axum::{
    ServiceExt,
    extract::{FromRef, Request},
};
use futures::FutureExt;
use leptos::config::LeptosOptions;
use tokio::{net::TcpListener, sync::watch, time};
use tracing::{error, info, warn};

use self::{
    auth::Auth,
    config::Config,
    db::{Access, Db},
};

pub mod auth;
pub mod cli;
pub mod client_info;
pub mod clock;
pub mod config;
pub mod db;
pub mod http;
pub mod ids;
mod limits;
pub mod metrics;
mod origin;
mod trusted_proxies;
mod user_agent;

/// The interval at which expired tokens are deleted from memory and from the database, and revocations that
/// were recorded but not propagated are propagated.
const MAINTAIN_EVERY: Duration = Duration::from_secs(30);

/// The timeout of one run of maintenance: an unresponsive database must not stop maintenance for good.
const MAINTAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the folder of signing keys is read.
const FOLLOW_KEYS_EVERY: Duration = Duration::from_secs(5);

/// The timeout for leaving the membership and closing the connections at shutdown.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The state that all requests share. Cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

/// The fields of [`AppState`].
pub struct Shared {
    pub leptos: LeptosOptions,
    /// The prefix of the paths of the site's files, with their version. Empty under `make dev`, where the
    /// files change.
    pub assets: Arc<str>,
    pub auth: Arc<Auth>,
    pub config: Config,
    /// True once shutdown has begun. Event streams then end.
    stopping: watch::Receiver<bool>,
}

impl Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl FromRef<AppState> for LeptosOptions {
    fn from_ref(state: &AppState) -> Self {
        state.leptos.clone()
    }
}

/// Serves on `listener` until `shutdown` resolves, then finishes the requests in progress, within the
/// configured grace.
///
/// # Errors
/// The site folder is missing, the database or Redis cannot be used, or another process serves the
/// SQLite file.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let site = Path::new(&*config.leptos.site_root).join(&*config.leptos.site_pkg_dir);
    ensure!(
        site.is_dir(),
        "there is no site folder {}: run `make build`, and start from the folder that holds Leptos.toml",
        site.display()
    );
    let assets = if config::is_watched() {
        String::new()
    } else {
        format!(
            "/{}",
            http::assets::version(&site).with_context(|| format!("cannot read {}", site.display()))?
        )
    };
    metrics::install()?;
    limits::raise_open_files();
    let db = Db::open(&config, Access::Exclusive).await?;
    let auth = Arc::new(Auth::load(&config, db.clone(), clock::now()).await?);
    let address = listener.local_addr()?;
    info!("Hallpass is running at http://{address}");
    if db.has_no_users().await? {
        info!(
            "there are no users yet: register at http://{address}/register, or run `hallpass user add EMAIL`"
        );
    }
    if !config.server.https && !address.ip().is_loopback() {
        warn!(
            "cookies go over plain http on {address}: set HALLPASS_HTTPS=true behind a proxy that speaks https"
        );
    }

    let grace = config.server.shutdown_grace();
    let maintaining = tokio::spawn(maintain(Arc::clone(&auth)));
    let following_keys = tokio::spawn(follow_keys(Arc::clone(&auth)));
    let leaving = Arc::clone(&auth);
    let (stopping, is_stopping) = watch::channel(false);
    let stopped = is_stopping.clone();
    let state = AppState(Arc::new(Shared {
        leptos: config.leptos.clone(),
        assets: assets.into(),
        auth,
        config,
        stopping: is_stopping,
    }));
    let service = http::router::service(state);
    let service = ServiceExt::<Request>::into_make_service_with_connect_info::<SocketAddr>(service);
    let server = axum::serve(listener, service).with_graceful_shutdown(async move {
        shutdown.await;
        info!("stopping: finishing the requests under way");
        stopping.send_replace(true);
    });
    let out_of_grace = async move {
        let mut stopped = stopped;
        let _ = stopped.wait_for(|is_stopping| *is_stopping).await;
        time::sleep(grace).await;
    };
    tokio::select! {
        ended = server.into_future() => ended.context("the server failed")?,
        () = out_of_grace => warn!("some requests had not finished after {grace:?}"),
    }
    maintaining.abort();
    following_keys.abort();
    let leaving = async {
        leaving.leave().await;
        db.close().await;
    };
    if time::timeout(LEAVE_TIMEOUT, leaving).await.is_err() {
        warn!("stopping without leaving the cluster: Redis or the database does not answer");
    }
    info!("stopped");
    Ok(())
}

async fn maintain(auth: Arc<Auth>) {
    let mut interval = time::interval(MAINTAIN_EVERY);
    interval.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        metrics::maintain();
        let maintaining = AssertUnwindSafe(auth.maintain(clock::now())).catch_unwind();
        match time::timeout(MAINTAIN_TIMEOUT, maintaining).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => error!("maintenance panicked; retrying"),
            Err(_) => warn!("maintenance timed out: the database does not answer"),
        }
    }
}

async fn follow_keys(auth: Arc<Auth>) {
    let mut interval = time::interval(FOLLOW_KEYS_EVERY);
    interval.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        auth.follow_keys(clock::now()).await;
    }
}
