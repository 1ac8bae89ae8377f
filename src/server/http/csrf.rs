//! Protection against cross-site request forgery. A browser adds the cookie to requests that other sites make
//! it send, so the cookie does not prove that a page of this site has sent the request.

use std::{
    net::SocketAddr,
    sync::{Mutex, Once, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{ConnectInfo, Request},
    http::{
        HeaderName, Method,
        header::{self, AsHeaderName},
        uri::Authority,
    },
};
use tracing::warn;

use crate::{
    api::error::ApiError,
    server::{
        config::ServerConfig,
        origin::{Host, Origin},
    },
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The minimum time between two log lines about refused requests, because anyone can cause them.
const LOG_EVERY: Duration = Duration::from_mins(1);

/// Refuses state-changing requests from other origins: by `Sec-Fetch-Site` if the browser sends it, else by
/// comparing `Origin` with `Host`. A request with neither passes: current browsers send one of them, and other
/// programs do not act for foreign pages. (This is the algorithm of Go's `http.CrossOriginProtection`, 2025.)
///
/// # Errors
/// [`ApiError::CrossSite`].
pub fn require_same_origin(request: &Request, server: &ServerConfig) -> Result<(), ApiError> {
    warn_about_https(request, server);
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if safe || is_same_origin(request, server) {
        return Ok(());
    }
    log_refusal(request);
    Err(ApiError::CrossSite)
}

fn is_same_origin(request: &Request, server: &ServerConfig) -> bool {
    let (mut sites, mut origins) =
        (texts(request, SEC_FETCH_SITE).peekable(), texts(request, header::ORIGIN));
    if sites.peek().is_some() {
        return sites.all(|site| matches!(site, "same-origin" | "none"));
    }
    origins.all(|origin| {
        Origin::parse(origin).is_some_and(|origin| Target::of(request, server).has_origin(&origin))
    })
}

/// The values of a header, with empty text for each value that is not ASCII.
fn texts(request: &Request, name: impl AsHeaderName) -> impl Iterator<Item = &str> {
    request.headers().get_all(name).iter().map(|value| value.to_str().unwrap_or_default().trim())
}

/// The address that a request was sent to, as far as its headers show it.
pub struct Target<'a> {
    /// The hosts in `X-Forwarded-Host`, if a trusted proxy sent the request, in the request line and in `Host`.
    hosts: Vec<Host>,
    /// Whether browsers are known to use https.
    is_https: bool,
    public: &'a [Origin],
}

impl<'a> Target<'a> {
    pub fn of(request: &Request, server: &'a ServerConfig) -> Self {
        let is_proxied = is_proxied(request, server);
        let forwarded = is_proxied.then(|| texts(request, X_FORWARDED_HOST)).into_iter().flatten();
        let authority = request.uri().authority().map(Authority::as_str);
        let hosts = forwarded.chain(authority).chain(texts(request, header::HOST));
        let hosts = hosts.flat_map(|hosts| hosts.split(','));
        Self {
            hosts: hosts.filter_map(Host::parse).collect(),
            is_https: server.https || (is_proxied && forwarded_proto(request) == Some(true)),
            public: &server.public_url.0,
        }
    }

    /// The origin to show to the client: the public one, or else that of the request. A request without a host has none.
    pub fn origin(&self) -> Option<Origin> {
        let public = self.public.iter().find(|origin| self.is_host_of(origin)).or(self.public.first());
        let of_request = || {
            let mut host = self.hosts.first()?.clone();
            // A default port may be the proxy's.
            host.port = host.port.filter(|port| !is_default(*port));
            Some(Origin { is_https: self.is_https, host })
        };
        public.cloned().or_else(of_request)
    }

    /// Whether a page of this origin belongs to this site.
    pub fn has_origin(&self, origin: &Origin) -> bool {
        self.public.contains(origin) || ((origin.is_https || !self.is_https) && self.is_host_of(origin))
    }

    /// Whether the origin has a host of this request. Ports are not compared strictly, because proxies drop
    /// the port or write a default one that is not the browser's. This weakens nothing: cookies do not
    /// depend on the port, so a page at another port of this host has them anyway.
    pub fn is_host_of(&self, origin: &Origin) -> bool {
        let is_port = |port| port == origin.port() || (is_default(port) && is_default(origin.port()));
        self.hosts.iter().any(|host| host.name == origin.host.name && host.port.is_none_or(is_port))
    }
}

fn is_default(port: u16) -> bool {
    matches!(port, 80 | 443)
}

fn is_proxied(request: &Request, server: &ServerConfig) -> bool {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    peer.is_some_and(|ConnectInfo(peer)| server.trusted_proxies.trust(peer.ip().to_canonical()))
}

/// Whether the browser used https, according to `X-Forwarded-Proto`. The first of several values is the
/// outermost proxy's.
fn forwarded_proto(request: &Request) -> Option<bool> {
    let proto = texts(request, X_FORWARDED_PROTO).next()?.split(',').next()?.trim().to_ascii_lowercase();
    match proto.as_str() {
        "https" => Some(true),
        "http" => Some(false),
        _ => None,
    }
}

/// Warns once, in either direction, if `HALLPASS_HTTPS` does not match what browsers use.
fn warn_about_https(request: &Request, server: &ServerConfig) {
    static FORGOTTEN: Once = Once::new();
    static MISTAKEN: Once = Once::new();
    let said = if server.https { &MISTAKEN } else { &FORGOTTEN };
    if said.is_completed() {
        return;
    }
    let forwarded = forwarded_proto(request);
    let mut origins = texts(request, header::ORIGIN).filter_map(Origin::parse).peekable();
    if forwarded.is_none() && origins.peek().is_none() {
        return;
    }
    let target = Target::of(request, server);
    // Browsers keep Secure cookies of these hosts without https.
    let is_local = |origin: &Origin| {
        matches!(&*origin.host.name, "localhost" | "127.0.0.1" | "[::1]")
            || origin.host.name.ends_with(".localhost")
    };
    if server.https {
        let by_http = |origin: Origin| !origin.is_https && target.is_host_of(&origin) && !is_local(&origin);
        if forwarded == Some(false) || origins.any(by_http) {
            said.call_once(|| {
                warn!(
                    "HALLPASS_HTTPS is true, but a browser came by plain http, where it keeps none of the cookies: \
                     let it come by https, or set HALLPASS_HTTPS=false"
                );
            });
        }
    } else if forwarded == Some(true) || origins.any(|origin| origin.is_https && target.has_origin(&origin)) {
        said.call_once(|| {
            warn!(
                "a browser came by https, but HALLPASS_HTTPS is false, so cookies are not Secure and there is no HSTS: \
                 set HALLPASS_HTTPS=true"
            );
        });
    }
}

/// Logs the headers that were compared, so that the operator of a proxy can see what it has changed.
fn log_refusal(request: &Request) {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_some_and(|last| last.elapsed() < LOG_EVERY) {
        return;
    }
    *last = Some(Instant::now());
    drop(last);
    let all = |name| texts(request, name).collect::<Vec<_>>().join(", ");
    let (site, origin, host) = (all(SEC_FETCH_SITE), all(header::ORIGIN), all(header::HOST));
    let forwarded = all(X_FORWARDED_HOST);
    warn!(
        "refused a request as another site's: Sec-Fetch-Site is {site:?}, Origin {origin:?}, Host {host:?}, X-Forwarded-Host \
         {forwarded:?}. If it came from a page of this site, a proxy in front has changed Host: let it hand on the browser's \
         Host, or set HALLPASS_PUBLIC_URL to the address that the browser shows (said once a minute at the most)"
    );
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::server::{origin::PublicOrigins, trusted_proxies::TrustedProxies};

    const PROXY: &str = "10.0.0.1:1234";

    fn server(https: bool, public: &str) -> ServerConfig {
        ServerConfig {
            https,
            public_url: PublicOrigins::try_from(public.to_owned()).unwrap(),
            trusted_proxies: TrustedProxies::try_from("10.0.0.1".to_owned()).unwrap(),
            request_timeout_seconds: 1,
            body_limit_bytes: 1,
            shutdown_grace_seconds: 1,
            startup_wait_seconds: 1,
        }
    }

    fn request(peer: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::post("/api/auth/login");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(ConnectInfo::<SocketAddr>(peer.parse().unwrap()));
        request
    }

    fn allowed_by(server: &ServerConfig, peer: &str, headers: &[(&str, &str)]) -> bool {
        is_same_origin(&request(peer, headers), server)
    }

    fn allowed(site: Option<&'static str>, origin: Option<&'static str>) -> bool {
        let headers = [("host", Some("hallpass.test:3000")), ("sec-fetch-site", site), ("origin", origin)];
        let headers: Vec<_> = headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        allowed_by(&server(false, ""), "192.0.2.1:1", &headers)
    }

    #[test]
    fn only_our_own_pages_and_programs_may_post() {
        let origins = [
            None,
            Some("http://hallpass.test:3000"),
            Some("http://evil.test"),
            Some("http://hallpass.test:3000.evil.test"),
            Some("http://hallpass.test:3001"),
            Some("http://hallpass.test@evil.test:3000"),
            Some("ftp://hallpass.test:3000"),
            Some("null"),
            Some(""),
        ];
        for origin in origins {
            assert!(allowed(Some("same-origin"), origin) && allowed(Some("none"), origin));
            assert!(!allowed(Some("cross-site"), origin) && !allowed(Some("same-site"), origin));
        }
        let passes = [true, true, false, false, false, false, false, false, false];
        assert_eq!(origins.map(|origin| allowed(None, origin)), passes);
    }

    #[test]
    fn origin_and_host_are_compared_in_every_form_that_proxies_write() {
        for (origin, host, passes) in [
            ("https://id.example.com", "id.example.com", true),
            ("https://id.example.com", "id.example.com:443", true),
            ("https://id.example.com", "ID.Example.com.", true),
            ("HTTPS://ID.example.com", "id.example.com", true),
            ("https://id.example.com", "id.example.com:80", true),
            ("http://id.example.com", "id.example.com:80", true),
            ("http://id.example.com:8080", "id.example.com", true),
            ("http://id.example.com:8080", "id.example.com:8080", true),
            ("http://[2001:DB8::1]:8080", "[2001:db8::1]:8080", true),
            ("http://[2001:db8::1]:8080", "[2001:db8::1]", true),
            ("https://id.example.com", "id.example.com, id.example.com", true),
            ("https://id.example.com", "upstream", false),
            ("https://id.example.com", "127.0.0.1:3000", false),
            ("http://id.example.com:8080", "id.example.com:8081", false),
            ("http://id.example.com", "id.example.com:3000", false),
            ("http://[2001:db8::2]", "[2001:db8::1]", false),
            ("https://id.example.com.evil.test", "id.example.com", false),
            ("https://example.com", "id.example.com", false),
        ] {
            let headers = [("origin", origin), ("host", host)];
            assert_eq!(allowed_by(&server(false, ""), "192.0.2.1:1", &headers), passes, "{origin} {host}");
        }
        let twice = [("origin", "http://a.test"), ("origin", "http://evil.test"), ("host", "a.test")];
        assert!(!allowed_by(&server(false, ""), "192.0.2.1:1", &twice));
    }

    #[test]
    fn a_changed_host_is_made_good_by_a_trusted_proxy_or_the_setting_alone() {
        let headers = [
            ("origin", "https://id.example.com"),
            ("host", "upstream"),
            ("x-forwarded-host", "id.example.com"),
        ];
        assert!(allowed_by(&server(false, ""), PROXY, &headers));
        assert!(!allowed_by(&server(false, ""), "192.0.2.1:1", &headers));
        let set = server(true, "https://id.example.com/, http://10.0.0.7:8080");
        assert!(allowed_by(&set, "192.0.2.1:1", &headers[..2]));
        assert!(allowed_by(&set, PROXY, &[("origin", "http://10.0.0.7:8080"), ("host", "x")]));
        for other in
            ["http://id.example.com", "https://id.example.com:8080", "http://10.0.0.7", "https://evil.test"]
        {
            assert!(!allowed_by(&set, PROXY, &[("origin", other), ("host", "upstream")]), "{other}");
        }
        for wrong in ["id.example.com", "https://id.example.com/path", "https://", "ftp://x"] {
            assert!(PublicOrigins::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_page_without_tls_may_not_post_to_one_with_it() {
        let of = |scheme: &'static str| [("origin", scheme), ("host", "id.example.com")];
        let (by_http, by_https) = (of("http://id.example.com"), of("https://id.example.com"));
        for (https, http_passes) in [(false, true), (true, false)] {
            assert_eq!(allowed_by(&server(https, ""), "192.0.2.1:1", &by_http), http_passes);
            assert!(allowed_by(&server(https, ""), "192.0.2.1:1", &by_https));
        }
        let [origin, host] = by_http;
        let forwarded = [origin, host, ("x-forwarded-proto", "https")];
        assert!(!allowed_by(&server(false, ""), PROXY, &forwarded));
        assert!(allowed_by(&server(false, ""), "192.0.2.1:1", &forwarded));
    }

    #[test]
    fn shown_origin_is_the_public_one_or_else_that_of_the_request() {
        let (a, b) = ("https://a.test", "http://10.0.0.7:8080");
        let both = format!("{a}, {b}");
        let forwarded =
            [("host", "upstream:3000"), ("x-forwarded-host", "a.test"), ("x-forwarded-proto", "https")];
        for (https, public, peer, headers, shown) in [
            (false, "", PROXY, &[("host", "a.test:3000")][..], Some("http://a.test:3000")),
            (true, "", PROXY, &[("host", "a.test:80")], Some(a)),
            (false, "", PROXY, &[("host", "[::1]:3000")], Some("http://[::1]:3000")),
            (false, "", PROXY, &forwarded, Some(a)),
            (false, "", "192.0.2.1:1", &forwarded, Some("http://upstream:3000")),
            (false, &both, PROXY, &[("host", "upstream")], Some(a)),
            (false, &both, PROXY, &[("host", "10.0.0.7:8080")], Some(b)),
            (false, a, PROXY, &[], Some(a)),
            (false, "", PROXY, &[], None),
            (false, "", PROXY, &[("host", "\"><script>")], None),
        ] {
            let (server, request) = (server(https, public), request(peer, headers));
            let origin = Target::of(&request, &server).origin().map(|origin| origin.to_string());
            assert_eq!(origin.as_deref(), shown, "{https} {public:?} {peer} {headers:?}");
        }
    }

    #[test]
    fn the_address_of_a_page_is_taken_apart() {
        let apart = |address| Origin::of_page(address).map(|(origin, rest)| (origin.host.name, rest));
        assert_eq!(apart("http://a.test:80/login?x=://y"), Some(("a.test".into(), "/login?x=://y")));
        assert_eq!(apart("http://a.test"), Some(("a.test".into(), "")));
        assert_eq!(apart("http://a.test?x"), Some(("a.test".into(), "?x")));
        assert_eq!(apart("about:blank"), None);
        assert_eq!(apart("//a.test/"), None);
    }
}
