//! The access token as its owner examines it on the token page: decoded, sent by hand, copied. All other
//! calls use [`bearer`](super::bearer) and [`refresh`](super::refresh).

use std::cell::RefCell;

use gloo_net::http::{Method, RequestBuilder, Response};
use js_sys::{Array, JSON, Object};
use leptos::prelude::{document, window};
use wasm_bindgen::{JsCast, JsValue};
use web_sys::RequestCredentials;

use super::{
    storage::{self, StoredToken, device_now},
    timeout::now_ms,
};
use crate::api::{self, INSTANCE_HEADER, NOTES_ATTRIBUTE, error::ApiError, types::StatelessCheck};

/// A call that a token is tested with: it is answered from memory, and only for a live token.
#[derive(Clone, PartialEq)]
pub enum ProtectedCall {
    /// Hallpass returns the account.
    Account,
    /// The example service `notes`, which has a guard, returns the user's notes.
    Notes {
        /// The path on this site.
        path: String,
    },
}

impl ProtectedCall {
    /// The call of the example service, if it is served on this site.
    pub fn notes() -> Option<Self> {
        let path = document().document_element()?.get_attribute(NOTES_ATTRIBUTE)?;
        Some(Self::Notes { path })
    }
}

/// An access token that its owner looks at. Its text is shown only in the owner's page.
#[derive(Clone, PartialEq)]
pub struct HeldToken(StoredToken);

/// The three parts of a JWT (RFC 7515, 3.1), encoded and decoded.
#[derive(Clone, Default, PartialEq)]
pub struct TokenParts {
    /// The header, the claims and the signature, as they appear in the token.
    pub encoded: [String; 3],
    pub header: Vec<Statement>,
    pub claims: Vec<Statement>,
}

/// A header parameter or a claim, with its value.
#[derive(Clone, PartialEq)]
pub struct Statement {
    pub name: String,
    pub value: String,
}

/// The service that answered a call.
#[derive(Clone, PartialEq)]
pub enum Responder {
    /// The instance with this name; empty if a proxy answered.
    Server(String),
    Notes,
}

/// The answer to a call with the token.
#[derive(Clone, PartialEq)]
pub struct Answer {
    /// The method and the path of the call.
    pub request_line: String,
    pub status: u16,
    pub responder: Responder,
    /// The reason for a refusal: the `WWW-Authenticate` header (RFC 6750, 3).
    pub challenge: String,
    /// The JSON of the answer, indented.
    pub body: String,
    /// The time from the call to the answer, in milliseconds.
    pub elapsed_ms: u32,
}

impl HeldToken {
    /// The token that this browser stores.
    pub fn current() -> Option<Self> {
        storage::load().map(Self)
    }

    /// Whether both are the same token, whatever is stored with them.
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.access_token == other.0.access_token
    }

    /// Seconds until the token expires, by the server's clock.
    pub fn seconds_left(&self) -> u32 {
        self.0.seconds_left(device_now()).max(0.0) as u32
    }

    /// The time of day at which the token expires, by the clock of this device.
    pub fn expiry(&self) -> String {
        time_of_day(device_now() + f64::from(self.seconds_left()))
    }

    /// Seconds until the next token is fetched.
    pub fn seconds_to_refresh(&self) -> u32 {
        self.0.seconds_to_refresh(device_now()).max(0.0).ceil() as u32
    }

    /// The lifetime of the token when it was issued, in seconds.
    pub fn lifetime(&self) -> u32 {
        self.0.lifetime as u32
    }

    /// Decodes the token without verifying it: that is up to the server.
    pub fn parts(&self) -> TokenParts {
        let mut parts = self.0.access_token.expose().splitn(3, '.').map(str::to_owned);
        let encoded = [(); 3].map(|()| parts.next().unwrap_or_default());
        let [header, claims] = [&encoded[0], &encoded[1]].map(|part| statements(part).unwrap_or_default());
        TokenParts { encoded, header, claims }
    }

    /// The address of its user.
    pub fn email(&self) -> Option<String> {
        self.parts().claims.into_iter().find(|claim| claim.name == "email").map(|claim| claim.value)
    }

    /// Makes the call with this token alone: no cookie, no renewal.
    ///
    /// # Errors
    /// [`ApiError::Transport`] if there was no answer.
    pub async fn call(&self, call: &ProtectedCall) -> Result<Answer, ApiError> {
        let (method, path) = match call {
            ProtectedCall::Account => (Method::POST, "/api/account/me"),
            ProtectedCall::Notes { path } => (Method::GET, path.as_str()),
        };
        let request_line = format!("{method} {path}");
        let start = now_ms();
        let request = RequestBuilder::new(path)
            .method(method)
            .credentials(RequestCredentials::Omit)
            .header("Authorization", &format!("Bearer {}", self.0.access_token.expose()))
            .send();
        let response = request.await.map_err(|_| ApiError::Transport)?;
        let elapsed_ms = (now_ms() - start).round() as u32;
        let header = |name| Response::headers(&response).get(name).unwrap_or_default();
        let challenge = header("WWW-Authenticate");
        let responder = match call {
            ProtectedCall::Account => Responder::Server(header(INSTANCE_HEADER)),
            ProtectedCall::Notes { .. } => Responder::Notes,
        };
        let body = response.text().await.map_err(|_| ApiError::Transport)?;
        let body = laid_out(&body).unwrap_or(body);
        Ok(Answer { request_line, status: response.status(), responder, challenge, body, elapsed_ms })
    }

    /// The result of a stateless check, which does not ask whether the token has been revoked.
    ///
    /// # Errors
    /// The error of the call.
    pub async fn check_statelessly(&self) -> Result<StatelessCheck, ApiError> {
        api::token::check_statelessly(self.0.access_token.clone()).await
    }
}

thread_local! {
    static KEPT: RefCell<Option<HeldToken>> = const { RefCell::new(None) };
}

/// Keeps a copy beyond the end of the session, as a thief would: in this tab's memory, until the page is
/// closed.
pub fn keep_copy(token: HeldToken) {
    KEPT.set(Some(token));
}

pub fn kept_copy() -> Option<HeldToken> {
    KEPT.with_borrow(Clone::clone)
}

pub fn forget_copy() {
    KEPT.take();
}

/// The time of day at `unix_seconds`, in the time zone and the format of this device.
pub fn time_of_day(unix_seconds: f64) -> String {
    let date = js_sys::Date::new(&JsValue::from_f64(unix_seconds * 1000.0));
    date.to_locale_time_string("default").into()
}

fn statements(part: &str) -> Option<Vec<Statement>> {
    let bytes = window().atob(&part.replace('-', "+").replace('_', "/")).ok()?;
    let text = String::from_utf8(bytes.chars().map(|byte| byte as u8).collect()).ok()?;
    let object: Object = JSON::parse(&text).ok()?.dyn_into().ok()?;
    let statement = |entry: JsValue| {
        let entry: Array = entry.unchecked_into();
        let value = entry.get(1);
        let text = value.as_string().or_else(|| JSON::stringify(&value).ok().map(String::from));
        Some(Statement { name: entry.get(0).as_string()?, value: text? })
    };
    Object::entries(&object).iter().map(statement).collect()
}

fn laid_out(json: &str) -> Option<String> {
    let value = JSON::parse(json).ok()?;
    let text = JSON::stringify_with_replacer_and_space(&value, &JsValue::NULL, &JsValue::from(2));
    text.ok().map(String::from)
}
