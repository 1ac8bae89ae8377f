//! Writers: tasks that begin, refresh and end sessions.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::time;

use crate::{
    faults::{caller::Caller, history::Answer, load::Load, refresher::refresh, sessions::Session},
    support::mails::token_to,
};

/// The usual number of live sessions.
const LIVE: usize = 45;
/// The number of sessions that are never ended.
const KEPT: usize = 15;

/// More than a user's password is changed between two resets.
const PASSWORDS_BETWEEN_RESETS: usize = 1000;

/// How long a mail is waited for. While the database is faulty, none is sent.
const MAIL_TIMEOUT: Duration = Duration::from_secs(10);

struct Writer {
    load: Arc<Load>,
    caller: Arc<Caller>,
    rng: Rng,
}

/// Runs until the load is over.
pub async fn work(load: Arc<Load>, caller: Arc<Caller>, rng: Rng) {
    let mut writer = Writer { load, caller, rng };
    while !writer.load.is_over() {
        writer.step().await;
        let milliseconds = writer.rng.u64(10..60);
        writer.load.pause(milliseconds).await;
    }
}

impl Writer {
    async fn step(&mut self) {
        let (live, ending) = {
            let lists = self.load.sessions.lists();
            (lists.live.len(), self.rng.choice(&lists.ending).cloned())
        };
        match ending {
            Some(session) if self.rng.bool() => return self.end(&session).await,
            _ => {}
        }
        match self.rng.u8(..24) {
            _ if self.load.users.are_too_few() => self.register().await,
            _ if live < LIVE / 2 => self.log_in().await,
            0..5 if live < LIVE => self.log_in().await,
            0..5 => self.end_one().await,
            5..12 => self.refresh_one().await,
            12..14 => self.end_one().await,
            15..17 => self.race().await,
            17..19 => self.come_and_go().await,
            19 => self.end_all_of_a_user().await,
            14 | 20 => self.end_from_another().await,
            21 => self.reset_password().await,
            22 if self.rng.bool() => self.delete_account().await,
            22 => self.change_factors().await,
            _ => self.change_password().await,
        }
    }

    async fn register(&mut self) {
        let user = self.load.users.new_number();
        let session = self.load.history.new_session(user);
        if let Ok(pair) = self.caller.register(session, user).await {
            self.load.sessions.begin(Session::new(session, user, pair));
            self.load.users.add(user);
        }
    }

    async fn log_in(&mut self) {
        let kept = self.load.sessions.lists().live.iter().filter(|session| self.is_kept(session)).count();
        let users = &self.load.users;
        let user = if kept < KEPT { users.any_quiet(&mut self.rng) } else { users.any_busy(&mut self.rng) };
        let Some(user) = user else { return };
        let session = self.load.history.new_session(user);
        if let Ok(pair) = self.caller.login(session, user, users.password(user)).await {
            self.load.sessions.begin(Session::new(session, user, pair));
        }
    }

    async fn refresh_one(&mut self) {
        if let Some(session) = self.load.sessions.to_refresh(self.load.history.now()) {
            refresh(&self.load, &self.caller, &session, false).await;
        }
    }

    async fn end_one(&mut self) {
        if let Some(session) = self.any_to_end() {
            self.end(&session).await;
        }
    }

    /// Logs out and refreshes at the same time. In whatever order the two are carried out, the new pair must
    /// be dead when the logout has been answered.
    async fn race(&mut self) {
        let Some(session) = self.any_to_end() else { return };
        let other = Arc::clone(&self.load.callers[self.rng.usize(..self.load.callers.len())]);
        self.load.sessions.set_ending(&session);
        let (load, racing) = (Arc::clone(&self.load), Arc::clone(&session));
        self.load.aside(async move { refresh(&load, &other, &racing, false).await });
        self.end(&session).await;
    }

    /// Logs in and soon out again, while every instance receives the token for the first time.
    async fn come_and_go(&mut self) {
        let Some(user) = self.load.users.any_busy(&mut self.rng) else { return };
        let number = self.load.history.new_session(user);
        let password = self.load.users.password(user);
        let Ok(pair) = self.caller.login(number, user, password).await else { return };
        let session = self.load.sessions.begin(Session::new(number, user, pair));
        for caller in &self.load.callers {
            let (caller, session) = (Arc::clone(caller), Arc::clone(&session));
            self.load.aside(async move {
                caller.me(session.number, &session.newest(), false).await;
            });
        }
        time::sleep(Duration::from_millis(self.rng.u64(..50))).await;
        self.end(&session).await;
    }

    async fn end(&mut self, session: &Arc<Session>) {
        self.load.sessions.set_ending(session);
        if self.caller.logout(session.number, &session.newest(), false).await.is_yes() {
            self.load.sessions.set_ended(session);
            self.try_in_vain(session);
        }
    }

    /// Ends a session on behalf of another session of the same user.
    async fn end_from_another(&mut self) {
        let Some(session) = self.any_to_end() else { return };
        let mut others = self.load.sessions.of_user(session.user);
        others.retain(|other| !Arc::ptr_eq(other, &session));
        let Some(by) = self.rng.choice(others) else { return };
        self.load.sessions.set_ending(&session);
        if self.caller.revoke_session(&session, &by).await.is_yes() {
            self.load.sessions.set_ended(&session);
            self.try_in_vain(&session);
        }
    }

