//! Checks a history against the guarantees. The checker uses only the client's clock and the responses,
//! nothing internal to the server.

use std::fmt;

use crate::faults::history::{About, Answer, At, Call, Events, Kind, NEVER};

/// A guarantee that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    /// A token was accepted by a call that was sent after a revocation of its session had been answered with
    /// 2xx; or a password by a call that was sent after its change had been.
    Revived,
    /// A live token, or a user's password, was refused.
    Refused,
    /// A session that nobody ended could not be refreshed after all faults had been healed.
    Lost,
    /// A response outside the contract, or a 503 after all faults had been healed.
    Strange,
    /// An expired token was accepted.
    Expired,
    /// A revocation was acknowledged by more instances than there were.
    Untrue,
}

impl Breach {
    pub const ALL: [Self; 6] =
        [Self::Revived, Self::Refused, Self::Lost, Self::Strange, Self::Expired, Self::Untrue];
}

#[derive(Debug, Default)]
pub struct Verdict {
    /// The violations, in the order of the calls.
    pub violations: Vec<Violation>,
    /// The number of sessions that may have been lost, which cannot be decided.
    pub left_out: usize,
}

#[derive(Debug)]
pub struct Violation {
    pub breach: Breach,
    /// The end of the call that broke the guarantee.
    pub at: At,
    /// The calls involved, as text.
    pub story: String,
}

/// The history of one session.
#[derive(Clone, Copy)]
struct Session {
    user: usize,
    login: Option<Call>,
    /// The time at which the first call was sent that may have ended the session.
    may_end: At,
    /// The call that certainly ended the session; of several, the one that was answered first.
    end: Option<Call>,
    /// The refresh of the session after all faults had been healed.
    last_refresh: Option<Call>,
}

/// Finds all violations in a history.
pub fn check(events: &Events) -> Verdict {
    let sessions = sessions(events);
    let changes: Vec<_> = events.calls.iter().copied().filter(changes_credentials).collect();
    let mut violations = Vec::new();
    let mut left_out = 0;
    let mut report = |breach, session: usize, calls: &[Option<Call>]| {
        let user = sessions[session].user;
        let lines = calls.iter().flatten().map(|call| format!("\n    {call}"));
        let story = format!("{breach:?}: session {session} of user {user}:{}", lines.collect::<String>());
        let at = calls.iter().flatten().next_back().map_or(At::ZERO, |call| call.ended);
        violations.push(Violation { breach, at, story });
    };
    for call in &events.calls {
        let number = call.session();
        let session = sessions[number];
        let live = session.may_end >= call.ended && call.good_until >= call.ended;
        let dead = session.end.is_some_and(|end| end.ended < call.sent);
        let needs_live = !matches!(call.kind, Kind::Login | Kind::Logout | Kind::ResetPassword);
        let running = events.calm.iter().find(|(from, to, _)| *from <= call.sent && call.ended <= *to);
        let running = running.map_or(u64::MAX, |(_, _, running)| *running);
        let is_true =
            |(instances, acknowledged)| acknowledged <= instances && (1..=running).contains(&instances);
        let presented = call.password.filter(|_| call.kind != Kind::ResetPassword);
        let password = presented.map(|_| password(call, session.user, &changes));
        let is_wrong = if needs_live { call.answer.is_wrong_password() } else { call.answer.is_no() };
        if call.answer.is_yes() && needs_live && dead {
            report(Breach::Revived, number, &[session.login, session.end, Some(*call)]);
        } else if let (Some(Password::Replaced(change)), true) = (password, call.answer.is_yes()) {
            report(Breach::Revived, number, &[Some(change), Some(*call)]);
        } else if call.answer.is_no() && needs_live && live {
            report(Breach::Refused, number, &[session.login, Some(*call)]);
        } else if let (Some(Password::Right), true) = (password, is_wrong) {
            report(Breach::Refused, number, &[Some(*call)]);
        } else if call.kind == Kind::Me && call.answer.is_yes() && call.bad_from < call.sent {
            report(Breach::Expired, number, &[session.login, Some(*call)]);
        } else if call.answer.is_yes() && call.counts.is_some_and(|counts| !is_true(counts)) {
            report(Breach::Untrue, number, &[session.login, Some(*call)]);
        } else if is_strange(call) && !(password.is_some() && is_wrong) {
            report(Breach::Strange, number, &[session.login, Some(*call)]);
        }
    }
    for (number, session) in sessions.iter().enumerate() {
        let must_live = session.login.is_some() && session.may_end == NEVER;
        let lives = session.last_refresh.is_some_and(|refresh| refresh.answer.is_yes());
        if must_live && !lives && events.logins[number].in_doubt {
            left_out += 1;
        } else if must_live && !lives {
            report(Breach::Lost, number, &[session.login, session.last_refresh]);
        }
    }
    violations.sort_by_key(|violation| violation.at);
    Verdict { violations, left_out }
}

/// The state of a user's password when a call presented it.
#[derive(Clone, Copy)]
enum Password {
    Right,
    /// A change of it was in progress, or had an unknown result.
    InDoubt,
    /// It had certainly been replaced by this call. No password is set twice.
    Replaced(Call),
}

