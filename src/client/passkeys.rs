//! Passkeys (WebAuthn): what the browser and the address of the page allow, and the two ceremonies.
//!
//! [`Support::of_page`] is for all pages. The ceremonies belong into the part of the wasm that
//! [`lazy_app`](super::lazy_app) describes.

use std::cell::RefCell;

use js_sys::{Function, JSON, Object, Promise, Reflect};
use leptos::prelude::window;
use thiserror::Error;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::AbortController;

use crate::api::error::ApiError;

/// Whether passkeys work on this page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    Works,
    /// The browser has no passkeys, or is too old to read their options from JSON, or has loaded the page by http.
    NotInThisBrowser,
    /// A passkey is for a name, and the page was opened by an IP address.
    NotAtThisAddress,
}

impl Support {
    /// The support of this browser at the address of this page.
    pub fn of_page() -> Self {
        let host = Reflect::get(&window().location(), &"hostname".into());
        let host = host.ok().and_then(|host| host.as_string()).unwrap_or_default();
        // The browser writes IPv6 in brackets, and IPv4 with four decimal numbers.
        if host.starts_with('[') || host.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit()) {
            return Self::NotAtThisAddress;
        }
        // Chrome 129, Firefox 119, Safari 18.4.
        let parses = class().and_then(|class| Reflect::get(&class, &PARSE_CREATION_OPTIONS.into()));
        if parses.is_ok_and(|parses| parses.is_function()) { Self::Works } else { Self::NotInThisBrowser }
    }
}

const PARSE_CREATION_OPTIONS: &str = "parseCreationOptionsFromJSON";
const PARSE_REQUEST_OPTIONS: &str = "parseRequestOptionsFromJSON";

/// The first words of [`PasskeyError::Canceled`], by which a form of the front recognizes it.
pub const CANCELED: &str = "No passkey was used";

/// The reason why a ceremony has failed in the browser. The text is for the user.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PasskeyError {
    /// The user has closed the browser's dialog, or it has timed out: browsers do not say which.
    #[error("{CANCELED}: the request was canceled, or took too long.")]
    Canceled,
    /// Another ceremony of this page has begun.
    #[error("Another request for a passkey has begun.")]
    Superseded,
    #[error("This device or security key has a passkey for your account already.")]
    AlreadyThere,
    #[error("Passkeys do not work at this address of the site.")]
    WrongAddress,
    #[error("The browser could not use a passkey. Try again, or sign in in another way.")]
    Failed,
}

impl PasskeyError {
    fn of(error: &JsValue) -> Self {
        let name = Reflect::get(error, &"name".into()).ok().and_then(|name| name.as_string());
        match name.as_deref() {
            Some("NotAllowedError") => Self::Canceled,
            Some("AbortError") => Self::Superseded,
            Some("InvalidStateError") => Self::AlreadyThere,
            Some("SecurityError") => Self::WrongAddress,
            _ => Self::Failed,
        }
    }
}

impl From<PasskeyError> for ApiError {
    fn from(error: PasskeyError) -> Self {
        Self::InvalidRequest(error.to_string())
    }
}

thread_local! {
    /// Aborts the request that waits for the user to choose a passkey in a field, if there is one.
    static WAITING: RefCell<Option<AbortController>> = const { RefCell::new(None) };
}

/// Aborts the request of [`get_by_autofill`] that is pending: a browser has one request at a time.
pub fn stop_autofill() {
    if let Some(controller) = WAITING.take() {
        controller.abort();
    }
}

/// Has the browser make a passkey, by these options (JSON). Returns the credential as JSON.
///
/// # Errors
/// The browser has made none.
pub async fn create(options: &str) -> Result<String, PasskeyError> {
    stop_autofill();
    text_of("create", &argument(PARSE_CREATION_OPTIONS, options)?).await
}

/// Has the browser ask the user for a passkey in a dialog, by these options (JSON). Returns its answer as JSON.
///
/// # Errors
/// The user has none for this site, or does not want to use it.
pub async fn get(options: &str) -> Result<String, PasskeyError> {
    stop_autofill();
    text_of("get", &argument(PARSE_REQUEST_OPTIONS, options)?).await
}

/// Waits until the user chooses a passkey among the suggestions for a field with the autocomplete value `webauthn`.
///
/// # Errors
/// The user has chosen none before [`stop_autofill`] was called, or the browser has refused.
pub async fn get_by_autofill(options: &str) -> Result<String, PasskeyError> {
    stop_autofill();
    let argument = argument(PARSE_REQUEST_OPTIONS, options)?;
    let controller = AbortController::new().map_err(|error| PasskeyError::of(&error))?;
    set(&argument, "mediation", &"conditional".into());
    set(&argument, "signal", &controller.signal());
    WAITING.set(Some(controller));
    text_of("get", &argument).await
}

/// Whether this browser suggests passkeys in fields.
pub async fn has_autofill() -> bool {
    let answer =
        async { resolve(call(&class()?, "isConditionalMediationAvailable", &JsValue::UNDEFINED)?).await };
    answer.await.is_ok_and(|is_available| is_available.is_truthy())
}

/// The argument for `navigator.credentials`, with the options that this method of `PublicKeyCredential` makes of JSON.
fn argument(parse: &str, options: &str) -> Result<Object, PasskeyError> {
    let parsed = JSON::parse(options).and_then(|json| call(&class()?, parse, &json));
    let argument = Object::new();
    set(&argument, "publicKey", &parsed.map_err(|error| PasskeyError::of(&error))?);
    Ok(argument)
}

fn set(object: &Object, key: &str, value: &JsValue) {
    let _ = Reflect::set(object, &key.into(), value);
}

/// The credential that this method of `navigator.credentials` answers with, as JSON text.
async fn text_of(method: &str, argument: &Object) -> Result<String, PasskeyError> {
    let answer = async {
        let credentials = Reflect::get(&window().navigator(), &"credentials".into())?;
        resolve(call(&credentials, method, argument)?).await
    };
    let credential = answer.await.map_err(|error| PasskeyError::of(&error))?;
    if credential.is_null() {
        return Err(PasskeyError::Canceled);
    }
    let json = call(&credential, "toJSON", &JsValue::UNDEFINED).and_then(|json| JSON::stringify(&json));
    json.map(String::from).map_err(|_| PasskeyError::Failed)
}

// By name: each declaration of a function of the browser would be part of the first load of every page.

fn class() -> Result<JsValue, JsValue> {
    Reflect::get(&window(), &"PublicKeyCredential".into())
}

fn call(object: &JsValue, method: &str, argument: &JsValue) -> Result<JsValue, JsValue> {
    let method: Function = Reflect::get(object, &method.into())?.dyn_into()?;
    method.call1(object, argument)
}

async fn resolve(promise: JsValue) -> Result<JsValue, JsValue> {
    JsFuture::from(promise.dyn_into::<Promise>()?).await
}
