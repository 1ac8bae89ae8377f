//! Who is signed in in this tab, and the three things that change it: a session begins, is found
//! to have ended, or is ended here.

use gloo_timers::future::TimeoutFuture;
use leptos::{ev, prelude::*, task::spawn_local};

use super::{calls, patience::within, renew::Tenure, storage};
use crate::api::{
    self,
    error::AuthError,
    types::{EndReason, Presence, Revocation},
};

/// How long a log-out waits for the server's word before it finishes without it.
const LOGOUT_PATIENCE_MS: u32 = 5_000;

/// How long a log-out that was not confirmed waits before it asks again, in milliseconds: the last
/// one again and again.
const ASK_AGAIN_AFTER_MS: [u32; 5] = [1_000, 2_000, 5_000, 10_000, 30_000];

/// What the user should know about how the last session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Farewell {
    /// The server has confirmed it: dead on every instance.
    Confirmed { instances: u32, elapsed_ms: u64 },
    /// Ended here, but the server could not make it certain.
    Unconfirmed,
    /// Ended by someone else, or by time.
    Ended(String),
}

/// The session of this tab, as the pages see it. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Session {
    presence: RwSignal<Presence>,
    farewell: RwSignal<Option<Farewell>>,
    /// The user is ending it here, and will be told how that went.
    is_ending: StoredValue<bool>,
}

impl Session {
    /// Starts from what the server knew when it drew the page, and follows the other tabs.
    pub fn provide() -> Self {
        let drawn = SharedValue::new_str(|| use_context::<Presence>().unwrap_or_default()).into_inner();
        let (presence, farewell) = match drawn {
            Presence::Ended(EndReason::SignedOut) => (Presence::Anonymous, None),
            Presence::Ended(reason) => (Presence::Anonymous, Some(Farewell::Ended(reason.words().into()))),
            other => (other, None),
        };
        let session = Self {
            presence: RwSignal::new(presence),
            farewell: RwSignal::new(farewell),
            is_ending: StoredValue::new(false),
        };
        provide_context(session);
        Effect::new(move || {
            if let Presence::Ended(_) = drawn {
                storage::clear();
            }
            session.resume_logout();
            session.follow_other_tabs();
        });
        session
    }

    /// Hears of its end from the server, once it has begun.
    pub fn follow(self) {
        let owner = Owner::current().unwrap_or_default();
        Effect::new(move |is_followed: Option<bool>| {
            let is_followed = is_followed == Some(true);
            let is_signed_in = self.is_signed_in();
            if is_signed_in && !is_followed {
                let owner = owner.clone();
                spawn_local(async move {
                    calls::fetched().await;
                    drop(calls::follow(self, owner).await);
                });
            }
            is_followed || is_signed_in
        });
    }

    /// The session of the page that is being drawn.
    pub fn expect() -> Self {
        expect_context()
    }

    pub fn is_signed_in(self) -> bool {
        self.presence.get() == Presence::SignedIn
    }

    pub fn farewell(self) -> Option<Farewell> {
        self.farewell.get()
    }

    /// Asks for the next access token now, though this one is still good.
    ///
    /// # Errors
    /// What the call answers.
    pub async fn renew(self) -> Result<(), AuthError> {
        let before = storage::load();
        storage::expire();
        let answer = self.call(api::account::me).await;
        if let (
            Err(AuthError::Unavailable | AuthError::TooManyRequests(_) | AuthError::Transport),
            Some(token),
        ) = (&answer, before)
        {
            storage::save(&token);
        }
        answer.map(|_| ())
    }

    /// Registers, and begins the new user's first session.
    ///
    /// # Errors
    /// What the call answers.
    pub async fn register(self, email: String, password: String) -> Result<(), AuthError> {
        may_begin()?;
        calls::register(email, password).await?;
        self.begin();
        Ok(())
    }

    /// Logs in, and begins the session.
    ///
    /// # Errors
    /// What the call answers.
    pub async fn login(self, email: String, password: String) -> Result<(), AuthError> {
        may_begin()?;
        calls::login(email, password).await?;
        self.begin();
        Ok(())
    }

    fn begin(self) {
        self.farewell.set(None);
        self.presence.set(Presence::SignedIn);
    }

    /// Makes a call that needs the session. A refused token is renewed once, and the call made
    /// again; if there is no renewal, the session has ended, and ends here too. If nobody can tell,
    /// it goes on.
    ///
    /// # Errors
    /// What the call answers.
    pub async fn call<T, F>(self, call: impl Fn() -> F) -> Result<T, AuthError>
    where
        F: Future<Output = Result<T, AuthError>>,
    {
        let tenure = Tenure::current();
        let mut answer = call().await;
        if matches!(answer, Err(AuthError::InvalidToken)) && !tenure.is_over() {
            storage::expire();
            answer = call().await;
        }
        if let Err(error @ (AuthError::MissingToken | AuthError::InvalidToken | AuthError::InvalidGrant(_))) =
            &answer
            && !tenure.is_over()
            // Then it is this browser that refuses, until the server has confirmed.
            && !storage::is_logout_pending()
        {
            self.leave(Farewell::Ended(error.to_string()));
            storage::clear();
        }
        answer
    }

