//! The cost of each fault, as a table.

use std::{fmt, time::Duration};

use crate::faults::{
    checker::{Breach, Violation},
    history::{Answer, At, Call, Events, Kind},
};

/// The time from the start of a fault to the start of the next one. A call belongs to the window in which it
/// ends.
pub struct Window {
    pub fault: String,
    /// Whether logins and logouts have to succeed.
    pub must_not_be_felt: bool,
    pub from: At,
}

#[derive(Default)]
pub struct Row {
    fault: String,
    /// The number of times that the fault was injected.
    times: usize,
    calls: usize,
    /// Calls that were not waited for.
    hung_up: usize,
    /// Revocations that were answered with 2xx.
    acknowledged: usize,
    /// Revocations that were answered with 503 or not at all.
    unavailable: usize,
    revived: usize,
    refused: usize,
    lost: usize,
    /// Responses outside the contract, accepted tokens that had expired, and untrue counts.
    strange: usize,
    /// The longest time in which an instance answered no revocation with 2xx although there were some.
    longest_refusal: Duration,
    /// The longest time in which an instance answered no protected call with 2xx although a live session made
    /// some.
    longest_unavailability: Duration,
    /// Logins and logouts without a response although the fault must not be felt.
    pub felt: Vec<Call>,
}

/// The rows, one for each fault, in the order of their first injection.
pub fn rows(windows: &[Window], events: &Events, violations: &[Violation]) -> Vec<Row> {
    let ends = windows.iter().skip(1).map(|window| window.from).chain([At::MAX]);
    let mut rows: Vec<Row> = Vec::new();
    let mut calls: Vec<_> = events.calls.iter().collect();
    calls.sort_by_key(|call| call.ended);
    for (window, end) in windows.iter().zip(ends) {
        let place = |at: At| calls.partition_point(|call| call.ended < at);
        let row = row(window, end, &calls[place(window.from)..place(end)], violations);
        match rows.iter_mut().find(|other| other.fault == row.fault) {
            Some(sum) => sum.add(row),
            None => rows.push(row),
        }
    }
    rows
}

impl Row {
    fn add(&mut self, other: Self) {
        self.times += other.times;
        self.calls += other.calls;
        self.hung_up += other.hung_up;
        self.acknowledged += other.acknowledged;
        self.unavailable += other.unavailable;
        self.revived += other.revived;
        self.refused += other.refused;
        self.lost += other.lost;
        self.strange += other.strange;
        self.longest_refusal = self.longest_refusal.max(other.longest_refusal);
        self.longest_unavailability = self.longest_unavailability.max(other.longest_unavailability);
        self.felt.extend(other.felt);
    }
}

fn row(window: &Window, end: At, calls: &[&Call], violations: &[Violation]) -> Row {
    let is_inside = |at: At| (window.from..end).contains(&at);
    let count = |is_counted: fn(&Call) -> bool| calls.iter().filter(|call| is_counted(call)).count();
    let breaches = |breach| {
        violations.iter().filter(|violation| violation.breach == breach && is_inside(violation.at)).count()
    };
    let is_felt = |call: &Call| {
        let matters = call.kind == Kind::Login || is_revocation(call);
        window.must_not_be_felt && matters && call.answer.is_unavailable()
    };
    let is_me = |call: &Call| call.kind == Kind::Me && !call.answer.is_no();
    Row {
        fault: window.fault.clone(),
        times: 1,
        calls: calls.len(),
        hung_up: count(|call| call.answer == Answer::HungUp),
        acknowledged: count(|call| is_revocation(call) && call.answer.is_yes()),
        unavailable: count(|call| is_revocation(call) && call.answer.is_unavailable()),
        revived: breaches(Breach::Revived),
        refused: breaches(Breach::Refused),
        lost: breaches(Breach::Lost),
        strange: breaches(Breach::Strange) + breaches(Breach::Expired) + breaches(Breach::Untrue),
        longest_refusal: longest_stretch(calls, is_revocation, false),
        longest_unavailability: longest_stretch(calls, is_me, true),
        felt: calls.iter().filter(|call| is_felt(call)).map(|call| **call).collect(),
    }
}

fn is_revocation(call: &Call) -> bool {
    matches!(
        call.kind,
        Kind::Logout
            | Kind::RevokeSession
            | Kind::LogoutEverywhere
            | Kind::ChangePassword
            | Kind::ResetPassword
            | Kind::DeleteAccount
            | Kind::ChangeFactor
    )
}

