//! Tests of the checker with small, invented histories.

use crate::faults::{
    checker::{
        Breach::{self, Expired, Lost, Refused, Revived, Strange, Untrue},
        check,
    },
    history::{
        About, Answer, At, Call, Events,
        Kind::{
            self, ChangeFactor, ChangePassword, DeleteAccount, Login, Logout, LogoutEverywhere, Me, Refresh,
            ResetPassword, RevokeSession,
        },
        NEVER,
    },
};

fn ms(count: u64) -> At {
    At::from_millis(count)
}

/// A call about session 0 that took `times`, in milliseconds.
fn call(kind: Kind, times: std::ops::Range<u64>, status: u16) -> Call {
    Call {
        kind,
        about: About::Session(0),
        instance: 1,
        sent: ms(times.start),
        ended: ms(times.end),
        answer: Answer::Status(status),
        password: None,
        good_until: NEVER,
        bad_from: NEVER,
        counts: None,
        is_last: false,
    }
}

fn everywhere(times: std::ops::Range<u64>, status: u16, keeps: bool) -> Call {
    Call { about: About::User { user: 0, by: 0, keeps }, ..call(LogoutEverywhere, times, status) }
}

/// A call by session 0 that ends session 1.
fn revoke_other(times: std::ops::Range<u64>, status: u16) -> Call {
    Call { about: About::Other { session: 1, by: 0 }, ..call(RevokeSession, times, status) }
}

/// A call by session 0 that sets the password number `number + 1`.
fn change(number: usize, times: std::ops::Range<u64>, status: u16) -> Call {
    let about = About::User { user: 0, by: 0, keeps: true };
    Call { about, password: Some(number), ..call(ChangePassword, times, status) }
}

/// A reset that sets the password number `number + 1`, or the deletion of the account with that number.
fn reset_or_delete(kind: Kind, number: usize, times: std::ops::Range<u64>, status: u16) -> Call {
    Call { kind, about: About::User { user: 0, by: 0, keeps: false }, ..change(number, times, status) }
}

/// A login as session 1 with this password.
fn login_with(number: usize, times: std::ops::Range<u64>, status: u16) -> Call {
    Call { password: Some(number), ..of_session(1, call(Login, times, status)) }
}

fn of_session(session: usize, call: Call) -> Call {
    Call { about: About::Session(session), ..call }
}

fn last(call: Call) -> Call {
    Call { is_last: true, ..call }
}

fn breaches(calls: &[Call]) -> Vec<Breach> {
    let login = crate::faults::history::Login { user: 0, in_doubt: false };
    let events = Events { calls: calls.to_vec(), logins: vec![login; 2], ..Events::default() };
    check(&events).violations.iter().map(|violation| violation.breach).collect()
}

#[test]
fn correct_history_has_no_violation() {
    let calls = [
        call(Login, 0..10, 200),
        of_session(1, call(Login, 5..12, 200)),
        call(Me, 11..15, 200),
        call(Me, 12..22, 503),
        call(Refresh, 15..20, 200),
        call(Logout, 30..40, 503),
        call(Me, 31..35, 401),
        call(Logout, 50..60, 200),
        call(Me, 59..65, 200),
        call(Me, 61..65, 401),
        call(Refresh, 61..65, 401),
        call(Logout, 70..80, 200),
        of_session(1, last(call(Refresh, 90..95, 200))),
    ];
    assert_eq!(breaches(&calls), []);
}

#[test]
fn call_after_an_acknowledged_revocation_must_not_succeed() {
    for kind in [Me, Refresh, RevokeSession, LogoutEverywhere, ChangePassword] {
        let revoked = [call(Login, 0..10, 200), call(Logout, 20..30, 200)];
        assert_eq!(
            breaches(&[&revoked[..], &[call(kind, 29..40, 200)]].concat()),
            [],
            "{kind:?}: it was under way"
        );
        assert_eq!(breaches(&[&revoked[..], &[call(kind, 31..40, 200)]].concat()), [Revived], "{kind:?}");
    }
}

