//! Refuses what another site makes a browser send. A browser adds our cookie to such a request on
//! its own, so the cookie proves nothing about who wrote the request.

use axum::{
    extract::Request,
    http::{HeaderMap, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::api::error::AuthError;

/// Lets a state-changing request pass only if no other site sent it: by `Sec-Fetch-Site` where the
/// browser says it, else by comparing `Origin` with `Host`. A request with neither comes from no
/// browser of this decade, and programs are nobody's confused deputy: it passes. (The algorithm
/// of Go's `http.CrossOriginProtection`, 2025.)
pub async fn same_site_only(request: Request, next: Next) -> Response {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if safe || is_same_site(request.headers()) {
        next.run(request).await
    } else {
        AuthError::CrossSite.into_response()
    }
}

/// Refuses what asks for a tunnel: such a request has no path, which those behind take for granted.
pub async fn no_tunnels(request: Request, next: Next) -> Response {
    if request.uri().path_and_query().is_some() {
        next.run(request).await
    } else {
        AuthError::MethodNotAllowed.into_response()
    }
}

fn is_same_site(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match (text(header::HeaderName::from_static("sec-fetch-site")), text(header::ORIGIN)) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, None) => true,
        (None, Some(origin)) => {
            let host = origin.split_once("://").map(|(_, host)| host);
            host.is_some() && host == text(header::HOST)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(site: Option<&'static str>, origin: Option<&'static str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "hallpass.test:3000".parse().unwrap());
        if let Some(site) = site {
            headers.insert("sec-fetch-site", site.parse().unwrap());
        }
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        is_same_site(&headers)
    }

    #[test]
    fn only_our_own_pages_and_programs_may_post() {
        let origins = [
            None,
            Some("http://hallpass.test:3000"),
            Some("http://evil.test"),
            Some("http://hallpass.test:3000.evil.test"),
            Some("null"),
        ];
        for origin in origins {
            assert!(allowed(Some("same-origin"), origin) && allowed(Some("none"), origin));
            assert!(!allowed(Some("cross-site"), origin) && !allowed(Some("same-site"), origin));
        }
        assert_eq!(origins.map(|origin| allowed(None, origin)), [true, true, false, false, false]);
    }
}
