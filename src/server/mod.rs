//! The server's half of Hallpass: it issues, verifies and revokes tokens, and renders the pages.
//!
//! `http/` has the routes and handlers, `auth/` the rules about accounts, sessions and tokens, `db/` the SQL.
//! `mail/` sends the mails that `db/` has in its outbox.
//! `http/` calls `auth/`, `auth/` calls `db/`, and never the other way round. Only `http/router.rs` names
//! `app/`.

use std::{
    future::IntoFuture, io, net::SocketAddr, ops::Deref, panic::AssertUnwindSafe, path::Path, pin::pin,
    sync::Arc, time::Duration,
};

use anyhow::{Context, Result, ensure};
use axum::{
    ServiceExt,
    extract::{FromRef, Request},
};
use futures::{FutureExt, future::OptionFuture};
use hallpass_allowlist::MemberKind;
use leptos::config::LeptosOptions;
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time, try_join};
use tracing::{error, info, warn};

use crate::api::types::SiteVersion;

use self::{
    auth::Auth,
    config::Config,
    db::{Access, Db},
    gate_listener::GateListener,
    mail::Mailer,
    other_versions::OtherVersions,
};

pub mod auth;
pub mod cli;
pub mod client_info;
pub mod clock;
pub mod config;
pub mod db;
mod gate_listener;
pub mod http;
pub mod ids;
mod limits;
mod mail;
pub mod metrics;
mod origin;
mod other_versions;
mod production;
pub mod sign_in_method;
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
    /// The version of the site, if its files do not change.
    pub version: Option<SiteVersion>,
    pub other_versions: OtherVersions,
    pub db: Db,
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

/// Serves the site and the API on `listener`, and the gate if it has an address, until `shutdown` resolves. Then
/// finishes the requests in progress, within the configured grace.
///
/// # Errors
/// The site folder is missing, an address is in use, the database or Redis cannot be used, or another process serves
/// the SQLite file.
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
    let unreadable = || format!("cannot read {}", site.display());
    let files = match config::is_watched() {
        true => None,
        false => Some(http::assets::contents(&site).with_context(unreadable)?),
    };
    let address = listener.local_addr()?;
    let mailer = Mailer::new(&config, address)?;
    let gate = match &config.gate.addr {
        Some(address) => Some(GateListener::bind(address).await?),
        None => None,
    };
    let mut shutdown = pin!(shutdown);
    let starting = Instance::start(&config, MemberKind::Instance).boxed();
    let Some(instance) = unless_stopped(starting, shutdown.as_mut()).await? else { return Ok(()) };
    let version = match files {
        Some(files) => {
            let hash = http::assets::version(&files);
            let starting = instance.db.start_site(&hash, files).await;
            let start = starting.context("the site's files cannot be kept in the database")?;
            Some(SiteVersion { start, hash })
        }
        None => None,
    };
    info!("Hallpass is running at http://{address}");
    if let Some(address) = &config.gate.addr {
        info!("the gate is open at {address}");
    }
    if instance.db.has_no_users().await? {
        info!(
            "there are no users yet: register at http://{address}/register, or run `hallpass user add EMAIL`"
        );
    }
    if !config.server.https && !address.ip().is_loopback() {
        warn!(
            "cookies go over plain http on {address}: set HALLPASS_HTTPS=true behind a proxy that speaks https"
        );
    }

    let gate = OptionFuture::from(gate.map(|gate| instance.serve_gate(gate, &config)));
    let state = AppState(Arc::new(Shared {
        leptos: config.leptos.clone(),
        assets: version.as_ref().map(|version| format!("/{}", version.hash)).unwrap_or_default().into(),
        version,
        other_versions: OtherVersions::default(),
        db: instance.db.clone(),
        auth: Arc::clone(&instance.auth),
        config,
        stopping: instance.stopping.subscribe(),
    }));
    let service = http::router::service(state);
    let service = ServiceExt::<Request>::into_make_service_with_connect_info::<SocketAddr>(service);
    let public = axum::serve(listener, service).with_graceful_shutdown(instance.stopped());
    let serving =
        async { try_join!(public.into_future(), gate.map(|served| served.unwrap_or(Ok(())))).map(drop) };
    instance.run(serving, Some(mailer), shutdown).await
}