/// The longest time from the sending of a call that got no 2xx to the next 2xx of the same instance. With
/// `waiting_counts`, the time until a late response counts as well.
fn longest_stretch(calls: &[&Call], is_meant: impl Fn(&Call) -> bool, waiting_counts: bool) -> Duration {
    let is_waited_for = |call: &&&Call| call.answer != Answer::HungUp && is_meant(call);
    let mut calls: Vec<_> = calls.iter().filter(is_waited_for).collect();
    calls.sort_by_key(|call| call.ended);
    let instances = calls.iter().map(|call| call.instance + 1).max().unwrap_or(0);
    let mut without_yes_since: Vec<Option<At>> = vec![None; instances];
    let mut longest = Duration::ZERO;
    for call in calls {
        let since = &mut without_yes_since[call.instance];
        if waiting_counts || call.answer.is_unavailable() {
            *since = Some(since.map_or(call.sent, |since| since.min(call.sent)));
        }
        longest = longest.max(since.map_or(Duration::ZERO, |since| call.ended - since));
        if call.answer.is_yes() {
            *since = None;
        }
    }
    longest
}

/// The rows, with a header.
pub struct Table<'a>(pub &'a [Row]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:52} {:>5} {:>7} {:>7} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9}",
            "", "", "", "hung", "revoked", "revoked", "2xx once", "401", "", "", "longest", "longest"
        )?;
        writeln!(
            f,
            "{:52} {:>5} {:>7} {:>7} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9}",
            "fault",
            "times",
            "calls",
            "up",
            "2xx",
            "503",
            "revoked",
            "if live",
            "lost",
            "strange",
            "refusal",
            "outage"
        )?;
        for row in self.0 {
            writeln!(
                f,
                "{:52} {:>5} {:>7} {:>7} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7.2} s {:>7.2} s",
                row.fault,
                row.times,
                row.calls,
                row.hung_up,
                row.acknowledged,
                row.unavailable,
                row.revived,
                row.refused,
                row.lost,
                row.strange,
                row.longest_refusal.as_secs_f64(),
                row.longest_unavailability.as_secs_f64(),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::history::{About, NEVER};

    fn call(kind: Kind, instance: usize, times: std::ops::Range<u64>, status: u16) -> Call {
        Call {
            kind,
            about: About::Session(0),
            instance,
            sent: At::from_millis(times.start),
            ended: At::from_millis(times.end),
            answer: Answer::Status(status),
            password: None,
            good_until: NEVER,
            bad_from: NEVER,
            counts: None,
            is_last: false,
        }
    }

    #[test]
    fn outage_ends_with_the_next_success_at_the_same_instance() {
        let calls = [
            call(Kind::Logout, 0, 10..20, 503),
            call(Kind::Logout, 1, 12..22, 200),
            call(Kind::Logout, 0, 30..35, 503),
            call(Kind::Logout, 0, 40..50, 200),
            call(Kind::Logout, 0, 60..65, 503),
        ];
        let calls: Vec<_> = calls.iter().collect();
        assert_eq!(longest_stretch(&calls, is_revocation, false), Duration::from_millis(40));
    }

    #[test]
    fn response_time_counts_as_outage_only_if_asked_for() {
        let calls = [call(Kind::Me, 0, 10..40, 200), call(Kind::Me, 0, 41..45, 200)];
        let calls: Vec<_> = calls.iter().collect();
        assert_eq!(longest_stretch(&calls, |_| true, true), Duration::from_millis(30));
        assert_eq!(longest_stretch(&calls, |_| true, false), Duration::ZERO);
    }

    #[test]
    fn abandoned_call_does_not_count_as_outage() {
        let hung_up = Call { answer: Answer::HungUp, ..call(Kind::Me, 0, 10..40, 0) };
        assert_eq!(longest_stretch(&[&hung_up], |_| true, true), Duration::ZERO);
        assert_eq!(longest_stretch(&[&hung_up], |_| true, false), Duration::ZERO);
    }

    #[test]
    fn windows_of_the_same_fault_share_a_row() {
        let windows = [("one", 0), ("other", 100), ("one", 200)].map(|(fault, from)| Window {
            fault: fault.to_owned(),
            must_not_be_felt: false,
            from: At::from_millis(from),
        });
        let calls = vec![call(Kind::Logout, 0, 240..250, 200), call(Kind::Logout, 0, 10..20, 200)];
        let rows = rows(&windows, &Events { calls, ..Events::default() }, &[]);
        assert_eq!((rows.len(), rows[0].times, rows[0].acknowledged), (2, 2, 2));
    }

    #[test]
    fn call_belongs_to_the_window_in_which_it_ended() {
        let windows = [("before", 0), ("after", 100)].map(|(fault, from)| Window {
            fault: fault.to_owned(),
            must_not_be_felt: fault == "before",
            from: At::from_millis(from),
        });
        let calls = vec![call(Kind::Logout, 0, 90..99, 200), call(Kind::Logout, 0, 95..110, 503)];
        let rows = rows(&windows, &Events { calls, ..Events::default() }, &[]);
        assert_eq!((rows[0].acknowledged, rows[0].unavailable, rows[0].felt.len()), (1, 0, 0));
        assert_eq!((rows[1].acknowledged, rows[1].unavailable, rows[1].felt.len()), (0, 1, 0));
    }
}