    async fn end_all_of_a_user(&mut self) {
        let Some(by) = self.any_to_end() else { return };
        let keeps = self.rng.bool();
        let mut sessions = self.load.sessions.of_user(by.user);
        sessions.retain(|other| !(keeps && Arc::ptr_eq(other, &by)));
        let answer = self.caller.logout_everywhere(&by, keeps, self.load.users.password(by.user)).await;
        self.have_ended(by.user, &sessions, answer);
    }

    async fn change_password(&mut self) {
        let Some(by) = self.any_to_end() else { return };
        let mut sessions = self.load.sessions.of_user(by.user);
        sessions.retain(|other| !Arc::ptr_eq(other, &by));
        let old = self.load.users.password(by.user);
        let answer = self.caller.change_password(&by, old).await;
        if answer.is_yes() {
            self.load.users.set_password(by.user, old + 1);
            for caller in &self.load.callers {
                let (caller, load, user) = (Arc::clone(caller), Arc::clone(&self.load), by.user);
                self.load.aside(async move {
                    let _ = caller.login(load.history.new_session(user), user, old).await;
                });
            }
        }
        self.have_ended(by.user, &sessions, answer);
    }

    /// Adds a passkey, and removes one.
    async fn change_factors(&mut self) {
        let Some(by) = self.any_to_end() else { return };
        let password = self.load.users.password(by.user);
        for is_added in [true, false] {
            let mut sessions = self.load.sessions.of_user(by.user);
            sessions.retain(|other| !Arc::ptr_eq(other, &by));
            let answer = match is_added {
                true => self.caller.add_passkey(&by, password).await,
                false => self.caller.remove_passkey(&by, password).await,
            };
            let Some(answer) = answer else { return };
            self.have_ended(by.user, &sessions, answer);
            if !answer.is_yes() {
                return;
            }
        }
    }

    /// Resets the password of a user by the link in a mail.
    async fn reset_password(&mut self) {
        let Some(session) = self.any_to_end() else { return };
        let user = session.user;
        // No other writer changes the password meanwhile, so that each password has a number of its own.
        if !self.load.users.retire(user) {
            return;
        }
        let number = self.load.users.password(user) + PASSWORDS_BETWEEN_RESETS;
        self.caller.forgot_password(user).await;
        let Some(token) = token_to(&self.load.mails, &self.caller.email(user), "/reset", MAIL_TIMEOUT).await
        else {
            return self.load.users.add(user);
        };
        let sessions = self.load.sessions.of_user(user);
        let answer = self.caller.reset_password(&session, &token, number).await;
        if answer.is_yes() {
            self.load.users.set_password(user, number + 1);
            self.load.users.add(user);
            let old = number - PASSWORDS_BETWEEN_RESETS;
            for caller in &self.load.callers {
                let (caller, load, token) = (Arc::clone(caller), Arc::clone(&self.load), token.clone());
                let session = Arc::clone(&session);
                self.load.aside(async move {
                    let _ = caller.login(load.history.new_session(user), user, old).await;
                    // The link works once.
                    let again = caller.reset_password(&session, &token, number).await;
                    assert!(!again.is_yes(), "the token of a mail was accepted twice");
                });
            }
        }
        self.have_ended(user, &sessions, answer);
    }

    async fn delete_account(&mut self) {
        let Some(by) = self.any_to_end() else { return };
        if !self.load.users.retire(by.user) {
            return;
        }
        let sessions = self.load.sessions.of_user(by.user);
        let password = self.load.users.password(by.user);
        let answer = self.caller.delete_account(&by, password).await;
        if answer.is_yes() {
            for caller in &self.load.callers {
                let (caller, load, user) = (Arc::clone(caller), Arc::clone(&self.load), by.user);
                self.load.aside(async move {
                    let _ = caller.login(load.history.new_session(user), user, password).await;
                });
            }
        }
        self.have_ended(by.user, &sessions, answer);
    }

    /// Updates the state of a user's sessions after a call that was to end them, by its `answer`.
    fn have_ended(&mut self, user: usize, sessions: &[Arc<Session>], answer: Answer) {
        for session in sessions {
            if answer.is_yes() {
                self.load.sessions.set_ended(session);
                self.try_in_vain(session);
            } else {
                // Each session is ended once more on its own, until that is confirmed.
                self.load.sessions.set_ending(session);
            }
        }
        if answer.is_in_doubt() {
            // The call may still be carried out: it may end sessions that begin from now on, and the current
            // password is unknown.
            self.load.users.retire(user);
        }
    }

    /// Presents the tokens of a session that has just ended at all instances. At a stopped instance the calls
    /// wait in the queue.
    fn try_in_vain(&mut self, session: &Arc<Session>) {
        for caller in &self.load.callers {
            let (caller, session) = (Arc::clone(caller), Arc::clone(session));
            let (load, refreshes) = (Arc::clone(&self.load), self.rng.u8(..4) == 0);
            self.load.aside(async move {
                for access in session.tokens() {
                    caller.me(session.number, &access, false).await;
                }
                if refreshes {
                    refresh(&load, &caller, &session, false).await;
                }
            });
        }
    }

    /// A random live session that may be ended, with no refresh in progress.
    fn any_to_end(&mut self) -> Option<Arc<Session>> {
        let lists = self.load.sessions.lists();
        let is_meant =
            |session: &&Arc<Session>| !self.is_kept(session) && session.refreshing.try_lock().is_ok();
        let sessions: Vec<_> = lists.live.iter().filter(is_meant).collect();
        self.rng.choice(sessions).cloned()
    }

    fn is_kept(&self, session: &Session) -> bool {
        self.load.users.is_quiet(session.user)
    }
}