#[test]
fn reset_and_deletion_end_the_session_and_the_old_password() {
    for kind in [ResetPassword, DeleteAccount] {
        let login = Call { password: Some(0), ..call(Login, 0..10, 200) };
        let ended = [login, reset_or_delete(kind, 1000, 20..30, 200)];
        let with = |calls: &[Call]| breaches(&[&ended[..], calls].concat());
        assert_eq!(with(&[call(Me, 31..40, 401), login_with(0, 31..40, 401)]), [], "{kind:?}");
        assert_eq!(with(&[call(Me, 31..40, 200)]), [Revived], "{kind:?}");
        assert_eq!(with(&[login_with(0, 31..40, 200)]), [Revived], "{kind:?}");
        assert_eq!(with(&[login_with(1001, 31..40, 401)]), [Refused], "{kind:?}");
        let refused = [login, reset_or_delete(kind, 1000, 20..30, 401), login_with(0, 31..40, 401)];
        // A deletion that is refused was asked for by a live session, too.
        let expected: &[_] = if kind == ResetPassword { &[Lost, Refused] } else { &[Lost, Refused, Refused] };
        assert_eq!(breaches(&refused), expected, "{kind:?}: what was refused has changed nothing");
    }
    // It comes from no session, so a dead one does not matter.
    let calls = [
        call(Login, 0..10, 200),
        call(Logout, 20..30, 200),
        reset_or_delete(ResetPassword, 1000, 40..50, 200),
    ];
    assert_eq!(breaches(&calls), []);
}

#[test]
fn change_of_a_factor_ends_the_others_and_no_password() {
    let factor = |times, status| Call {
        about: About::User { user: 0, by: 0, keeps: true },
        ..call(ChangeFactor, times, status)
    };
    let logins = [call(Login, 0..10, 200), of_session(1, call(Login, 0..10, 200))];
    let with = |calls: &[Call]| breaches(&[&logins[..], calls, &[last(call(Refresh, 90..95, 200))]].concat());
    let changed = factor(20..30, 200);
    assert_eq!(with(&[changed, of_session(1, call(Me, 31..40, 401)), call(Me, 31..40, 200)]), []);
    assert_eq!(with(&[changed, of_session(1, call(Me, 31..40, 200))]), [Revived]);
    assert_eq!(with(&[changed, call(Me, 31..40, 401)]), [Refused], "the session that has changed it");
    // A login that has read the factors before is refused, and no later one.
    assert_eq!(with(&[changed, login_with(0, 25..40, 401)]), []);
    assert_eq!(with(&[changed, login_with(0, 31..40, 401)]), [Refused]);
    assert_eq!(with(&[factor(20..30, 503), login_with(0, 31..40, 401)]), []);
    // What has changed meanwhile is refused, and changes nothing.
    assert_eq!(with(&[factor(20..30, 409), login_with(0, 25..40, 401)]), [Lost, Refused]);
    assert_eq!(with(&[factor(20..30, 422), login_with(0, 25..40, 401)]), [Lost, Strange, Refused]);
}

#[test]
fn unacknowledged_revocation_allows_either_response() {
    for status in [200, 401] {
        let calls = [call(Login, 0..10, 200), call(Logout, 20..30, 503), call(Me, 31..40, status)];
        assert_eq!(breaches(&calls), [], "{status}");
    }
}

#[test]
fn the_first_acknowledgement_counts() {
    let calls = [
        call(Login, 0..10, 200),
        call(Logout, 20..90, 200),
        call(Logout, 30..40, 200),
        call(Me, 50..60, 200),
    ];
    assert_eq!(breaches(&calls), [Revived]);
}

#[test]
fn a_live_session_must_not_be_refused() {
    let keep = last(call(Refresh, 90..95, 200));
    let login = call(Login, 0..10, 200);
    assert_eq!(breaches(&[login, call(Me, 20..30, 401), keep]), [Refused]);
    assert_eq!(breaches(&[login, call(Refresh, 20..30, 401), keep]), [Refused]);
    let later = call(Logout, 31..40, 200);
    assert_eq!(breaches(&[login, call(Me, 20..30, 401), later]), [Refused], "the revocation came later");
    let meanwhile = call(Logout, 25..40, 503);
    assert_eq!(breaches(&[login, call(Me, 20..30, 401), meanwhile]), [], "it may have been revoked by then");
    let expired = Call { good_until: ms(29), ..call(Me, 20..30, 401) };
    assert_eq!(breaches(&[login, expired, keep]), [], "the token may have expired");
}