fn password(call: &Call, user: usize, changes: &[Call]) -> Password {
    let later = || {
        let of_user = changes.iter().filter(move |change| change.user() == Some(user));
        let of_user = of_user.filter(|change| changes_password(change));
        of_user.filter(|change| change.password >= call.password && !is_refused(change))
    };
    let factor_changes = || {
        let of_user = changes.iter().filter(move |change| change.user() == Some(user));
        of_user.filter(|change| change.kind == Kind::ChangeFactor && !is_refused(change))
    };
    // A login that has read what the user signed in with before is refused.
    let is_during =
        |change: &Call| change.sent < call.ended && (call.sent < change.ended || change.answer.is_in_doubt());
    let replaced = later().find(|change| change.answer.is_yes() && change.ended < call.sent);
    match replaced {
        Some(change) => Password::Replaced(*change),
        None if later().any(|change| change.sent < call.ended) => Password::InDoubt,
        None if factor_changes().any(is_during) => Password::InDoubt,
        None => Password::Right,
    }
}

fn sessions(events: &Events) -> Vec<Session> {
    let unknown = Session { user: 0, login: None, may_end: NEVER, end: None, last_refresh: None };
    let mut sessions: Vec<_> =
        events.logins.iter().map(|login| Session { user: login.user, ..unknown }).collect();
    for call in &events.calls {
        match call.kind {
            Kind::Login if call.answer.is_yes() => sessions[call.session()].login = Some(*call),
            Kind::Refresh if call.is_last => sessions[call.session()].last_refresh = Some(*call),
            _ => {}
        }
    }
    for call in &events.calls {
        match call.about {
            About::Session(number) if call.kind == Kind::Logout => revoke(&mut sessions[number], call),
            // A used token that arrives after the grace, now or later, ends its session.
            About::Session(number) if call.kind == Kind::Refresh && call.good_until != NEVER => {
                if call.answer.is_in_doubt() || call.answer.is_no() && call.ended > call.good_until {
                    sessions[number].may_end = sessions[number].may_end.min(call.sent);
                }
            }
            About::Session(_) => {}
            About::Other { session, .. } => revoke(&mut sessions[session], call),
            About::User { user, by, keeps } => {
                let of_user = sessions.iter_mut().enumerate().filter(|(_, session)| session.user == user);
                of_user
                    .filter(|(number, _)| !(keeps && *number == by))
                    .for_each(|(_, session)| revoke(session, call));
            }
        }
    }
    sessions
}

/// Applies `call`, which was to end the session or all sessions of its user.
fn revoke(session: &mut Session, call: &Call) {
    let Some(login) = session.login else { return };
    if is_refused(call) {
        return;
    }
    // A login with a password that is then changed came before the change, which ends the session.
    let with_the_old_one = changes_password(call) && login.password <= call.password;
    // A call without a response may still be on its way to the database.
    if login.sent < call.ended || call.answer.is_in_doubt() || with_the_old_one {
        session.may_end = session.may_end.min(call.sent);
    }
    let began_before = login.ended < call.sent || with_the_old_one;
    let first = session.end.is_none_or(|end| call.ended < end.ended);
    if call.answer.is_yes() && began_before && first {
        session.end = Some(*call);
    }
}

/// Whether no password up to the one that the call presented is right afterwards.
fn changes_password(call: &Call) -> bool {
    matches!(call.kind, Kind::ChangePassword | Kind::ResetPassword | Kind::DeleteAccount)
}

/// Whether a login that is under way may be refused.
fn changes_credentials(call: &Call) -> bool {
    changes_password(call) || call.kind == Kind::ChangeFactor
}

/// Whether the call was refused, so that it changed nothing.
fn is_refused(call: &Call) -> bool {
    call.answer.is_no() || call.answer.is_wrong_password() || is_outdated(call)
}

/// Whether the call was about a factor that another call has changed. Both are by the same session, or the other one has
/// ended the session.
fn is_outdated(call: &Call) -> bool {
    call.kind == Kind::ChangeFactor && call.answer.is_outdated()
}

fn is_strange(call: &Call) -> bool {
    match call.answer {
        _ if is_outdated(call) => false,
        Answer::Status(200) => false,
        // A token with a valid signature is accepted for logout, even if its session is dead.
        Answer::Status(401) => call.kind == Kind::Logout,
        _ => call.is_last || !call.answer.is_in_doubt(),
    }
}

impl Call {
    /// The session whose token the call presented, or that it began.
    pub fn session(&self) -> usize {
        match self.about {
            About::Session(session) | About::Other { by: session, .. } | About::User { by: session, .. } => {
                session
            }
        }
    }

    /// The user whose sessions the call was to end.
    fn user(&self) -> Option<usize> {
        match self.about {
            About::User { user, .. } => Some(user),
            About::Session(_) | About::Other { .. } => None,
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, instance, sent, ended, answer, .. } = self;
        let (sent, ended) = (sent.as_secs_f64(), ended.as_secs_f64());
        write!(f, "{kind:?} at instance {instance}, sent {sent:.6} s, ended {ended:.6} s: {answer}")?;
        if let Some((instances, acknowledged)) = self.counts {
            write!(f, " ({acknowledged} of {instances} acknowledged)")?;
        }
        if let Some(number) = self.password {
            write!(f, " (with password {number})")?;
        }
        match self.about {
            About::Session(_) => Ok(()),
            About::Other { session, by } => write!(f, " (for session {session}, asked for by session {by})"),
            About::User { by, keeps, .. } => {
                write!(f, " (asked for by session {by}{})", if keeps { ", which is kept" } else { "" })
            }
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::None => f.write_str("no answer"),
            Self::HungUp => f.write_str("hung up"),
        }
    }
}
