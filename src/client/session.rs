//! The session of this tab, and the three changes to it: it begins, is found to have ended, or is ended here.

use std::sync::atomic::{AtomicBool, Ordering};

use gloo_timers::future::TimeoutFuture;
use leptos::{ev, prelude::*, task::spawn_local};

use super::{
    cookie,
    lazy_app::{self, Beginning},
    refresh::{SessionGeneration, ends_session},
    storage::{self, StoredToken, device_now},
    timeout::with_timeout,
};
use crate::api::{
    self,
    error::ApiError,
    types::{ConfirmedLogout, EndReason, Presence, Revocation, TokenResponse},
};

/// How long a logout waits for the server's answer before it completes without one.
const LOGOUT_TIMEOUT_MS: u32 = 5_000;

/// The delays before an unconfirmed logout is sent again, in milliseconds. The last one repeats.
const ASK_AGAIN_AFTER_MS: [u32; 5] = [1_000, 2_000, 5_000, 10_000, 30_000];

/// How often and in which interval, in milliseconds, a page looks for the cookies of the session that has replaced its
/// own.
const REPLACEMENT_LOOKS: u32 = 30;
const REPLACEMENT_LOOK_MS: u32 = 100;

/// The notice to the user about the end of the last session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignOutNotice {
    /// The server has confirmed that the session is dead on every instance.
    Confirmed(ConfirmedLogout),
    /// The session has ended in this browser, but the server has not confirmed its revocation.
    Unconfirmed,
    /// The session was ended elsewhere, or has expired; with the reason as text for the user.
    Ended(String),
}

/// The session of this tab, as the pages see it. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Session {
    presence: RwSignal<Presence>,
    sign_out_notice: RwSignal<Option<SignOutNotice>>,
    /// The id of the session whose data this tab shows; `None` if it is not known.
    shown: StoredValue<Option<String>>,
    /// Set while a call of this tab ends or replaces the session: what follows is then made from the answer to that call.
    is_ending: StoredValue<bool>,
    /// How often this tab has replaced its session by a new one.
    replacements: RwSignal<u32>,
}

impl Session {
    /// Creates the session from what the server knew when it rendered the page, and follows the other tabs.
    pub fn provide() -> Self {
        let drawn = SharedValue::new_str(|| use_context::<Presence>().unwrap_or_default()).into_inner();
        let confirmed = SharedValue::new_str(|| {
            use_context::<ConfirmedLogout>().map(|confirmed| confirmed.to_string()).unwrap_or_default()
        });
        let confirmed: Option<ConfirmedLogout> = confirmed.into_inner().parse().ok();
        let (presence, sign_out_notice) = match drawn {
            Presence::SignedIn => (Presence::SignedIn, None),
            Presence::Ended(reason) if reason != EndReason::SignedOut => {
                (Presence::Anonymous, Some(SignOutNotice::Ended(reason.words().into())))
            }
            Presence::Ended(_) | Presence::Anonymous => {
                (Presence::Anonymous, confirmed.map(SignOutNotice::Confirmed))
            }
        };
        let session = Self {
            presence: RwSignal::new(presence),
            sign_out_notice: RwSignal::new(sign_out_notice),
            shown: StoredValue::new(None),
            is_ending: StoredValue::new(false),
            replacements: RwSignal::new(0),
        };
        provide_context(session);
        Effect::new(move || {
            match drawn {
                Presence::SignedIn => session.shown.set_value(cookie::session_id()),
                Presence::Ended(_) => storage::clear(),
                Presence::Anonymous if confirmed.is_some() => storage::clear(),
                Presence::Anonymous => {}
            }
            session.resume_logout();
            session.follow_other_tabs();
        });
        session
    }

    /// The session that [`Session::provide`] has put into the context.
    pub fn expect() -> Self {
        expect_context()
    }

    pub fn is_signed_in(self) -> bool {
        self.presence.get() == Presence::SignedIn
    }

    pub fn sign_out_notice(self) -> Option<SignOutNotice> {
        self.sign_out_notice.get()
    }

    /// Renews the access token now, although it has not expired.
    ///
    /// # Errors
    /// The error of the call.
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

