//! A refresh as a careful client does it: when the answer is lost it tries again with the same
//! token, for as long as the server promises to take that for what it is.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    faults::{
        caller::Caller,
        load::Load,
        sessions::{Refreshing, Session},
    },
    support::instance::GRACE,
};

/// The last try is sent so early that it cannot be late, however long it then has to wait. A late
/// one would be taken for a thief's, and rightly so.
const LAST_TRY: Duration = GRACE.saturating_sub(Duration::from_secs(25));

/// Tries once, when no other try is under way.
pub async fn refresh(load: &Load, caller: &Caller, session: &Arc<Session>, is_last: bool) {
    let mut refreshing = session.refreshing.lock().await;
    let Some(token) = refreshing.token.clone() else { return };
    let (sent, had_right_time) = (load.history.now(), caller.has_right_time());
    if let Some(since) = refreshing.unsure_since {
        if sent > since + LAST_TRY {
            return give_up(load, session, &mut refreshing);
        }
        if !had_right_time {
            // Its clock would tell it that the grace is over, or that it has not begun.
            return;
        }
    }
    match caller.refresh(session.number, &token, is_last).await {
        Ok(pair) => {
            session.add(pair.access);
            *refreshing = Refreshing { token: Some(pair.refresh), unsure_since: None };
        }
        Err(answer) if answer.is_unavailable() => {
            refreshing.unsure_since.get_or_insert(sent);
            if !(had_right_time && caller.has_right_time()) {
                return give_up(load, session, &mut refreshing);
            }
        }
        // Whether it had to be refused is for the checker to find out.
        Err(_) => load.sessions.set_ending(session),
    }
    session.is_unsure.store(refreshing.unsure_since.is_some(), Ordering::Relaxed);
}

fn give_up(load: &Load, session: &Session, refreshing: &mut Refreshing) {
    *refreshing = Refreshing { token: None, unsure_since: None };
    session.is_unsure.store(false, Ordering::Relaxed);
    load.history.doubt(session.number);
}
