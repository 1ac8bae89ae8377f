//! The load: at every instance some writers (log in, refresh, log out, end other sessions) and some readers,
//! until they are stopped. The seed determines what they do; when they do it depends on the machine.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use tokio::{task::JoinSet, time};

use crate::{
    faults::{
        caller::Caller,
        history::History,
        sessions::{Session, Sessions},
        users::Users,
        writer,
    },
    support::world::World,
};

const WRITERS: usize = 3;
const READERS: usize = 4;

/// The state that all writers and readers share.
pub struct Load {
    pub history: Arc<History>,
    pub callers: Vec<Arc<Caller>>,
    pub sessions: Sessions,
    pub users: Users,
    /// The folder of the mails that the instances have sent.
    pub mails: PathBuf,
    /// Calls that run in the background.
    aside: Mutex<JoinSet<()>>,
    slowness: u32,
    is_over: AtomicBool,
}

/// The tasks that make the load. They are aborted when this is dropped.
pub struct Running {
    pub load: Arc<Load>,
    workers: JoinSet<()>,
}

impl Running {
    /// Starts the load. Of a hundred calls, `hang_ups` are not waited for. The pauses between calls are
    /// `slowness` times as long as usual.
    pub fn start(world: &World, seed: u64, hang_ups: u8, slowness: u32) -> Self {
        let mut rng = Rng::with_seed(seed);
        let history = Arc::new(History::begin());
        let callers: Vec<_> = (0..world.instances.len())
            .map(|number| Arc::new(Caller::new(number, world, Arc::clone(&history), rng.fork(), hang_ups)))
            .collect();
        let load = Arc::new(Load {
            history,
            callers: callers.clone(),
            sessions: Sessions::default(),
            users: Users::default(),
            mails: world.mails().unwrap_or_default(),
            aside: Mutex::default(),
            slowness,
            is_over: AtomicBool::new(false),
        });
        let mut workers = JoinSet::new();
        for caller in callers {
            for _ in 0..WRITERS {
                workers.spawn(writer::work(Arc::clone(&load), Arc::clone(&caller), rng.fork()));
            }
            for _ in 0..READERS {
                workers.spawn(read(Arc::clone(&load), Arc::clone(&caller), rng.fork()));
            }
        }
        Self { load, workers }
    }

    /// Waits until every call in progress has ended.
    pub async fn stop(mut self) -> Arc<Load> {
        self.load.is_over.store(true, Ordering::Relaxed);
        while let Some(worker) = self.workers.join_next().await {
            worker.unwrap();
        }
        let mut aside = std::mem::take(&mut *self.load.aside.lock().unwrap());
        while let Some(call) = aside.join_next().await {
            call.unwrap();
        }
        self.load
    }
}

impl Load {
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Pauses between two calls.
    pub async fn pause(&self, milliseconds: u64) {
        time::sleep(Duration::from_millis(milliseconds) * self.slowness).await;
    }

    pub fn any_caller(&self) -> &Caller {
        &self.callers[fastrand::usize(..self.callers.len())]
    }

    /// Makes a call in the background.
    pub fn aside(&self, call: impl Future<Output = ()> + Send + 'static) {
        let mut aside = self.aside.lock().unwrap();
        while let Some(ended) = aside.try_join_next() {
            ended.unwrap();
        }
        aside.spawn(call);
    }
}

/// Makes protected calls all the time, with tokens of live and of dead sessions.
async fn read(load: Arc<Load>, caller: Arc<Caller>, mut rng: Rng) {
    while !load.is_over() {
        if let Some(session) = any_session(&load, &mut rng) {
            let token = match rng.u8(..20) {
                // Sometimes a token that may have expired, or has.
                0 => Some(session.newest()),
                1 => Some(session.first()),
                2 => {
                    // A browser presents the current token. The call is left out while the session is being
                    // refreshed.
                    if let Ok(refreshing) = session.refreshing.try_lock()
                        && let Some(token) = &refreshing.token
                    {
                        caller.events(session.number, token).await;
                    }
                    None
                }
                3 => {
                    caller.page("/account", session.cookie()).await;
                    None
                }
                _ => session.any_good(load.history.now(), &mut rng),
            };
            if let Some(token) = token {
                caller.me(session.number, &token, false).await;
            }
        }
        load.pause(rng.u64(5..30)).await;
    }
}

/// A session that is mostly live, sometimes one that was ended a short time ago.
fn any_session(load: &Load, rng: &mut Rng) -> Option<Arc<Session>> {
    let lists = load.sessions.lists();
    let list = match rng.u8(..10) {
        0..7 => &lists.live[..],
        7 => &lists.ending[..],
        _ => &lists.ended[lists.ended.len().saturating_sub(60)..],
    };
    rng.choice(list).cloned()
}
