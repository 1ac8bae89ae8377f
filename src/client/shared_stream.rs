//! Server-sent events, over one connection for all pages of this browser.
//!
//! A browser opens six connections to a server at most, and each stream occupies one. So of all pages that follow
//! the same events, one holds a lock, the *leader*: it has the connection, and sends what it receives to the others
//! over a `BroadcastChannel`. When it stops to follow, is hidden or closed, the browser grants the lock to the next
//! page. Where a browser has no locks or channels, each page has a connection of its own.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
};

use js_sys::{Array, Reflect};
use leptos::task::spawn_local;
use wasm_bindgen::{JsCast, JsValue, prelude::Closure};
use web_sys::{BroadcastChannel, EventSource, MessageEvent};

use super::web_lock::WebLock;

/// What a page receives.
pub enum Received {
    Event {
        name: String,
        data: String,
        /// The `id` of the event, if it or an earlier one has one.
        id: String,
    },
    /// The connection was lost. The browser opens it again, unless the server has refused it.
    Lost { is_refused: bool },
}

/// A subscription to events at a path. It ends when it is dropped.
pub struct SharedStream {
    _subscription: Rc<Subscription>,
}

struct Subscription {
    on_receive: Box<dyn Fn(Received)>,
    channel: Option<Channel>,
    /// The connection of the leader, with the lock, which is released last.
    connection: RefCell<Option<(Connection, Option<WebLock>)>>,
}

impl SharedStream {
    /// Calls `on_receive` with the events of these names that arrive.
    pub fn open(
        path: &'static str,
        events: &'static [&'static str],
        on_receive: impl Fn(Received) + 'static,
    ) -> Self {
        let name = format!("{path} {MESSAGES}");
        let subscription = Rc::new_cyclic(|weak: &Weak<Subscription>| Subscription {
            on_receive: Box::new(on_receive),
            channel: Channel::open(&name, weak.clone()),
            connection: RefCell::default(),
        });
        let lock = subscription.channel.as_ref().and_then(|_| WebLock::request(&name).ok());
        match lock {
            Some(lock) => {
                let weak = Rc::downgrade(&subscription);
                spawn_local(async move {
                    let lock = lock.await;
                    if let Some(subscription) = weak.upgrade() {
                        subscription.connect(path, events, lock);
                    }
                });
            }
            None => subscription.connect(path, events, None),
        }
        Self { _subscription: subscription }
    }
}

impl Subscription {
    fn connect(self: &Rc<Self>, path: &str, events: &[&str], lock: Option<WebLock>) {
        let (weak, is_leader) = (Rc::downgrade(self), lock.is_some());
        let connection = Connection::open(path, events, move |received| {
            let Some(subscription) = weak.upgrade() else { return };
            if let Some(channel) = subscription.channel.as_ref().filter(|_| is_leader) {
                channel.send(&received);
            }
            (subscription.on_receive)(received);
        });
        self.connection.replace(connection.map(|connection| (connection, lock)));
    }
}

type Listener = Closure<dyn Fn(MessageEvent)>;

/// A connection to the server, closed when it is dropped.
struct Connection {
    source: EventSource,
    _on_event: Listener,
    _on_error: Listener,
}

impl Connection {
    fn open(path: &str, events: &[&str], on_receive: impl Fn(Received) + Clone + 'static) -> Option<Self> {
        let source = EventSource::new(path).ok()?;
        let failed = source.clone();
        let on_error = {
            let on_receive = on_receive.clone();
            Listener::new(move |_| {
                on_receive(Received::Lost { is_refused: failed.ready_state() == EventSource::CLOSED });
            })
        };
        let on_event = Listener::new(move |message: MessageEvent| {
            let data = message.data().as_string().unwrap_or_default();
            // By name, which keeps the first load of every page small.
            let id = Reflect::get(&message, &"lastEventId".into()).ok().and_then(|id| id.as_string());
            let id = id.unwrap_or_default();
            on_receive(Received::Event { name: message.type_(), data, id });
        });
        for event in events {
            let _ = source.add_event_listener_with_callback(event, on_event.as_ref().unchecked_ref());
        }
        source.set_onerror(Some(on_error.as_ref().unchecked_ref()));
        Some(Self { source, _on_event: on_event, _on_error: on_error })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.source.set_onerror(None);
        self.source.close();
    }
}

/// The version of the messages among pages. Pages of another version of the site may read others, so each version has
/// a leader of its own.
const MESSAGES: u32 = 3;

/// The channel to the other pages. Events are sent as a name, data and id, losses as booleans.
struct Channel {
    channel: BroadcastChannel,
    _listener: Listener,
}

impl Channel {
    fn open(name: &str, subscription: Weak<Subscription>) -> Option<Self> {
        let channel = BroadcastChannel::new(name).ok()?;
        let listener = Listener::new(move |message: MessageEvent| {
            let data = message.data();
            let received = match data.as_bool() {
                Some(is_refused) => Received::Lost { is_refused },
                None => {
                    let [name, data, id] =
                        [0, 1, 2].map(|index| Array::from(&data).get(index).as_string().unwrap_or_default());
                    Received::Event { name, data, id }
                }
            };
            if let Some(subscription) = subscription.upgrade() {
                (subscription.on_receive)(received);
            }
        });
        channel.set_onmessage(Some(listener.as_ref().unchecked_ref()));
        Some(Self { channel, _listener: listener })
    }

    fn send(&self, received: &Received) {
        let _ = self.channel.post_message(&match received {
            Received::Event { name, data, id } => Array::of3(&name.into(), &data.into(), &id.into()).into(),
            Received::Lost { is_refused } => JsValue::from(*is_refused),
        });
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.channel.set_onmessage(None);
        self.channel.close();
    }
}
