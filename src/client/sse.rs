//! Server-sent events that a page receives: the version of the site and the end of its session, and the state of the
//! cluster.

use std::time::Duration;

use leptos::{
    ev,
    prelude::*,
    task::spawn_local,
    wasm_split::{SplitLoaderError, wasm_split},
};

use super::{
    lazy_app,
    new_version::NewVersion,
    session::Session,
    shared_stream::{Received, SharedStream},
};
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

/// Subscribes to the end of the session, and to the version of the site if the page shows it, for as long as `owner`
/// lives, while the page is visible. A hidden page has no connection, because the browser may suspend it.
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

    let version = use_context::<NewVersion>();
    let stream = StoredValue::new_local(None::<SharedStream>);
    let close = move || drop(stream.try_update_value(Option::take));
    Effect::new(move || {
        let tries = retries.get();
        // The stream of a session that this tab has replaced ends.
        session.replacements();
        close();
        if !session.is_signed_in() || !is_seen.get() {
            return;
        }
        let on_end = move |session_id: String, reason: String| {
            spawn_local(async move {
                // The page that has the connection may be of the session that this one has replaced.
                if session.is_of_another(&session_id) {
                    return;
                }
                // Before the browser reconnects, which the server would refuse after this last event.
                close();
                let reason = serde_json::from_str(&reason).unwrap_or(EndReason::SignedOut);
                session.on_revoked(&session_id, reason).await;
            });
        };
        let on_refusal = move || {
            spawn_local(async move {
                // Ends the session here if it has ended on the server.
                let _ = session.call(api::account::me).await;
            });
            let wait = (RETRY_AFTER * (tries + 1)).min(RETRY_AT_MOST);
            set_timeout(move || retries.try_update(|tries| *tries += 1).unwrap_or_default(), wait);
        };
        let on_receive = move |received| match received {
            Received::Event { name, data, id } if name == "ended" => on_end(id, data),
            Received::Event { data, .. } => version.into_iter().for_each(|version| version.compare(&data)),
            Received::Lost { is_refused: true } => on_refusal(),
            Received::Lost { is_refused: false } => {}
        };
        stream.set_value(Some(SharedStream::open(SESSION_EVENTS, &["live", "ended"], on_receive)));
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
            let stream = StoredValue::new_local(None::<SharedStream>);
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
                let on_receive = move |received| match received {
                    Received::Event { data, .. } => hear(data),
                    Received::Lost { .. } => lost(),
                };
                stream.set_value(Some(SharedStream::open(CLUSTER_EVENTS, &["message"], on_receive)));
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
