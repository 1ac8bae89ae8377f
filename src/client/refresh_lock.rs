//! The lock by which only one tab of a browser renews the token at a time (Web Locks API).

use futures::{
    channel::oneshot,
    future::{Either, select},
};
use gloo_timers::future::TimeoutFuture;
use js_sys::{Function, Promise, Reflect};
use leptos::{logging::warn, prelude::window};
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use wasm_bindgen_futures::JsFuture;

const NAME: &str = "hallpass-renewal";

/// How long one tab waits for another. After that it renews without the lock: the other tab must be frozen,
/// because every renewal has ended by then.
pub(super) const TIMEOUT_MS: u32 = 25_000;

/// The lock on renewal among all tabs of this browser, held until it is dropped.
pub struct Turn {
    release: Function,
}

impl Turn {
    /// Acquires the lock. `None` in a browser without Web Locks, and when another tab does not release it.
    pub async fn wait() -> Option<Self> {
        let Ok((granted, request)) = request() else {
            warn!("This browser has no Web Locks: tabs may renew their token at the same time.");
            return None;
        };
        let refused = select(JsFuture::from(request), TimeoutFuture::new(TIMEOUT_MS));
        match select(granted, refused).await {
            Either::Left((Ok(release), _)) => Some(Self { release }),
            _ => None,
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        give_back(&self.release);
    }
}

fn give_back(release: &Function) {
    let _ = release.call0(&JsValue::NULL);
}

/// Requests the lock. Once it is granted, the receiver gets the function that releases it; if the receiver
/// has been dropped by then, the lock is released at once.
fn request() -> Result<(oneshot::Receiver<Function>, Promise), JsValue> {
    let locks = Reflect::get(&window().navigator(), &"locks".into())?;
    let request: Function = Reflect::get(&locks, &"request".into())?.dyn_into()?;
    let (grant, granted) = oneshot::channel();
    let hold = Closure::once_into_js(move || {
        let mut grant = Some(grant);
        // The browser holds the lock until this promise resolves: until `release` is called.
        Promise::new(&mut |release, _| {
            if let Some(grant) = grant.take()
                && let Err(release) = grant.send(release)
            {
                give_back(&release);
            }
        })
    });
    Ok((granted, request.call2(&locks, &NAME.into(), &hold)?.dyn_into()?))
}