    /// Logs out: here in any case, be the page left meanwhile, and on the server as soon as it can be reached. Until it has
    /// confirmed, every page of this browser stays signed out and asks again.
    pub async fn end(self) {
        let tenure = Tenure::current();
        self.is_ending.set_value(true);
        // From here on, whatever becomes of this page.
        storage::set_logout_pending(true);
        let farewell = ask_to_end().await;
        self.is_ending.set_value(false);
        if tenure.is_over() {
            // Someone has signed in meanwhile, which has ended the old session, too.
            return;
        }
        let is_pending = farewell == Farewell::Unconfirmed;
        storage::set_logout_pending(is_pending);
        self.leave(farewell);
        storage::clear();
        if is_pending {
            spawn_local(self.keep_asking(Tenure::current()));
        }
    }

    async fn keep_asking(self, tenure: Tenure) {
        let mut pauses = ASK_AGAIN_AFTER_MS.into_iter();
        let mut pause = 0;
        loop {
            pause = pauses.next().unwrap_or(pause);
            TimeoutFuture::new(pause).await;
            if tenure.is_over() || !storage::is_logout_pending() {
                return;
            }
            let farewell = ask_to_end().await;
            if tenure.is_over() {
                return;
            }
            if farewell != Farewell::Unconfirmed {
                storage::set_logout_pending(false);
                self.farewell.set(Some(farewell));
                return;
            }
        }
    }

    /// Makes a call that ends this session, among others, and tells how that went.
    ///
    /// # Errors
    /// What the call answers.
    pub async fn end_by<F>(self, call: impl Fn() -> F) -> Result<(), AuthError>
    where
        F: Future<Output = Result<Revocation, AuthError>>,
    {
        self.is_ending.set_value(true);
        let answer = self.call(call).await;
        self.is_ending.set_value(false);
        self.leave(confirmed(&answer?));
        storage::clear();
        Ok(())
    }

    /// The server says that the session has ended.
    pub(super) fn is_ended(self, reason: EndReason) {
        if !self.is_ending.get_value() && self.presence.get_untracked() == Presence::SignedIn {
            self.leave(Farewell::Ended(reason.words().into()));
            storage::clear();
        }
    }

    fn leave(self, farewell: Farewell) {
        Tenure::end();
        storage::set_last_words(match &farewell {
            Farewell::Ended(words) => Some(words),
            Farewell::Confirmed { .. } | Farewell::Unconfirmed => None,
        });
        self.farewell.set(Some(farewell));
        self.presence.set(Presence::Anonymous);
    }

    /// Takes up a log-out that an earlier page could not finish.
    fn resume_logout(self) {
        if storage::is_logout_pending() {
            self.leave(Farewell::Unconfirmed);
            spawn_local(self.end());
        }
    }

    fn follow_other_tabs(self) {
        let listeners = [
            window_event_listener(ev::storage, move |event| {
                if storage::is_about_the_token(event.key().as_deref()) {
                    self.follow_storage();
                }
            }),
            // A page that was kept for the way back has heard nothing.
            window_event_listener(ev::pageshow, move |event| {
                if event.persisted() {
                    self.follow_storage();
                }
            }),
        ];
        on_cleanup(move || listeners.into_iter().for_each(|listener| listener.remove()));
    }

    /// Takes over what another tab has made of the session.
    fn follow_storage(self) {
        let was_signed_in = self.presence.get_untracked() == Presence::SignedIn;
        match (was_signed_in, storage::holds_a_token()) {
            (true, false) => {
                let words = storage::last_words().unwrap_or_else(|| EndReason::SignedOut.words().into());
                self.leave(Farewell::Ended(words));
            }
            (false, true) => {
                self.farewell.set(None);
                self.presence.set(Presence::SignedIn);
            }
            _ => {}
        }
    }
}

/// A session that the browser would not keep is not begun.
fn may_begin() -> Result<(), AuthError> {
    if storage::blocks_cookies() { Err(AuthError::no_refresh_token()) } else { Ok(()) }
}

/// Asks the server to end the session of this browser.
async fn ask_to_end() -> Farewell {
    match within(LOGOUT_PATIENCE_MS, calls::logout()).await {
        Ok(revocation) => confirmed(&revocation),
        // None of our tokens was known to the server: there is nothing left to end.
        Err(AuthError::MissingToken | AuthError::InvalidToken) => {
            Farewell::Ended(EndReason::SignedOut.words().into())
        }
        Err(_) => Farewell::Unconfirmed,
    }
}

fn confirmed(revocation: &Revocation) -> Farewell {
    Farewell::Confirmed { instances: revocation.instances, elapsed_ms: revocation.elapsed_ms }
}
