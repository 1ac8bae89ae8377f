//! The last calls, when all faults have been healed and no other call is in progress.

use std::sync::Arc;

use fastrand::Rng;
use futures::{StreamExt, stream};

use crate::faults::{
    load::Load,
    refresher::{refresh, until_quiet},
    sessions::Session,
};

/// Ends the sessions whose end was not confirmed, refreshes those that must be live, and presents the tokens
/// of those that must be dead at every instance. The checker derives the right responses from the history.
pub async fn finish(load: &Load, rng: &mut Rng) {
    let ending = load.sessions.lists().ending.clone();
    each(ending, rng, async |session, instance| {
        if load.callers[instance].logout(session.number, &session.newest(), true).await.is_yes() {
            load.sessions.set_ended(&session);
        }
    })
    .await;

    until_quiet(load).await;
    let live = load.sessions.lists().live.clone();
    each(live, rng, async |session, instance| {
        refresh(load, &load.callers[instance], &session, true).await;
        for caller in &load.callers {
            caller.me(session.number, &session.newest(), true).await;
            caller.me(session.number, &session.first(), true).await;
        }
    })
    .await;

    let ended = load.sessions.lists().ended.clone();
    each(ended, rng, async |session, instance| {
        for caller in &load.callers {
            for access in session.tokens() {
                caller.me(session.number, &access, true).await;
            }
        }
        refresh(load, &load.callers[instance], &session, true).await;
    })
    .await;
}

/// Makes calls for each session, several at a time, at random instances.
async fn each(sessions: Vec<Arc<Session>>, rng: &mut Rng, ask: impl AsyncFn(Arc<Session>, usize)) {
    let questions: Vec<_> = sessions
        .into_iter()
        .map(|session| (session, rng.usize(..crate::support::world::INSTANCES)))
        .collect();
    stream::iter(questions).for_each_concurrent(16, |(session, instance)| ask(session, instance)).await;
}
