//! What the server tells this page without being asked (server-sent events).

use leptos::prelude::*;
use wasm_bindgen::{JsCast, prelude::Closure};
use web_sys::{EventSource, MessageEvent};

use super::session::Session;
use crate::api::{self, CLUSTER_EVENTS, types::ClusterView};

/// How the servers are, by what one of them said last.
#[derive(Clone, Copy)]
pub struct LiveCluster {
    view: RwSignal<Option<ClusterView>>,
    is_connected: RwSignal<bool>,
}

impl LiveCluster {
    /// Listens until the page is left. The browser connects again by itself; when it is refused,
    /// the session is asked whether it still holds.
    pub fn listen(session: Session) -> Self {
        let live = Self { view: RwSignal::new(None), is_connected: RwSignal::new(true) };
        Effect::new(move || live.connect(session));
        live
    }

    fn connect(self, session: Session) {
        let Ok(source) = EventSource::new(CLUSTER_EVENTS) else {
            self.is_connected.set(false);
            return;
        };
        let on_message = Closure::<dyn Fn(MessageEvent)>::new(move |message: MessageEvent| {
            let view = message.data().as_string().and_then(|text| serde_json::from_str(&text).ok());
            if let Some(view) = view {
                self.view.try_set(Some(view));
                self.is_connected.try_set(true);
            }
        });
        let refused = source.clone();
        let on_error = Closure::<dyn Fn()>::new(move || {
            self.is_connected.try_set(false);
            if refused.ready_state() == EventSource::CLOSED {
                leptos::task::spawn_local(async move {
                    // Ends the session here if it has ended there.
                    let _ = session.call(api::account::me).await;
                });
            }
        });
        source.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        source.set_onerror(Some(on_error.as_ref().unchecked_ref()));
        let listening = StoredValue::new_local((source, on_message, on_error));
        on_cleanup(move || {
            listening.with_value(|(source, ..)| {
                source.set_onmessage(None);
                source.set_onerror(None);
                source.close();
            });
        });
    }

    /// `None` until the first word has come.
    pub fn view(self) -> Option<ClusterView> {
        self.view.get()
    }

    /// Whether what is shown is current.
    pub fn is_connected(self) -> bool {
        self.is_connected.get()
    }
}
