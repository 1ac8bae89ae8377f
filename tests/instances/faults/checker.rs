//! Holds a history against the guarantees. It knows the client's clock and what the client was
//! told, and nothing of the server's insides.

use std::fmt;

use crate::faults::history::{About, Answer, At, Call, Events, Kind, NEVER};

/// A guarantee that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    /// A token was accepted by a call that was sent after a revocation of its session had been
    /// answered with 2xx; or a password that was sent after a change of it had been.
    Revived,
    /// A live token, or a user's password, was refused.
    Refused,
    /// A session that nobody ended cannot be refreshed when all is healed.
    Lost,
    /// An answer that the contract does not know, or a 503 when all is healed.
    Strange,
    /// A token was accepted that had expired.
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
    /// In the order of the calls.
    pub violations: Vec<Violation>,
    /// Sessions that may have been lost: nobody could tell.
    pub left_out: usize,
}

#[derive(Debug)]
pub struct Violation {
    pub breach: Breach,
    /// When the call ended that broke the guarantee.
    pub at: At,
    /// The calls involved.
    pub story: String,
}

/// What a session went through.
#[derive(Clone, Copy)]
struct Session {
    user: usize,
    login: Option<Call>,
    /// When the first call was sent that may have ended it.
    may_end: At,
    /// Of the calls that ended it for certain, and said so, the first that had been answered.
    end: Option<Call>,
    /// Its refresh when all is healed.
    last_refresh: Option<Call>,
}

/// Everything in it that must not have happened.
pub fn check(events: &Events) -> Verdict {
    let sessions = sessions(events);
    let changes: Vec<_> =
        events.calls.iter().copied().filter(|call| call.kind == Kind::ChangePassword).collect();
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
        let needs_live = !matches!(call.kind, Kind::Login | Kind::Logout);
        let running = events.calm.iter().find(|(from, to, _)| *from <= call.sent && call.ended <= *to);
        let running = running.map_or(u64::MAX, |(_, _, running)| *running);
        let is_true =
            |(instances, acknowledged)| acknowledged <= instances && (1..=running).contains(&instances);
        let password = call.password.map(|_| password(call, session.user, &changes));
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

/// What a user's password was when a call presented it.
#[derive(Clone, Copy)]
enum Password {
    Right,
    /// A change of it was under way, or came to nobody knows what.
    InDoubt,
    /// By this call, for certain, and no password is set twice.
    Replaced(Call),
}

fn password(call: &Call, user: usize, changes: &[Call]) -> Password {
    let later = || {
        let of_user = changes.iter().filter(move |change| change.user() == Some(user));
        of_user.filter(|change| change.password >= call.password && !is_refused(change))
    };
    let replaced = later().find(|change| change.answer.is_yes() && change.ended < call.sent);
    match replaced {
        Some(change) => Password::Replaced(*change),
        None if later().any(|change| change.sent < call.ended) => Password::InDoubt,
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
            // A used token that came back too late, or may do so yet, ends its session.
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

/// Takes in that `call` was there to end the session, or all that its user had.
fn revoke(session: &mut Session, call: &Call) {
    let Some(login) = session.login else { return };
    if is_refused(call) {
        return;
    }
    // Whoever got in with a password that is then changed got in before that, and is out after it.
    let with_the_old_one = call.kind == Kind::ChangePassword && login.password <= call.password;
    // What was not answered may still be under way to the database.
    if login.sent < call.ended || call.answer.is_in_doubt() || with_the_old_one {
        session.may_end = session.may_end.min(call.sent);
    }
    let began_before = login.ended < call.sent || with_the_old_one;
    let first = session.end.is_none_or(|end| call.ended < end.ended);
    if call.answer.is_yes() && began_before && first {
        session.end = Some(*call);
    }
}

/// Whether it changed nothing, and said so.
fn is_refused(call: &Call) -> bool {
    call.answer.is_no() || call.answer.is_wrong_password()
}

fn is_strange(call: &Call) -> bool {
    match call.answer {
        Answer::Status(200) => false,
        // A token that was signed for the caller, be its session alive or not.
        Answer::Status(401) => call.kind == Kind::Logout,
        _ => call.is_last || !call.answer.is_in_doubt(),
    }
}

impl Call {
    /// The session whose token it presented, or began.
    pub fn session(&self) -> usize {
        match self.about {
            About::Session(session) | About::Other { by: session, .. } | About::User { by: session, .. } => {
                session
            }
        }
    }

    /// Whose sessions it was to end.
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
