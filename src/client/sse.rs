//! Server-sent events that a page receives: the end of its session, and the state of the cluster.

use std::time::Duration;

use leptos::{
    ev,
    prelude::*,
    task::spawn_local,
    wasm_split::{SplitLoaderError, wasm_split},
};
use wasm_bindgen::{JsCast, prelude::Closure};
use web_sys::{EventSource, MessageEvent};

use super::{lazy_app, session::Session};
use crate::api::{
    self, CLUSTER_EVENTS, SESSION_EVENTS,
    types::{ClusterView, EndReason},
};

/// The delay before the next connection to a server that has refused one: the first and the longest.
const RETRY_AFTER: Duration = Duration::from_secs(5);
const RETRY_AT_MOST: Duration = Duration::from_mins(1);

/// How often an instance sends the state of the cluster, and how often a page checks whether it has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The number of checks without an event after which the page connects again, possibly to another instance:
/// at first and at most, as each new connection doubles it. Checks are counted, not the time, so that a page
/// that got no processor time for some seconds first reads the events that have arrived since.
const SILENT_LOOKS: u32 = 4;
const SILENT_LOOKS_AT_MOST: u32 = 32;

/// A stream of events from the server, closed when it is dropped. The browser reconnects on its own, unless
/// the connection was refused.
struct Stream {
    source: EventSource,
    _callbacks: Vec<Closure<dyn Fn(MessageEvent)>>,
}

impl Stream {
    /// Calls `on_event` with the data of each event of that name, and `on_error` when the connection is lost,
    /// with whether the server has refused it.
    fn open(
        path: &str,
        event: &str,
        on_event: impl Fn(String) + 'static,
        on_error: impl Fn(bool) + 'static,
    ) -> Option<Self> {
        let source = EventSource::new(path).ok()?;
        let hear = Closure::<dyn Fn(MessageEvent)>::new(move |message: MessageEvent| {
            on_event(message.data().as_string().unwrap_or_default());
        });
        let failed = source.clone();
        let fail = Closure::<dyn Fn(MessageEvent)>::new(move |_| {
            on_error(failed.ready_state() == EventSource::CLOSED);
        });
        let _ = source.add_event_listener_with_callback(event, hear.as_ref().unchecked_ref());
        source.set_onerror(Some(fail.as_ref().unchecked_ref()));
        Some(Self { source, _callbacks: vec![hear, fail] })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.source.set_onerror(None);
        self.source.close();
    }
}

/// Subscribes to the server's notice of the session's end, once a session has begun.
pub fn follow(session: Session) {
    let owner = Owner::current().unwrap_or_default();
    Effect::new(move |is_followed: Option<bool>| {
        let is_followed = is_followed == Some(true);
        let is_signed_in = session.is_signed_in();
        if is_signed_in && !is_followed {
            let owner = owner.clone();
            spawn_local(async move {
                lazy_app::fetched().await;
                drop(follow_session(session, owner).await);
            });
        }
        is_followed || is_signed_in
    });
}

/// Subscribes to the end of the session for as long as `owner` lives, while the page is visible. A hidden page has no
/// connection: a browser opens few to one host, and all of its tabs share them.
///
/// This is an entry point into the part of the wasm that [`lazy_app`] describes.
///
/// # Errors
/// The part could not be fetched.
#[wasm_split(app, wasm_split_path = leptos::wasm_split, fallible)]
fn follow_session(session: Session, owner: Owner) -> Result<(), SplitLoaderError> {
    owner.with(|| subscribe(session));
    Ok(())
}

fn subscribe(session: Session) {
    let is_seen = RwSignal::new(!document().hidden());
    let retries = RwSignal::new(0_u32);
    let listeners = [
        window_event_listener(ev::visibilitychange, move |_| is_seen.set(!document().hidden())),
        // A page that may come back from the back-forward cache must not keep a connection.
        window_event_listener(ev::pagehide, move |_| is_seen.set(false)),
        window_event_listener(ev::pageshow, move |_| is_seen.set(true)),
    ];
    on_cleanup(move || listeners.into_iter().for_each(|listener| listener.remove()));

    let stream = StoredValue::new_local(None::<Stream>);
    let close = move || drop(stream.try_update_value(Option::take));
    Effect::new(move || {
        let tries = retries.get();
        close();
        if !session.is_signed_in() || !is_seen.get() {
            return;
        }
        let on_end = move |reason: String| {
            // Before the browser reconnects, which the server would refuse after this last event.
            spawn_local(async move { close() });
            session.on_revoked(serde_json::from_str(&reason).unwrap_or(EndReason::SignedOut));
        };
        let on_error = move |is_refused: bool| {
            if !is_refused {
                return;
            }
            spawn_local(async move {
                // Ends the session here if it has ended on the server.
                let _ = session.call(api::account::me).await;
            });
            let wait = (RETRY_AFTER * (tries + 1)).min(RETRY_AT_MOST);
            set_timeout(move || retries.try_update(|tries| *tries += 1).unwrap_or_default(), wait);
        };
        stream.set_value(Stream::open(SESSION_EVENTS, "ended", on_end, on_error));
    });
    on_cleanup(close);
}

/// The state of the cluster, as one of the instances sends it repeatedly.
#[derive(Clone, Copy)]
pub struct LiveCluster {
    is_connected: RwSignal<bool>,
}

impl LiveCluster {
    /// Calls `on_view` with each view, and with whether it is the first after an interruption, until the page
    /// is left.
    pub fn listen(on_view: impl Fn(ClusterView, bool) + Copy + 'static) -> Self {
        let live = Self { is_connected: RwSignal::new(true) };
        // Everything is in the effect, which does not run on the server: there a page may be dropped on
        // another thread than the one that rendered it, and a stream must stay on its thread.
        Effect::new(move || {
            let is_news = StoredValue::new(true);
            let (silent, allowed) = (StoredValue::new(0), StoredValue::new(SILENT_LOOKS));
            let lost = move || {
                is_news.try_set_value(true);
                live.is_connected.try_set(false);
            };
            let stream = StoredValue::new_local(None::<Stream>);
            let open = move || {
                let hear = move |text: String| {
                    if let Ok(view) = serde_json::from_str(&text) {
                        silent.try_set_value(0);
                        allowed.try_set_value(SILENT_LOOKS);
                        on_view(view, is_news.try_get_value() != Some(false));
                        is_news.try_set_value(false);
                        live.is_connected.try_set(true);
                    }
                };
                stream.set_value(Stream::open(CLUSTER_EVENTS, "message", hear, move |_| lost()));
            };
            open();
            // A suspended instance does not close its connections, and the browser does not reconnect after a
            // refusal.
            let look = move || {
                silent.update_value(|silent| *silent += 1);
                if silent.get_value() >= allowed.get_value() {
                    silent.set_value(0);
                    allowed.update_value(|allowed| *allowed = (*allowed * 2).min(SILENT_LOOKS_AT_MOST));
                    lost();
                    open();
                }
            };
            let looking = set_interval_with_handle(look, LOOK_EVERY);
            on_cleanup(move || {
                drop(looking.map(|looking| looking.clear()));
                drop(stream.try_update_value(Option::take));
            });
        });
        live
    }

    /// Whether the last view is current.
    pub fn is_connected(self) -> bool {
        self.is_connected.get()
    }
}
