//! The last questions, when all is healed and nothing else is under way.

use std::sync::Arc;

use fastrand::Rng;
use futures::{StreamExt, stream};

use crate::faults::{
    load::Load,
    refresher::{refresh, until_quiet},
    sessions::Session,
};

/// Ends what somebody wanted to end, refreshes what should be alive, and attempts what should be dead
/// on every instance. The answers are in the history: the checker knows what they have to be.
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

/// Does something with each session, several at a time, at instances that chance chooses.
async fn each(sessions: Vec<Arc<Session>>, rng: &mut Rng, ask: impl AsyncFn(Arc<Session>, usize)) {
    let questions: Vec<_> = sessions
        .into_iter()
        .map(|session| (session, rng.usize(..crate::support::world::INSTANCES)))
        .collect();
    stream::iter(questions).for_each_concurrent(16, |(session, instance)| ask(session, instance)).await;
}