    /// Registers or logs in, and begins the session. Returns whether there is one: without, the user has chosen none of
    /// the passkeys that were suggested.
    ///
    /// # Errors
    /// The error of the call, or of the browser's dialog for passkeys.
    pub async fn begin(self, how: Beginning) -> Result<bool, ApiError> {
        // A suggestion is no attempt yet.
        if !matches!(how, Beginning::Passkey { by_autofill: true }) && storage::blocks_cookies() {
            return Err(ApiError::no_refresh_token());
        }
        let has_begun = lazy_app::begin(how).await?;
        if has_begun {
            self.has_begun();
        }
        Ok(has_begun)
    }

    fn has_begun(self) {
        self.shown.set_value(cookie::session_id());
        self.sign_out_notice.set(None);
        self.presence.set(Presence::SignedIn);
    }

    /// Makes a call that needs the session. If the token is refused, it is renewed once and the call
    /// repeated; if it cannot be renewed either, the session has ended on the server, and is ended here.
    /// After any other error the session continues.
    ///
    /// # Errors
    /// The error of the call.
    pub async fn call<T, F>(self, call: impl Fn() -> F) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let generation = SessionGeneration::current();
        let mut answer = call().await;
        let is_refused = matches!(answer, Err(ApiError::InvalidToken));
        if is_refused && !generation.is_over() {
            storage::expire();
            answer = call().await;
        }
        if let Err(error) = &answer
            && ends_session(error)
            && !generation.is_over()
            // While a logout is pending, it is this browser that refuses to renew the token.
            && !storage::is_logout_pending()
        {
            self.set_signed_out(match cookie::signed_out() {
                Some(confirmed) => SignOutNotice::Confirmed(confirmed),
                // The session had ended before its cookie was missed, so the browser is not to blame.
                None if is_refused && *error == ApiError::no_refresh_token() => {
                    SignOutNotice::Ended(EndReason::SignedOut.words().into())
                }
                None => SignOutNotice::Ended(error.to_string()),
            });
            storage::clear();
        }
        answer
    }

    /// Logs out: in this browser in any case, even if the page is left before the answer, and on the server
    /// as soon as it can be reached. Until the server has confirmed, every page of this browser stays signed
    /// out and repeats the request.
    pub async fn end(self) {
        let generation = SessionGeneration::current();
        self.is_ending.set_value(true);
        // The logout is in effect from here on, even if this page is closed.
        storage::set_logout_pending(true);
        let sign_out_notice = ask_to_end().await;
        self.is_ending.set_value(false);
        if generation.is_over() {
            // A new login has replaced the old session, which revoked it, too.
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
                // Another tab has received the confirmation.
                false => SignOutNotice::Ended(EndReason::SignedOut.words().into()),
            };
            // The user may have signed in again, here or in another tab.
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

    /// Makes a call that ends this session, among others, and shows the result.
    ///
    /// # Errors
    /// The error of the call.
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

    /// Makes a call that begins a new session in place of this one, and goes on with that: the page stays as it is.
    /// Other tabs load theirs again.
    ///
    /// # Errors
    /// The error of the call.
    pub async fn replace_by<F>(self, call: impl Fn() -> F) -> Result<(), ApiError>
    where
        F: Future<Output = Result<TokenResponse, ApiError>>,
    {
        self.is_ending.set_value(true);
        let answer = self.call(call).await;
        if let Ok(response) = &answer {
            SessionGeneration::end();
            self.shown.set_value(Some(response.session_id.clone()));
            storage::save(&StoredToken::new(response.clone(), device_now()));
        }
        self.is_ending.set_value(false);
        answer?;
        self.replacements.update(|replacements| *replacements += 1);
        Ok(())
    }

    /// How often this tab has replaced its session, as a signal.
    pub(super) fn replacements(self) -> u32 {
        self.replacements.get()
    }

    /// Whether the session of this id is not the one that this tab shows. `false` if it is not known.
    pub(super) fn is_of_another(self, session_id: &str) -> bool {
        !session_id.is_empty()
            && self.shown.with_value(|shown| shown.as_ref().is_some_and(|shown| shown != session_id))
    }

    /// Handles the server's notice that the session of this id has ended.
    pub(super) async fn on_revoked(self, session_id: &str, reason: EndReason) {
        if reason == EndReason::Replaced {
            self.await_replacement().await;
        }
        if self.is_ending.get_value() || self.presence.get_untracked() != Presence::SignedIn {
            return;
        }
        // This tab has replaced the session meanwhile.
        if self.is_of_another(session_id) {
            return;
        }
        if self.is_replaced() {
            reload();
        } else {
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
            SignOutNotice::Confirmed(_) | SignOutNotice::Unconfirmed => None,
        });
        self.shown.set_value(None);
        self.sign_out_notice.set(Some(sign_out_notice));
        self.presence.set(Presence::Anonymous);
    }

    /// Resumes a logout that an earlier page could not complete.
    fn resume_logout(self) {
        if storage::is_logout_pending() {
            self.set_signed_out(SignOutNotice::Unconfirmed);
            spawn_local(self.end());
        }
    }

    fn follow_other_tabs(self) {
        let listeners = [
            window_event_listener(ev::storage, move |event| {
                if storage::is_about_the_token(event.key().as_deref()) && !self.follow_cookies() {
                    self.follow_storage();
                }
            }),
            // A page restored from the back-forward cache has missed the `storage` events.
            window_event_listener(ev::pageshow, move |event| {
                if event.persisted() && !self.follow_cookies() {
                    self.follow_storage();
                }
            }),
            // No event reports a session that a plain form or a program has begun or ended.
            window_event_listener(ev::visibilitychange, move |_| {
                if !document().hidden() {
                    self.follow_cookies();
                }
            }),
        ];
        on_cleanup(move || listeners.into_iter().for_each(|listener| listener.remove()));
    }

    /// Whether the cookies of this browser are those of another session than the one that this tab shows, and not by a
    /// call of this tab.
    fn is_replaced(self) -> bool {
        let shown = self.shown.get_value();
        !self.is_ending.get_value()
            && shown.is_some()
            && cookie::session_id().is_some_and(|current| shown != Some(current))
    }

    /// Waits for the cookies of the session that has replaced the one of this tab: the notice may arrive before the
    /// response to the login, which sets them.
    async fn await_replacement(self) {
        for _ in 0..REPLACEMENT_LOOKS {
            if self.is_replaced() {
                return;
            }
            TimeoutFuture::new(REPLACEMENT_LOOK_MS).await;
        }
    }

    /// Adopts a change to the session that the cookies show. Returns whether there was one.
    fn follow_cookies(self) -> bool {
        if self.presence.get_untracked() != Presence::SignedIn {
            return false;
        }
        if let Some(confirmed) = cookie::signed_out() {
            self.set_signed_out(SignOutNotice::Confirmed(confirmed));
            storage::clear();
            return true;
        }
        let is_replaced = self.is_replaced();
        if is_replaced {
            reload();
        }
        is_replaced
    }

    /// Adopts a change to the session that another tab has made.
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
                self.has_begun();
            }
            _ => {}
        }
    }
}

/// Loads the page again, because it shows the data of another session. Several notices of that may arrive before the
/// page is gone.
fn reload() {
    static IS_RELOADING: AtomicBool = AtomicBool::new(false);
    if !IS_RELOADING.swap(true, Ordering::Relaxed) {
        let _ = window().location().reload();
    }
}

/// Asks the server to revoke the session of this browser. An answer that the token is missing or unknown does
/// not confirm that: the cookie may have been lost on the way, while the session is live.
async fn ask_to_end() -> SignOutNotice {
    let was_pending = storage::is_logout_pending();
    match with_timeout(LOGOUT_TIMEOUT_MS, lazy_app::logout()).await {
        Ok(revocation) => confirmed(&revocation),
        // Another tab has received the confirmation, and the tokens were deleted.
        Err(error) if ends_session(&error) && was_pending && !storage::is_logout_pending() => {
            SignOutNotice::Ended(EndReason::SignedOut.words().into())
        }
        Err(_) => SignOutNotice::Unconfirmed,
    }
}

fn confirmed(revocation: &Revocation) -> SignOutNotice {
    let &Revocation { instances, elapsed_ms, .. } = revocation;
    SignOutNotice::Confirmed(ConfirmedLogout { instances, elapsed_ms })
}