#[test]
fn an_acknowledged_session_must_not_be_lost() {
    let login = call(Login, 0..10, 200);
    assert_eq!(breaches(&[login]), [Lost], "it has to be asked for");
    assert_eq!(breaches(&[login, last(call(Refresh, 90..95, 401))]), [Refused, Lost]);
    assert_eq!(breaches(&[login, last(call(Refresh, 90..95, 503))]), [Strange, Lost]);
    assert_eq!(breaches(&[login, last(call(Refresh, 90..95, 200))]), []);
    assert_eq!(breaches(&[call(Login, 0..10, 503)]), [], "it was never acknowledged");
    let in_doubt = crate::faults::history::Login { user: 0, in_doubt: true };
    let verdict = check(&Events { calls: vec![login], logins: vec![in_doubt], ..Events::default() });
    assert!(verdict.violations.is_empty() && verdict.left_out == 1);
}

#[test]
fn logout_everywhere_ends_sessions_that_began_before() {
    let login = call(Login, 0..10, 200);
    let other = |times, status| of_session(1, call(Me, times, status));
    let before = of_session(1, call(Login, 11..12, 200));
    assert_eq!(breaches(&[login, before, everywhere(20..30, 200, false), other(31..40, 200)]), [Revived]);
    assert_eq!(breaches(&[login, before, everywhere(20..30, 503, false), other(31..40, 200)]), []);

    let during = of_session(1, call(Login, 15..25, 200));
    for status in [200, 401] {
        let calls = [login, during, everywhere(20..30, 200, false), other(31..40, status)];
        assert_eq!(breaches(&calls), [], "begun meanwhile, it may have ended or not: {status}");
    }

    let after = of_session(1, call(Login, 31..32, 200));
    let keep = of_session(1, last(call(Refresh, 90..95, 200)));
    assert_eq!(
        breaches(&[login, after, everywhere(20..30, 200, false), other(40..50, 401), keep]),
        [Refused]
    );
    let unanswered = everywhere(20..30, 503, false);
    assert_eq!(breaches(&[login, after, unanswered, other(40..50, 401)]), [], "it may have come late");
}

#[test]
fn kept_session_stays_live() {
    let begun =
        [call(Login, 0..10, 200), of_session(1, call(Login, 0..10, 200)), everywhere(20..30, 200, true)];
    let keep = last(call(Refresh, 90..95, 200));
    assert_eq!(breaches(&[&begun[..], &[call(Me, 31..40, 200), keep]].concat()), []);
    assert_eq!(breaches(&[&begun[..], &[call(Me, 31..40, 401), keep]].concat()), [Refused]);
    assert_eq!(breaches(&[&begun[..], &[of_session(1, call(Me, 31..40, 200)), keep]].concat()), [Revived]);
}

#[test]
fn session_ended_by_another_session_is_dead() {
    let begun = [call(Login, 0..10, 200), of_session(1, call(Login, 5..12, 200))];
    let keep = last(call(Refresh, 90..95, 200));
    let after = |revoking, sent: u64, status| {
        let other = of_session(1, call(Me, sent..sent + 9, status));
        breaches(&[&begun[..], &[revoking, other, keep]].concat())
    };
    assert_eq!(after(revoke_other(20..30, 200), 31, 200), [Revived]);
    assert_eq!(after(revoke_other(20..30, 200), 31, 401), []);
    assert_eq!(after(revoke_other(20..30, 200), 29, 200), [], "it was under way");
    for status in [200, 401] {
        assert_eq!(after(revoke_other(20..30, 503), 31, status), [], "nobody knows: {status}");
    }
    let by = call(Me, 31..40, 401);
    let calls = [&begun[..], &[revoke_other(20..30, 200), by, keep]].concat();
    assert_eq!(breaches(&calls), [Refused], "the one that asked lives on");

    let ended = call(Logout, 13..15, 200);
    let kept = of_session(1, last(call(Refresh, 90..95, 200)));
    let calls = |other| [&begun[..], &[ended, revoke_other(20..30, 401), other, kept]].concat();
    assert_eq!(breaches(&calls(of_session(1, call(Me, 31..40, 200)))), [], "it was refused");
    assert_eq!(breaches(&calls(of_session(1, call(Me, 31..40, 401)))), [Refused], "it ended nothing");
}

