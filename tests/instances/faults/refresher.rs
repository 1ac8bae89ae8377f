//! Refreshes of a careful client: when the response is lost, or was not waited for, the client repeats the
//! refresh at once with the same token, perhaps at another instance, for as long as the server's grace allows
//! it.

use std::{sync::Arc, time::Duration};

use tokio::time;

use crate::faults::{
    caller::{Caller, PATIENCE},
    history::{Answer, NEVER},
    load::Load,
    sessions::{Refreshing, Session},
};

/// The default grace, in which a lost response can be requested again.
pub const GRACE: Duration = Duration::from_secs(10);
/// The part of the grace in which a refresh is repeated; the rest is for the call itself.
const LAST_TRY: Duration = Duration::from_secs(5);
/// The rounding error of the grace, which is measured in whole seconds.
const ROUNDED_OFF: Duration = Duration::from_secs(2);
/// The time after a refresh in which the session is not refreshed again: real clients do not refresh more
/// often.
const PAUSE: Duration = Duration::from_secs(3);

/// Refreshes, and repeats the refresh while the response is lost. Does nothing while an earlier refresh may
/// still be in progress.
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
                // The call may still be carried out, but not later than any call that is waited for.
                refreshing.not_before = refreshing.not_before.max(sent + PATIENCE + PAUSE);
                if !(had_right_time && caller.has_right_time()) {
                    return give_up(load, session, &mut refreshing);
                }
                if answer != Answer::HungUp {
                    time::sleep(Duration::from_millis(100)).await;
                }
                caller = load.any_caller();
            }
            // The checker decides whether the refusal was right.
            Err(_) => return load.sessions.set_ending(session),
        }
    }
}

/// Waits until no call that a client did not wait for can still be carried out.
pub async fn until_quiet(load: &Load) {
    let quiet = load.sessions.all_quiet_at().await;
    time::sleep(quiet.saturating_sub(load.history.now())).await;
}

fn give_up(load: &Load, session: &Session, refreshing: &mut Refreshing) {
    refreshing.token = None;
    load.history.doubt(session.number);
}
