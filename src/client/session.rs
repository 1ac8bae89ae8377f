//! Who is signed in in this tab, and the three things that change it: a session begins, is found
//! to have ended, or is ended here.

use gloo_timers::future::TimeoutFuture;
use leptos::{ev, prelude::*, task::spawn_local};

use super::{
    lazy_app,
    refresh::{SessionGeneration, ends_session},
    storage,
    timeout::with_timeout,
};
use crate::api::{
    self,
    error::ApiError,
    types::{EndReason, Presence, Revocation},
};

/// How long a log-out waits for the server's word before it finishes without it.
const LOGOUT_TIMEOUT_MS: u32 = 5_000;

/// How long a log-out that was not confirmed waits before it asks again, in milliseconds: the last
/// one again and again.
const ASK_AGAIN_AFTER_MS: [u32; 5] = [1_000, 2_000, 5_000, 10_000, 30_000];

/// What the user should know about how the last session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignOutNotice {
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
    sign_out_notice: RwSignal<Option<SignOutNotice>>,
    /// The user is ending it here, and will be told how that went.
    is_ending: StoredValue<bool>,
}

impl Session {
    /// Starts from what the server knew when it drew the page, and follows the other tabs.
    pub fn provide() -> Self {
        let drawn = SharedValue::new_str(|| use_context::<Presence>().unwrap_or_default()).into_inner();
        let (presence, sign_out_notice) = match drawn {
            Presence::Ended(EndReason::SignedOut) => (Presence::Anonymous, None),
            Presence::Ended(reason) => {
                (Presence::Anonymous, Some(SignOutNotice::Ended(reason.words().into())))
            }
            other => (other, None),
        };
        let session = Self {
            presence: RwSignal::new(presence),
            sign_out_notice: RwSignal::new(sign_out_notice),
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
                    lazy_app::fetched().await;
                    drop(lazy_app::follow(self, owner).await);
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

    pub fn sign_out_notice(self) -> Option<SignOutNotice> {
        self.sign_out_notice.get()
    }

    /// Asks for the next access token now, though this one is still good.
    ///
    /// # Errors
    /// What the call answers.
    pub async fn renew(self) -> Result<(), ApiError> {
        let before = storage::load();
        storage::expire();
        let answer = self.call(api::account::me).await;
        if let (Err(error), Some(token)) = (&answer, before)
            && !ends_session(error)
        {
            storage::save(&token);
        }
        answer.map(|_| ())
    }

    /// Registers, and begins the new user's first session.
    ///
    /// # Errors
    /// What the call answers.
    pub async fn register(self, email: String, password: String) -> Result<(), ApiError> {
        may_begin()?;
        lazy_app::register(email, password).await?;
        self.begin();
        Ok(())
    }

    /// Logs in, and begins the session.
    ///
    /// # Errors
    /// What the call answers.
    pub async fn login(self, email: String, password: String) -> Result<(), ApiError> {
        may_begin()?;
        lazy_app::login(email, password).await?;
        self.begin();
        Ok(())
    }

    fn begin(self) {
        self.sign_out_notice.set(None);
        self.presence.set(Presence::SignedIn);
    }

    /// Makes a call that needs the session. A refused token is renewed once, and the call made
    /// again; if there is no renewal, the session has ended, and ends here too. If nobody can tell,
    /// it goes on.
    ///
    /// # Errors
    /// What the call answers.
    pub async fn call<T, F>(self, call: impl Fn() -> F) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let generation = SessionGeneration::current();
        let mut answer = call().await;
        if matches!(answer, Err(ApiError::InvalidToken)) && !generation.is_over() {
            storage::expire();
            answer = call().await;
        }
        if let Err(error) = &answer
            && ends_session(error)
            && !generation.is_over()
            // Then it is this browser that refuses, until the server has confirmed.
            && !storage::is_logout_pending()
        {
            self.set_signed_out(SignOutNotice::Ended(error.to_string()));
            storage::clear();
        }
        answer
    }

    /// Logs out: here in any case, be the page left meanwhile, and on the server as soon as it can be reached. Until it has
    /// confirmed, every page of this browser stays signed out and asks again.
    pub async fn end(self) {
        let generation = SessionGeneration::current();
        self.is_ending.set_value(true);
        // From here on, whatever becomes of this page.
        storage::set_logout_pending(true);
        let sign_out_notice = ask_to_end().await;
        self.is_ending.set_value(false);
        if generation.is_over() {
            // Someone has signed in meanwhile, which has ended the old session, too.
            return;
        }
        let is_pending = sign_out_notice == SignOutNotice::Unconfirmed;
        storage::set_logout_pending(is_pending);
        self.set_signed_out(sign_out_notice);
        storage::clear();
        if is_pending {
            spawn_local(self.keep_asking(SessionGeneration::current()));
        }
    }

    async fn keep_asking(self, generation: SessionGeneration) {
        let mut pauses = ASK_AGAIN_AFTER_MS.into_iter();
        let mut pause = 0;
        loop {
            pause = pauses.next().unwrap_or(pause);
            TimeoutFuture::new(pause).await;
            if generation.is_over() {
                return;
            }
            let sign_out_notice = match storage::is_logout_pending() {
                true => ask_to_end().await,
                // Another tab got the confirmation.
                false => SignOutNotice::Ended(EndReason::SignedOut.words().into()),
            };
            // Someone may have signed in meanwhile, here or in another tab.
            if generation.is_over() || self.presence.get_untracked() == Presence::SignedIn {
                return;
            }
            if sign_out_notice != SignOutNotice::Unconfirmed {
                storage::forget_last_seen();
                storage::set_logout_pending(false);
                self.sign_out_notice.set(Some(sign_out_notice));
                return;
            }
        }
    }

    /// Makes a call that ends this session, among others, and tells how that went.
    ///
    /// # Errors
    /// What the call answers.
    pub async fn end_by<F>(self, call: impl Fn() -> F) -> Result<(), ApiError>
    where
        F: Future<Output = Result<Revocation, ApiError>>,
    {
        self.is_ending.set_value(true);
        let answer = self.call(call).await;
        self.is_ending.set_value(false);
        self.set_signed_out(confirmed(&answer?));
        storage::clear();
        Ok(())
    }

    /// The server says that the session has ended.
    pub(super) fn on_revoked(self, reason: EndReason) {
        if !self.is_ending.get_value() && self.presence.get_untracked() == Presence::SignedIn {
            self.set_signed_out(SignOutNotice::Ended(reason.words().into()));
            storage::clear();
        }
    }

    fn set_signed_out(self, sign_out_notice: SignOutNotice) {
        SessionGeneration::end();
        if sign_out_notice != SignOutNotice::Unconfirmed {
            storage::forget_last_seen();
        }
        storage::set_last_words(match &sign_out_notice {
            SignOutNotice::Ended(words) => Some(words),
            SignOutNotice::Confirmed { .. } | SignOutNotice::Unconfirmed => None,
        });
        self.sign_out_notice.set(Some(sign_out_notice));
        self.presence.set(Presence::Anonymous);
    }

    /// Takes up a log-out that an earlier page could not finish.
    fn resume_logout(self) {
        if storage::is_logout_pending() {
            self.set_signed_out(SignOutNotice::Unconfirmed);
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
            (true, false) if storage::is_logout_pending() => {
                self.set_signed_out(SignOutNotice::Unconfirmed);
                spawn_local(self.keep_asking(SessionGeneration::current()));
            }
            (true, false) => {
                let words = storage::last_words().unwrap_or_else(|| EndReason::SignedOut.words().into());
                self.set_signed_out(SignOutNotice::Ended(words));
            }
            (false, true) => {
                storage::forget_last_seen();
                self.sign_out_notice.set(None);
                self.presence.set(Presence::SignedIn);
            }
            _ => {}
        }
    }
}

/// A session that the browser would not keep is not begun.
fn may_begin() -> Result<(), ApiError> {
    if storage::blocks_cookies() { Err(ApiError::no_refresh_token()) } else { Ok(()) }
}

/// Asks the server to end the session of this browser. A server that saw no token, or none that it knows, has ended nothing:
/// the cookie may have been lost on the way, and the session lives.
async fn ask_to_end() -> SignOutNotice {
    let was_pending = storage::is_logout_pending();
    match with_timeout(LOGOUT_TIMEOUT_MS, lazy_app::logout()).await {
        Ok(revocation) => confirmed(&revocation),
        // Another tab got the confirmation, and with it the tokens went.
        Err(error) if ends_session(&error) && was_pending && !storage::is_logout_pending() => {
            SignOutNotice::Ended(EndReason::SignedOut.words().into())
        }
        Err(_) => SignOutNotice::Unconfirmed,
    }
}

fn confirmed(revocation: &Revocation) -> SignOutNotice {
    SignOutNotice::Confirmed { instances: revocation.instances, elapsed_ms: revocation.elapsed_ms }
}