#[test]
fn changing_the_password_ends_all_other_sessions() {
    let begun = [call(Login, 0..10, 200), of_session(1, call(Login, 5..12, 200))];
    let keep = last(call(Refresh, 90..95, 200));
    let after = |change, call| breaches(&[&begun[..], &[change, call, keep]].concat());
    let other = |status| of_session(1, call(Me, 31..40, status));
    assert_eq!(after(change(0, 20..30, 200), other(200)), [Revived]);
    assert_eq!(after(change(0, 20..30, 200), other(401)), []);
    assert_eq!(after(change(0, 20..30, 200), call(Me, 31..40, 401)), [Refused], "the current one is kept");
    for status in [200, 401] {
        assert_eq!(after(change(0, 20..30, 503), other(status)), [], "nobody knows: {status}");
    }
    for times in [15..25, 25..35] {
        let calls = |status| {
            let begun = login_with(0, times.clone(), 200);
            let other = of_session(1, call(Me, 41..50, status));
            breaches(&[call(Login, 0..10, 200), change(0, 20..30, 200), begun, other, keep])
        };
        assert_eq!(calls(401), [], "begun meanwhile with the old password, it has ended");
        assert_eq!(calls(200), [Revived], "begun meanwhile with the old password, it must have ended");
    }
    let begun_later = [call(Login, 0..10, 200), change(0, 20..30, 200), login_with(1, 31..32, 200)];
    let other = of_session(1, call(Me, 33..40, 401));
    let kept = of_session(1, last(call(Refresh, 90..95, 200)));
    assert_eq!(breaches(&[&begun_later[..], &[other, keep, kept]].concat()), [Refused]);
}

#[test]
fn only_the_current_password_is_accepted() {
    let login = call(Login, 0..10, 200);
    let keep = last(call(Refresh, 90..95, 200));
    let kept = of_session(1, last(call(Refresh, 90..95, 200)));
    let after = |change, later| breaches(&[login, change, later, keep]);
    assert_eq!(after(change(0, 20..30, 200), login_with(0, 31..40, 200)), [Revived]);
    assert_eq!(after(change(0, 20..30, 200), login_with(0, 31..40, 401)), []);
    assert_eq!(breaches(&[login, change(0, 20..30, 200), login_with(1, 31..40, 200), keep, kept]), []);
    assert_eq!(after(change(0, 20..30, 200), login_with(1, 31..40, 401)), [Refused]);
    assert_eq!(after(change(0, 31..40, 200), login_with(0, 20..30, 401)), [Refused], "it came later");
    assert_eq!(
        after(change(0, 20..30, 422), login_with(0, 31..40, 401)),
        [Refused, Refused],
        "it came to nothing"
    );
    for status in [200, 401] {
        assert_eq!(after(change(0, 20..30, 200), login_with(0, 29..40, status)), [], "{status}: meanwhile");
        assert_eq!(after(change(0, 20..30, 503), login_with(0, 31..40, status)), [], "{status}: in doubt");
    }
    let again = change(0, 31..40, 422);
    assert_eq!(after(change(0, 20..30, 200), again), [], "it was the wrong one by then");
    assert_eq!(after(change(0, 20..30, 200), change(0, 31..40, 200)), [Revived]);
    assert_eq!(after(change(0, 20..30, 200), change(1, 31..40, 422)), [Refused]);
    let everywhere = |status| Call { password: Some(0), ..everywhere(31..40, status, true) };
    assert_eq!(after(change(0, 20..30, 200), everywhere(422)), []);
    assert_eq!(after(change(0, 20..30, 200), everywhere(200)), [Revived]);
    assert_eq!(breaches(&[login, everywhere(422), keep]), [Refused]);
}

