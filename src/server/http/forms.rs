//! Forms that a browser posts without scripts. Leptos answers whatever accepts `text/html` with a redirect
//! to the page that it came from, and an error in the address of that page; programs accept it by default,
//! too (Java's do), and have to get the answer itself. Here it is told apart, and which page it is.

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, Uri, header},
    middleware::Next,
    response::Response,
};
use serde::Deserialize;
use server_fn::error::ServerFnUrlError;

use crate::{
    api::error::ApiError,
    server::{AppState, config::ServerConfig, http::csrf::Target, origin::Origin},
};

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Stands before the path of a page where the form's own address is not known: only the path goes out.
const NO_ADDRESS: &str = "http://form.invalid";

/// Has a call that comes from a browser's form answered with a redirect to the form's page, and every other
/// with the answer itself.
pub async fn tell_apart(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    if !request.uri().path().starts_with("/api/") {
        return next.run(request).await;
    }
    let form = is_form(&request, &state.config.server);
    let page = form.then(|| page_of(&request, &state.config.server));
    let headers = request.headers_mut();
    match page.and_then(|page| HeaderValue::try_from(page).ok()) {
        Some(page) => {
            headers.insert(header::ACCEPT, HeaderValue::from_static("text/html"));
            headers.insert(header::REFERER, page);
        }
        None => {
            headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        }
    }
    let mut response = next.run(request).await;
    let location = response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
    let path = location.and_then(|location| location.strip_prefix(NO_ADDRESS));
    if let Some(path) = path.and_then(|path| HeaderValue::try_from(path).ok()) {
        response.headers_mut().insert(header::LOCATION, path);
    }
    response
}

/// Whether a browser's own form was posted: by `Sec-Fetch-Mode` where the browser says it. Browsers leave it
/// out on plain http, yet name in `Origin` or `Referer` a page of ours, which programs do not.
fn is_form(request: &Request<Body>, server: &ServerConfig) -> bool {
    let text = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    let content_type = text(header::CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
    if request.method() != Method::POST || !content_type.starts_with("application/x-www-form-urlencoded") {
        return false;
    }
    match text(SEC_FETCH_MODE) {
        Some(mode) => mode == "navigate",
        None => {
            let page = text(header::ORIGIN).or(text(header::REFERER)).and_then(Origin::of_page);
            let is_ours = page.is_some_and(|(origin, _)| Target::of(request, server).is(&origin));
            let bearer = text(header::AUTHORIZATION).and_then(|value| value.get(..7));
            let has_bearer = bearer.is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer "));
            is_ours && !has_bearer && text(header::ACCEPT).is_some_and(|accept| accept.contains("text/html"))
        }
    }
}

/// The address of the form's page: what `Referer` names if that is a page where the answer can be shown. It
/// can be missing, and some browsers cut the path off.
fn page_of(request: &Request, server: &ServerConfig) -> String {
    let referer = request.headers().get(header::REFERER).and_then(|value| value.to_str().ok());
    let page = referer.and_then(Origin::of_page);
    let page = page.filter(|(origin, _)| Target::of(request, server).is(origin)).map(|(_, page)| page);
    let path = page.map(|page| page.split(['?', '#']).next().unwrap_or_default());
    let form = match request.uri().path() {
        "/api/auth/login" => Some("/login"),
        "/api/auth/register" => Some("/register"),
        "/api/account/change_password" => Some("/password"),
        // Each page has that button, and says how it went.
        _ => None,
    };
    match (referer, form) {
        (Some(referer), Some(form)) if path == Some(form) => without_error(referer),
        (Some(referer), None) if path.is_some_and(|path| path.starts_with('/')) => without_error(referer),
        (_, form) => format!("{NO_ADDRESS}{}", form.unwrap_or("/")),
    }
}

/// The address without the error of an earlier form, which would be shown instead of the next one.
fn without_error(address: &str) -> String {
    let Some((page, query)) = address.split_once('?') else { return address.to_owned() };
    let kept = query.split('&').filter(|pair| !pair.starts_with("__path=") && !pair.starts_with("__err="));
    match kept.collect::<Vec<_>>().join("&") {
        query if query.is_empty() => page.to_owned(),
        query => format!("{page}?{query}"),
    }
}

/// What the address of a page says about the form that was posted on it.
#[derive(Deserialize)]
struct Posted {
    #[serde(rename = "__path")]
    path: String,
    #[serde(rename = "__err")]
    error: String,
}

/// The logout that failed before a browser was sent to this page: the page says so, and so does its status.
pub fn failed_logout(page: &Uri) -> Option<ApiError> {
    let posted: Posted = serde_qs::from_str(page.query()?).ok()?;
    let is_logout = posted.path == "/api/auth/logout";
    let error = is_logout.then(|| ServerFnUrlError::<ApiError>::decode_err(&posted.error))?;
    Some(if error == ApiError::Transport { ApiError::Unavailable } else { error })
}
