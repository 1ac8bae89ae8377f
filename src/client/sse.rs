//! What the server tells this page without being asked (server-sent events).

use std::time::Duration;

use leptos::{ev, prelude::*, task::spawn_local};
use wasm_bindgen::{JsCast, prelude::Closure};
use web_sys::{EventSource, MessageEvent};

use super::session::Session;
use crate::api::{
    self, CLUSTER_EVENTS, SESSION_EVENTS,
    types::{ClusterView, EndReason},
};

/// Between two tries to connect to a server that has refused to tell: at first, and at the most.
const RETRY_AFTER: Duration = Duration::from_secs(5);
const RETRY_AT_MOST: Duration = Duration::from_secs(60);

/// How often a server sends news of the cluster, and how often a page looks whether any came.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The looks without news after which the page connects again, as another server may answer: at first, and at the
/// most, when each new connection is given twice as long as the last. They are counted, and not the time, so that a
/// page which had no processor for some seconds reads first what has come meanwhile.
const SILENT_LOOKS: u32 = 4;
const SILENT_LOOKS_AT_MOST: u32 = 32;

/// Events from the server, until it is dropped. The browser connects again by itself, unless it was
/// refused.
struct Stream {
    source: EventSource,
    _callbacks: Vec<Closure<dyn Fn(MessageEvent)>>,
}

impl Stream {
    /// Calls `on_event` with the data of each event of that name; `on_error` when the connection is
    /// lost, with whether the server has refused it.
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

/// Hears of the end of the session while the page is looked at. Not while it is hidden: a browser has
/// few connections to a server, for all of its tabs together.
pub(super) fn follow_session(session: Session) {
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
            // Before the browser connects again, which a server that has said its last would refuse.
            spawn_local(async move { close() });
            session.on_revoked(serde_json::from_str(&reason).unwrap_or(EndReason::SignedOut));
        };
        let on_error = move |is_refused: bool| {
            if !is_refused {
                return;
            }
            spawn_local(async move {
                // Ends the session here if it has ended there.
                let _ = session.call(api::account::me).await;
            });
            let wait = (RETRY_AFTER * (tries + 1)).min(RETRY_AT_MOST);
            set_timeout(move || retries.try_update(|tries| *tries += 1).unwrap_or_default(), wait);
        };
        stream.set_value(Stream::open(SESSION_EVENTS, "ended", on_end, on_error));
    });
    on_cleanup(close);
}

/// What one of the servers keeps telling about all of them.
#[derive(Clone, Copy)]
pub struct LiveCluster {
    is_connected: RwSignal<bool>,
}

impl LiveCluster {
    /// Calls `on_view` with each view, and with whether it is the first after a silence, until the
    /// page is left.
    pub fn listen(on_view: impl Fn(ClusterView, bool) + Copy + 'static) -> Self {
        let live = Self { is_connected: RwSignal::new(true) };
        // All of it in here, where a server that draws the page never comes: it may drop the page on
        // another thread than it has drawn it on, and a stream is its thread's own.
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
            // A server that is stopped does not hang up; and one that has refused is not asked again by
            // the browser.
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

    /// Whether what is shown is current.
    pub fn is_connected(self) -> bool {
        self.is_connected.get()
    }
}
