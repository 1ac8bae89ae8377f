//! The guard: it accepts a live access token from memory, and refuses every other one.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures::FutureExt;
use hallpass_allowlist::{Allowlist, Clock, SystemClock, Undetermined};
use http::HeaderMap;
use tokio::{
    task::JoinSet,
    time::{self, MissedTickBehavior},
};
use tracing::{error, info, warn};

use crate::{
    bearer::bearer, claims::Claims, hallpass::Hallpass, public_keys::PublicKeys, refusal::Refusal,
    verified_tokens::VerifiedTokens,
};

/// How often the published keys are read: a new key of Hallpass waits for that.
const READ_KEYS_EVERY: Duration = Duration::from_secs(5);

/// How often revocations are reconciled, and expired tokens forgotten.
const MAINTAIN_EVERY: Duration = Duration::from_secs(30);

/// How long one run of either may take.
const RUN_TIMEOUT: Duration = Duration::from_secs(30);

/// Accepts the access tokens of a Hallpass, and refuses them as soon as their session has ended.
///
/// Once a logout there has been answered 2xx, no guard accepts a token of that session any more: each guard either
/// has acknowledged the logout or holds no lease, without which it accepts nothing from memory. This assumes that guard and
/// instances follow the same Redis, which is checked by way of Hallpass: stop guards before all instances are stopped in order
/// to lead them to another Redis.
///
/// Cheap to clone. When the last clone is dropped, it leaves without a word, and logouts wait for it until its lease has
/// expired, 1.23 seconds at most: call [`Guard::leave`] when the service stops.
#[derive(Clone)]
pub struct Guard(Arc<Shared>);

pub(crate) struct Shared {
    allowlist: Allowlist<Hallpass>,
    keys: PublicKeys,
    verified: VerifiedTokens<Arc<Claims>>,
    /// The ids of the keys that the other instances know to be accepted here.
    announced: Mutex<Vec<String>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Guard {
    pub(crate) fn start(allowlist: Allowlist<Hallpass>, keys: PublicKeys, announced: Vec<String>) -> Self {
        let (verified, announced) = (VerifiedTokens::default(), Mutex::new(announced));
        let shared = Arc::new(Shared { allowlist, keys, verified, announced, tasks: Mutex::default() });
        let mut tasks = JoinSet::new();
        tasks.spawn(every(READ_KEYS_EVERY, Arc::downgrade(&shared), async |shared| {
            shared.follow_keys().await;
        }));
        tasks.spawn(every(MAINTAIN_EVERY, Arc::downgrade(&shared), async |shared| {
            shared.maintain().await;
        }));
        *shared.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
        Self(shared)
    }

    /// Accepts a request by the access token in its `Authorization` header.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<Claims>, Refusal> {
        self.authorize(bearer(headers)?).await
    }

    /// Accepts a live access token: signed by Hallpass, unexpired, and of a session that has not ended. Needs no network
    /// for a token that was accepted before, while the lease holds.
    ///
    /// # Errors
    /// [`Refusal::InvalidToken`], whatever is wrong with the token; [`Refusal::Unavailable`] when it is not known whether it
    /// is live.
    pub async fn authorize(&self, token: &str) -> Result<Arc<Claims>, Refusal> {
        let Shared { allowlist, keys, verified, .. } = &*self.0;
        if !keys.are_current() {
            return Err(Refusal::Unavailable);
        }
        let seen = verified.get(token);
        let is_new = seen.is_none();
        let claims = match seen {
            Some(claims) => claims,
            None => Arc::new(keys.verify(token).await?),
        };
        // RFC 7519, 4.1.4: the token is invalid on and after `exp`.
        if allowlist.shared_time(SystemClock.now()) >= claims.exp {
            return Err(Refusal::InvalidToken);
        }
        match allowlist.check(&claims.record()).await {
            Ok(true) => {}
            Ok(false) => return Err(Refusal::InvalidToken),
            Err(Undetermined) => return Err(Refusal::Unavailable),
        }
        if is_new {
            verified.insert(token, Arc::clone(&claims));
        }
        Ok(claims)
    }

    /// Resolves when this guard learns that the session of these claims has ended: for an event stream, which has to end
    /// with it. A stream has to end at `exp`, too.
    pub async fn until_revoked(&self, claims: &Claims) {
        self.0.allowlist.until_revoked(claims.sid).await;
    }

    /// Whether tokens are accepted from memory: for the service's readiness.
    pub fn is_ready(&self) -> bool {
        self.0.allowlist.is_ready() && self.0.keys.are_current()
    }

    /// Leaves the instances of Hallpass, so that no logout waits for this guard. It accepts nothing from memory afterwards.
    pub async fn leave(&self) {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        self.0.allowlist.leave().await;
    }
}

impl Shared {
    async fn follow_keys(&self) {
        if let Err(error) = self.keys.read().await {
            warn!(%error, "the public keys cannot be read again: {error}");
            return;
        }
        let ids = self.keys.ids();
        if *self.announced.lock().unwrap_or_else(PoisonError::into_inner) == ids {
            return;
        }
        // Whatever a key has signed that is gone.
        self.verified.clear();
        // Accepted here before the others learn of it.
        match self.allowlist.change_keys(None, &ids).await {
            Ok(_) => {
                info!("the public keys have changed: {}", ids.join(", "));
                *self.announced.lock().unwrap_or_else(PoisonError::into_inner) = ids;
            }
            Err(error) => warn!(%error, "the accepted keys cannot be announced: {error}"),
        }
    }

    async fn maintain(&self) {
        let now = SystemClock.now();
        let shared_time = self.allowlist.shared_time(now);
        self.verified.retain(|claims| claims.exp > shared_time);
        if let Err(error) = self.allowlist.maintain(now).await {
            warn!(%error, "the revoked sessions cannot be read: {error}");
        }
    }
}

/// Runs the work at this interval for as long as there is a guard. A panic or an endless wait ends one run only.
async fn every(interval: Duration, guard: Weak<Shared>, work: impl AsyncFn(&Shared)) {
    let mut interval = time::interval(interval);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let Some(guard) = guard.upgrade() else { return };
        match time::timeout(RUN_TIMEOUT, AssertUnwindSafe(work(&guard)).catch_unwind()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => error!("a task of the guard panicked; it runs again"),
            Err(_) => warn!("a task of the guard timed out; it runs again"),
        }
    }
}
