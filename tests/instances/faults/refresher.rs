//! A refresh as a careful client does it: when the answer is lost, or was not waited for, it asks again at once,
//! with the same token and perhaps elsewhere, for as long as the server promises to take that for what it is.

use std::{sync::Arc, time::Duration};

use tokio::time;

use crate::faults::{
    caller::{Caller, PATIENCE},
    history::{Answer, NEVER},
    load::Load,
    sessions::{Refreshing, Session},
};

/// As shipped: how long a lost answer may be asked for again.
pub const GRACE: Duration = Duration::from_secs(10);
/// How much of it passes until nobody asks again: a question may take a while.
const LAST_TRY: Duration = Duration::from_secs(5);
/// The grace counts whole seconds.
const ROUNDED_OFF: Duration = Duration::from_secs(2);
/// How long a session is left alone after a refresh, so that none is refreshed as no client would.
const PAUSE: Duration = Duration::from_secs(3);

/// Refreshes, and asks again while the answer is lost. Does nothing while one of an earlier refresh may
/// still be under way.
pub async fn refresh(load: &Load, caller: &Caller, session: &Arc<Session>, is_last: bool) {
    let mut refreshing = session.refreshing.lock().await;
    if load.history.now() < refreshing.not_before {
        return;
    }
    let (mut caller, mut unsure_since) = (caller, None);
    while let Some(token) = refreshing.token.clone() {
        let (sent, had_right_time) = (load.history.now(), caller.has_right_time());
        let good_until = match unsure_since {
            None => NEVER,
            Some(since) if sent > since + LAST_TRY || !had_right_time => {
                return give_up(load, session, &mut refreshing);
            }
            Some(since) => since + GRACE - ROUNDED_OFF,
        };
        match caller.refresh(session.number, &token, good_until, is_last).await {
            Ok(pair) => {
                session.add(pair.access);
                refreshing.token = Some(pair.refresh);
                refreshing.rests_until = load.history.now() + PAUSE;
                return;
            }
            Err(answer) if answer.is_in_doubt() => {
                unsure_since.get_or_insert(sent);
                // It may still be carried out: not later than any call that is waited for.
                refreshing.not_before = refreshing.not_before.max(sent + PATIENCE + PAUSE);
                if !(had_right_time && caller.has_right_time()) {
                    return give_up(load, session, &mut refreshing);
                }
                if answer != Answer::HungUp {
                    time::sleep(Duration::from_millis(100)).await;
                }
                caller = load.any_caller();
            }
            // Whether it had to be refused is for the checker to find out.
            Err(_) => return load.sessions.set_ending(session),
        }
    }
}

/// Waits until nothing that a client did not wait for can still be carried out.
pub async fn until_quiet(load: &Load) {
    let quiet = load.sessions.all_quiet_at().await;
    time::sleep(quiet.saturating_sub(load.history.now())).await;
}

fn give_up(load: &Load, session: &Session, refreshing: &mut Refreshing) {
    refreshing.token = None;
    load.history.doubt(session.number);
}