#[test]
fn abandoned_call_may_or_may_not_have_taken_effect() {
    let login = call(Login, 0..10, 200);
    let keep = last(call(Refresh, 90..95, 200));
    let hung_up = |kind| Call { answer: Answer::HungUp, ..call(kind, 20..30, 0) };
    for status in [200, 401] {
        assert_eq!(breaches(&[login, hung_up(Logout), call(Me, 31..40, status)]), [], "{status}");
        assert_eq!(breaches(&[login, hung_up(Logout), call(Me, 60..70, status)]), [], "{status}: or later");
    }
    let acknowledged = call(Logout, 40..50, 200);
    assert_eq!(breaches(&[login, hung_up(Logout), acknowledged, call(Me, 60..70, 200)]), [Revived]);
    for kind in [Me, Refresh, Login] {
        assert_eq!(breaches(&[login, hung_up(kind), call(Me, 31..40, 401), keep]), [Refused], "{kind:?}");
    }
    let no_session = Call { answer: Answer::HungUp, ..call(Login, 0..10, 0) };
    assert_eq!(breaches(&[no_session]), [], "nobody knows of it");
    let in_vain = Call { answer: Answer::HungUp, ..change(0, 20..30, 0) };
    let kept = of_session(1, last(call(Refresh, 90..95, 200)));
    for status in [200, 401] {
        assert_eq!(breaches(&[login, in_vain, login_with(0, 31..40, status), keep, kept]), [], "{status}");
    }
}

#[test]
fn repeated_refresh_must_succeed_within_the_grace() {
    let login = call(Login, 0..10, 200);
    let again = |times, status| Call { good_until: ms(50), ..call(Refresh, times, status) };
    let keep = last(call(Refresh, 90..95, 200));
    assert_eq!(breaches(&[login, again(30..40, 401), keep]), [Refused]);
    assert_eq!(breaches(&[login, again(30..60, 401), call(Me, 70..80, 401)]), [], "the grace was over");
    assert_eq!(
        breaches(&[login, again(30..40, 503), call(Me, 70..80, 401)]),
        [],
        "it may have come too late"
    );
    assert_eq!(breaches(&[login, again(30..40, 200), call(Me, 70..80, 401), keep]), [Refused]);
}

#[test]
fn expired_token_must_be_refused() {
    let login = call(Login, 0..10, 200);
    let keep = last(call(Refresh, 90..95, 200));
    let old = |times, status| Call { good_until: ms(20), bad_from: ms(30), ..call(Me, times, status) };
    assert_eq!(breaches(&[login, old(31..40, 200), keep]), [Expired]);
    assert_eq!(breaches(&[login, old(29..40, 200), keep]), [], "it was sent before");
    for status in [401, 503] {
        assert_eq!(breaches(&[login, old(31..40, status), keep]), [], "{status}");
    }
}

#[test]
fn acknowledgement_counts_must_be_true() {
    let begun = [call(Login, 0..10, 200)];
    let counted = |instances, acknowledged| {
        let logout = Call { counts: Some((instances, acknowledged)), ..call(Logout, 20..30, 200) };
        [&begun[..], &[logout]].concat()
    };
    for (instances, acknowledged) in [(3, 3), (3, 1), (1, 1), (4, 4)] {
        assert_eq!(breaches(&counted(instances, acknowledged)), [], "{instances}, {acknowledged}");
    }
    for (instances, acknowledged) in [(2, 3), (0, 0)] {
        assert_eq!(breaches(&counted(instances, acknowledged)), [Untrue], "{instances}, {acknowledged}");
    }
    let login = crate::faults::history::Login { user: 0, in_doubt: false };
    let calm = vec![(ms(15), ms(40), 3)];
    let untrue = |calls| check(&Events { calls, logins: vec![login], calm: calm.clone() }).violations.len();
    assert_eq!(untrue(counted(3, 3)), 0);
    assert_eq!(untrue(counted(4, 4)), 1, "there were three");
}

#[test]
fn responses_outside_the_contract_are_violations() {
    let login = call(Login, 0..10, 200);
    let out = call(Logout, 80..85, 200);
    assert_eq!(breaches(&[login, call(Me, 20..30, 500), out]), [Strange]);
    assert_eq!(breaches(&[login, call(Me, 20..30, 403), out]), [Strange]);
    assert_eq!(breaches(&[login, call(Me, 20..30, 422), out]), [Strange]);
    assert_eq!(breaches(&[login, revoke_other(20..30, 404), out]), [Strange]);
    assert_eq!(breaches(&[login_with(0, 0..10, 403)]), [Strange]);
    assert_eq!(breaches(&[login, call(Logout, 20..30, 401), out]), [Strange]);
    let no_answer = Call { answer: Answer::None, ..call(Me, 20..30, 0) };
    assert_eq!(breaches(&[login, no_answer, out]), []);
    assert_eq!(breaches(&[login, last(no_answer), out]), [Strange], "all is healed");
}