/// Serves the gate alone: the instance answers nothing else.
///
/// # Errors
/// The gate has no address or it is in use, the database is not PostgreSQL, or it or Redis cannot be used.
pub async fn serve_gate(config: Config, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    let address = config.gate.addr.as_ref().context("HALLPASS_GATE_ADDR is not set")?;
    ensure!(
        config.database.is_shared(),
        "an SQLite file is for one process: set HALLPASS_GATE_ADDR for the instance itself, which then serves the gate"
    );
    let gate = GateListener::bind(address).await?;
    let mut shutdown = pin!(shutdown);
    let starting = Instance::start(&config, MemberKind::Gate).boxed();
    let Some(instance) = unless_stopped(starting, shutdown.as_mut()).await? else { return Ok(()) };
    info!("the gate is open at {address}");
    let serving = instance.serve_gate(gate, &config);
    instance.run(serving, None, shutdown).await
}

/// The result of `starting`; `None` if `shutdown` resolves first, while it waits for the database or Redis.
async fn unless_stopped<T>(
    starting: impl Future<Output = Result<T>>,
    shutdown: impl Future<Output = ()>,
) -> Result<Option<T>> {
    tokio::select! {
        started = starting => started.map(Some),
        () = shutdown => {
            info!("stopped before it had started");
            Ok(None)
        }
    }
}

/// What every instance does besides answering requests.
struct Instance {
    auth: Arc<Auth>,
    db: Db,
    grace: Duration,
    /// True once shutdown has begun.
    stopping: watch::Sender<bool>,
}

impl Instance {
    async fn start(config: &Config, kind: MemberKind) -> Result<Self> {
        metrics::install()?;
        limits::raise_open_files();
        let db = Db::open(config, Access::Exclusive).await?;
        let auth = Arc::new(Auth::load(config, kind, db.clone(), clock::now()).await?);
        Ok(Self { auth, db, grace: config.server.shutdown_grace(), stopping: watch::Sender::new(false) })
    }

    /// Resolves once shutdown has begun.
    fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.stopping.subscribe();
        async move {
            let _ = stopping.wait_for(|is_stopping| *is_stopping).await;
        }
    }

    fn serve_gate(
        &self,
        gate: GateListener,
        config: &Config,
    ) -> impl Future<Output = io::Result<()>> + Send + use<> {
        gate.serve(http::gate::routes(config, Arc::clone(&self.auth)), self.stopped())
    }

    /// Runs until `serving` ends, which `shutdown` tells it to do, and leaves the cluster.
    async fn run(
        self,
        serving: impl Future<Output = io::Result<()>>,
        mailer: Option<Mailer>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<()> {
        let mut background = JoinSet::new();
        background.spawn(maintain(Arc::clone(&self.auth)));
        background.spawn(follow_keys(Arc::clone(&self.auth)));
        if let Some(mailer) = mailer {
            background.spawn(mailer.run(Arc::clone(&self.auth), self.db.clone()));
        }
        let out_of_grace = async {
            shutdown.await;
            info!("stopping: finishing the requests under way");
            self.stopping.send_replace(true);
            time::sleep(self.grace).await;
        };
        tokio::select! {
            ended = serving => ended.context("the server failed")?,
            () = out_of_grace => warn!("some requests had not finished after {:?}", self.grace),
        }
        background.abort_all();
        let leaving = async {
            self.auth.leave().await;
            self.db.close().await;
        };
        if time::timeout(LEAVE_TIMEOUT, leaving).await.is_err() {
            warn!("stopping without leaving the cluster: Redis or the database does not answer");
        }
        info!("stopped");
        Ok(())
    }
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
        let following = AssertUnwindSafe(auth.follow_keys(clock::now())).catch_unwind();
        match time::timeout(MAINTAIN_TIMEOUT, following).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => error!("reading the signing keys again panicked; retrying"),
            Err(_) => warn!("reading the signing keys again timed out: the database does not answer"),
        }
    }
}
