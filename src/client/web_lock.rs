//! Locks among all tabs of this browser (Web Locks API). The browser releases those of a tab that is closed.

use futures::{
    channel::oneshot,
    future::{Either, select},
};
use js_sys::{Function, Promise, Reflect};
use leptos::prelude::window;
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use wasm_bindgen_futures::JsFuture;

/// A lock, held until it is dropped.
pub struct WebLock {
    release: Function,
}

impl WebLock {
    /// Requests the lock of that name. The future resolves when it is granted, or with `None` if the browser
    /// refuses the request. If the future is dropped, the lock is released as soon as it is granted.
    ///
    /// # Errors
    /// The browser has no Web Locks.
    pub fn request(name: &str) -> Result<impl Future<Output = Option<Self>> + use<>, JsValue> {
        let (granted, request) = request(name)?;
        let refused = JsFuture::from(request);
        Ok(async move {
            match select(granted, refused).await {
                Either::Left((Ok(release), _)) => Some(Self { release }),
                _ => None,
            }
        })
    }
}

impl Drop for WebLock {
    fn drop(&mut self) {
        give_back(&self.release);
    }
}

fn give_back(release: &Function) {
    let _ = release.call0(&JsValue::NULL);
}

/// Requests the lock. Once it is granted, the receiver gets the function that releases it; if the receiver
/// has been dropped by then, the lock is released at once.
fn request(name: &str) -> Result<(oneshot::Receiver<Function>, Promise), JsValue> {
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
    Ok((granted, request.call2(&locks, &name.into(), &hold)?.dyn_into()?))
}
