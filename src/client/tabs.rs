//! What the tabs of a browser do one at a time, by its Web Locks.

use futures::{
    channel::oneshot,
    future::{Either, select},
};
use js_sys::{Function, Object, Promise, Reflect};
use leptos::{logging::warn, prelude::window, task::spawn_local};
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use wasm_bindgen_futures::JsFuture;
use web_sys::AbortSignal;

const NAME: &str = "hallpass-renewal";

/// How long one tab waits for another. Whoever waited in vain goes on without: the server answers two
/// tabs that refresh at the same time alike.
const PATIENCE_MS: u32 = 10_000;

/// The right to renew, among all tabs of this browser, until it is dropped.
pub struct Turn {
    release: Function,
}

impl Turn {
    /// Waits for it. `None` in a browser without Web Locks, and when another tab holds on to it.
    pub async fn wait() -> Option<Self> {
        let asking = request();
        let Ok((granted, request)) = asking else {
            warn!("This browser has no Web Locks: tabs may renew their token at the same time.");
            return None;
        };
        match select(granted, JsFuture::from(request)).await {
            Either::Left((Ok(release), request)) => {
                // It resolves with the release; nobody has to wait for that.
                spawn_local(async move { drop(request.await) });
                Some(Self { release })
            }
            _ => None,
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = self.release.call0(&JsValue::NULL);
    }
}

/// Asks for the lock: resolves with what gives it back, once it is ours.
fn request() -> Result<(oneshot::Receiver<Function>, Promise), JsValue> {
    let locks = Reflect::get(&window().navigator(), &"locks".into())?;
    let request: Function = Reflect::get(&locks, &"request".into())?.dyn_into()?;
    let options = Object::new();
    Reflect::set(&options, &"signal".into(), &AbortSignal::timeout_with_u32(PATIENCE_MS))?;
    let (grant, granted) = oneshot::channel();
    let hold = Closure::once_into_js(move || {
        let mut grant = Some(grant);
        // The lock is held until `release` is called.
        Promise::new(&mut |release, _| {
            if let Some(grant) = grant.take() {
                let _ = grant.send(release);
            }
        })
    });
    Ok((granted, request.call3(&locks, &NAME.into(), &options, &hold)?.dyn_into()?))
}
