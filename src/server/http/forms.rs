//! Forms that a browser posts without scripts. They are answered with a redirect to the page of the form, with an
//! error in the address of that page. Programs get the answer itself, even if they accept `text/html` by default, as
//! Java's do. This module tells the two apart, and finds the page of a form.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use server_fn::error::ServerFnUrlError;

use crate::{
    api::error::ApiError,
    server::{config::ServerConfig, http::csrf::Target, origin::Origin},
};

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// A placeholder for the origin of a form's page that is not known. It is removed from the response, so that
/// only the path is sent.
const NO_ADDRESS: &str = "http://form.invalid";

/// The page of the form, if a browser has posted this call as one.
pub fn page_of_form(request: &Request, server: &ServerConfig) -> Option<String> {
    is_form(request, server).then(|| page_of(request, server))
}

/// The page of the form, if a browser has posted it by http to a site that keeps its cookies over https only.
pub fn page_of_form_by_http(request: &Request, server: &ServerConfig) -> Option<String> {
    let origin = request.headers().get(header::ORIGIN).and_then(|value| Origin::parse(value.to_str().ok()?));
    let by_http = origin.is_some_and(|origin| {
        server.https && !origin.is_https && Target::of(request, server).is_host_of(&origin)
    });
    (by_http && has_form(request) && accepts_html(request)).then(|| page_of(request, server))
}

/// Redirects the browser to the page of the form that it has posted to `path`. The page shows the error.
///
/// After a login, the page redirects on, unless the browser has not kept the cookie: then it shows that.
pub fn redirect(page: &str, path: &str, error: Option<ApiError>) -> Response {
    let (page, error) = match (path, error) {
        ("/api/auth/login" | "/api/auth/register", None) => {
            (page.replacen("/register", "/login", 1), Some(ApiError::no_refresh_token()))
        }
        // These pages have nothing of the page to go back to: the token in its address is used up.
        ("/api/auth/forgot_password", None) => (format!("{NO_ADDRESS}/forgot?done"), None),
        ("/api/auth/reset_password", None) => (format!("{NO_ADDRESS}/reset?done"), None),
        ("/api/auth/verify_email", None) => (format!("{NO_ADDRESS}/verify?done"), None),
        (_, error) => (page.to_owned(), error),
    };
    let address = match error.map(|error| ServerFnUrlError::new(path, error).to_url(&page)) {
        Some(Ok(address)) => address.to_string(),
        Some(Err(_)) | None => page,
    };
    let location = HeaderValue::try_from(address.strip_prefix(NO_ADDRESS).unwrap_or(&address));
    match location {
        Ok(location) => (StatusCode::FOUND, [(header::LOCATION, location)]).into_response(),
        Err(_) => ApiError::Internal.into_response(),
    }
}

/// Whether a browser has posted a form: by `Sec-Fetch-Mode` if the browser sends it. Over plain http browsers
/// leave it out, but name a page of this site in `Origin` or `Referer`, which programs do not.
fn is_form(request: &Request<Body>, server: &ServerConfig) -> bool {
    let text = |name| text(request, name);
    if !has_form(request) {
        return false;
    }
    match text(SEC_FETCH_MODE) {
        Some(mode) => mode == "navigate",
        None => {
            let page = text(header::ORIGIN).or(text(header::REFERER)).and_then(Origin::of_page);
            let is_ours = page.is_some_and(|(origin, _)| Target::of(request, server).has_origin(&origin));
            let bearer = text(header::AUTHORIZATION).and_then(|value| value.get(..7));
            let has_bearer = bearer.is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer "));
            is_ours && !has_bearer && accepts_html(request)
        }
    }
}

fn has_form(request: &Request) -> bool {
    let content_type = text(request, header::CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
    request.method() == Method::POST && content_type.starts_with("application/x-www-form-urlencoded")
}

fn accepts_html(request: &Request) -> bool {
    text(request, header::ACCEPT).is_some_and(|accept| accept.contains("text/html"))
}

/// The value of a header; empty if it is not ASCII.
fn text(request: &Request, name: HeaderName) -> Option<&str> {
    request.headers().get(name).map(|value| value.to_str().unwrap_or_default())
}

/// The address of the form's page: `Referer`, if that names a page on which the answer can be shown. It can
/// be missing, and some browsers cut the path off.
fn page_of(request: &Request, server: &ServerConfig) -> String {
    let referer = request.headers().get(header::REFERER).and_then(|value| value.to_str().ok());
    let page = referer.and_then(Origin::of_page);
    let page =
        page.filter(|(origin, _)| Target::of(request, server).has_origin(origin)).map(|(_, page)| page);
    let path = page.map(|page| page.split(['?', '#']).next().unwrap_or_default());
    let form = match request.uri().path() {
        "/api/auth/login" => Some("/login"),
        "/api/auth/register" => Some("/register"),
        "/api/auth/forgot_password" => Some("/forgot"),
        "/api/auth/reset_password" => Some("/reset"),
        "/api/auth/verify_email" => Some("/verify"),
        "/api/account/change_password" => Some("/password"),
        // Every page has the button for logout, and shows the result.
        _ => None,
    };
    match (referer, form) {
        (Some(referer), Some(form)) if path == Some(form) => without_error(referer),
        (Some(referer), None) if path.is_some_and(|path| path.starts_with('/')) => without_error(referer),
        (_, form) => format!("{NO_ADDRESS}{}", form.unwrap_or("/")),
    }
}

/// The address without the error of an earlier form, which would be shown instead of the next error.
fn without_error(address: &str) -> String {
    let Some((page, query)) = address.split_once('?') else { return address.to_owned() };
    let kept = query.split('&').filter(|pair| !pair.starts_with("__path=") && !pair.starts_with("__err="));
    match kept.collect::<Vec<_>>().join("&") {
        query if query.is_empty() => page.to_owned(),
        query => format!("{page}?{query}"),
    }
}

/// The result of a posted form, in the query of the page's address.
#[derive(Deserialize)]
struct Posted {
    #[serde(rename = "__path")]
    path: String,
    #[serde(rename = "__err")]
    error: String,
}

/// The error of a failed logout, after which the browser was redirected to this page. The page shows it, and
/// the response has its status.
pub fn failed_logout(page: &Uri) -> Option<ApiError> {
    let posted: Posted = serde_qs::from_str(page.query()?).ok()?;
    let is_logout = posted.path == "/api/auth/logout";
    let error = is_logout.then(|| ServerFnUrlError::<ApiError>::decode_err(&posted.error))?;
    Some(if error == ApiError::Transport { ApiError::Unavailable } else { error })
}
