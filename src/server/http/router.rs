//! The routes (pages, server functions, files, health), and the middleware for all of them (headers, limits).

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{any, get},
};
use leptos::{
    config::LeptosOptions,
    context::{provide_context, use_context},
    nonce::use_nonce,
    prelude::{Owner, RenderHtml},
};
use leptos_axum::{
    LeptosRoutes, ResponseOptions, file_and_error_handler_with_context, generate_route_list,
    render_app_async_with_context, site_pkg_dir_service, site_pkg_dir_service_route_path,
};
use leptos_router::location::RequestUrl;
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::CompressionLayer,
    limit::RequestBodyLimitLayer,
    set_header::SetResponseHeader,
    timeout::TimeoutLayer,
    trace::{DefaultOnResponse, TraceLayer},
};
use tracing::{Level, info_span};

use crate::{
    api::{
        INSTANCE_HEADER,
        error::ApiError,
        types::{EndReason, Presence},
    },
    app::{
        self,
        front::FrontPage,
        return_to::next_page,
        shell::{self, Site},
        theme::{self, Theme},
    },
    server::{
        AppState, clock, config,
        http::{
            cookie::{self, RefreshCookies},
            csrf, error_response, forms, health, openapi, sse,
        },
        metrics,
    },
};

/// The router for all requests.
pub fn router(state: AppState) -> Router {
    let server = &state.config.server;
    let services = cookie::services(&state.auth).collect::<Vec<_>>().join(" ");
    let site =
        Site { options: state.leptos.clone(), root: Arc::clone(&state.assets), services: services.into() };
    let connect = connect_sources(&state.leptos);
    let page_context = move || page_context(&connect);
    // The path contains the version that the files had at start.
    let caching = if state.assets.is_empty() { "no-cache" } else { "public, max-age=31536000, immutable" };
    let assets = SetResponseHeader::overriding(
        site_pkg_dir_service(&state.leptos),
        header::CACHE_CONTROL,
        |response: &axum::http::Response<_>| {
            response.status().is_success().then(|| HeaderValue::from_static(caching))
        },
    );
    let assets = Router::new().route_service(&site_pkg_dir_service_route_path(&state.leptos), assets);

    let description = openapi::description(&cookie::refresh_name(&state));
    let docs = openapi::page::html(&description, &format!("http://{}", state.leptos.site_addr));
    let docs: Arc<str> = docs.into();
    let description = description.to_string();

    let instance = HeaderValue::try_from(state.config.instance_name()).ok();

    let pages = generate_route_list(app::App);
    let paths = pages.iter().map(|page| page.path().to_owned());
    let paths = paths.chain(FrontPage::ALL.map(|page| page.path().to_owned())).chain([DOCS.to_owned()]);
    let router = paths.filter(|path| path != "/").fold(Router::new(), |router, path| {
        router.route(&format!("{path}/"), get(async move || Redirect::permanent(&path)))
    });
    let router = FrontPage::ALL.into_iter().fold(router, |router, page| {
        let (site, context) = (site.clone(), page_context.clone());
        let draw = render_app_async_with_context(context, move || shell::front(&site, page));
        router.route(page.path(), get(async move |request: Request| front(page, request, draw).await))
    });
    let (app, not_found) = (site.clone(), site.clone());

    router
        .merge(health::routes())
        .route("/metrics", get(measurements))
        .route(DOCS, get({
            let site = site.clone();
            async move |request: Request| docs_page(&site, &request, &docs)
        }))
        .route("/openapi.json", get(([(header::CONTENT_TYPE, "application/json")], description)))
        .merge(sse::routes())
        .route("/api/{*path}", any(ApiError::NotFound))
        .merge(if state.assets.is_empty() { assets } else { Router::new().nest(&state.assets, assets) })
        .leptos_routes_with_context(&state, pages, page_context.clone(), move || shell::app(&app))
        .fallback(file_and_error_handler_with_context::<AppState, _>(page_context, move |_| shell::not_found(&not_found)))
        .layer(middleware::from_fn_with_state(state.clone(), presence))
        .layer(middleware::from_fn_with_state(state.clone(), forms::tell_apart))
        .layer(middleware::from_fn_with_state(state.clone(), csrf::require_same_origin))
        .layer(middleware::from_fn(csrf::reject_connect))
        .layer(RequestBodyLimitLayer::new(server.body_limit_bytes))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, server.request_timeout()))
        .layer(middleware::from_fn(api_errors))
        .layer(CompressionLayer::new())
        .layer(CatchPanicLayer::custom(error_response::panicked))
        .layer(middleware::from_fn_with_state((state.clone(), instance), security_headers))
        .layer(
            TraceLayer::new_for_http()
                // The path without the query, so that secrets that clients send there by mistake are not
                // logged.
                .make_span_with(|request: &Request| {
                    info_span!("request", method = %request.method(), path = request.uri().path())
                })
                .on_response(DefaultOnResponse::new().level(Level::DEBUG)),
        )
        .with_state(state)
}

/// The path of the page about the API, which needs no scripts.
const DOCS: &str = "/docs";

/// The addresses that scripts may connect to: this origin and, under `make dev`, the watcher that reloads the
/// page.
fn connect_sources(options: &LeptosOptions) -> String {
    if config::is_watched() {
        format!("'self' ws://{}:{}", options.site_addr.ip(), options.reload_port)
    } else {
        "'self'".into()
    }
}

/// The page about the API in the frame of all pages, for this browser.
fn docs_page(site: &Site, request: &Request, content: &str) -> impl IntoResponse + use<> {
    // The page makes no connections; `connect-src` is for audit tools, which fetch robots.txt from within it.
    const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                          form-action 'self'; frame-ancestors 'none'";
    let html = Owner::new().with(|| {
        provide_context(RequestUrl::new(&request.uri().to_string()));
        provide_context(request.extensions().get::<Presence>().copied().unwrap_or_default());
        provide_context(chosen_theme(request.headers()));
        shell::still(site, "API", content).to_html()
    });
    let headers = [(header::CONTENT_SECURITY_POLICY, POLICY), (header::CACHE_CONTROL, "private, no-store")];
    (headers, Html(html))
}

/// A front page, or a redirect if the page is for guests and the browser is signed in.
async fn front<F: Future<Output = Response>>(
    page: FrontPage,
    request: Request,
    draw: impl FnOnce(Request) -> F,
) -> Response {
    let presence = request.extensions().get::<Presence>();
    if page.is_for_guests() && presence == Some(&Presence::SignedIn) {
        let next = Owner::new().with(|| {
            provide_context(RequestUrl::new(&request.uri().to_string()));
            next_page()
        });
        return (StatusCode::FOUND, [(header::LOCATION, next)]).into_response();
    }
    draw(request).await
}

async fn measurements(State(state): State<AppState>) -> impl IntoResponse {
    state.auth.measure();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics::render())
}

async fn api_errors(request: Request, next: Next) -> Response {
    if request.uri().path().starts_with("/api/") {
        error_response::api_errors(request, next).await
    } else {
        next.run(request).await
    }
}

/// Middleware that finds out, before a page is rendered, whether the browser is signed in, and if it was, why
/// its session has ended. The page is then right from its first byte.
async fn presence(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_an_asset = path.strip_prefix(&*state.assets).is_some_and(|path| path.starts_with("/pkg/"));
    let draws_a_page = !is_an_asset
        && !["/api/", "/health/", "/metrics", "/openapi.json"].iter().any(|prefix| path.starts_with(prefix));
    if !draws_a_page {
        return next.run(request).await;
    }
    let cookies = RefreshCookies::of(request.headers(), &state);
    let forgotten: Vec<_> = cookies.clear(state.config.server.https).collect();
    let presence = if cookie::is_logout_pending(request.headers(), &state) {
        Presence::Anonymous
    } else {
        match cookies.presence(&state.auth, clock::now()).await {
            Ok(found) => found.map(|(_, presence)| presence).unwrap_or_default(),
            // Undetermined counts as signed in: every call of the page is checked again.
            Err(_) => Presence::SignedIn,
        }
    };
    let failed_logout = forms::failed_logout(request.uri());
    request.extensions_mut().insert(presence);
    let mut response = next.run(request).await;
    // The end of a session is shown once, by a page and not by a file; then the cookie is deleted. It is not
    // shown to a user who has signed out, whose logout may still need the cookie to be confirmed.
    let is_told = matches!(presence, Presence::Ended(reason) if reason != EndReason::SignedOut);
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let is_page = content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
    if is_page && response.status() == StatusCode::OK {
        if is_told {
            response.headers_mut().extend(forgotten.into_iter().map(|cookie| (header::SET_COOKIE, cookie)));
        }
        if let Some(error) = failed_logout {
            *response.status_mut() = error.into_response().status();
        }
    }
    response
}

fn chosen_theme(headers: &HeaderMap) -> Theme {
    let mut chosen = cookie::values(headers, theme::COOKIE).filter_map(|value| value.parse().ok());
    chosen.find(|theme| *theme != Theme::System).unwrap_or_default()
}

/// Provides what the app needs to render a page: whether the browser is signed in, its theme, and a policy
/// that allows no scripts but those of the page.
fn page_context(connect: &str) {
    if let Some(presence) =
        use_context::<Parts>().and_then(|parts| parts.extensions.get::<Presence>().copied())
    {
        provide_context(presence);
    }
    if let Some(parts) = use_context::<Parts>() {
        provide_context(chosen_theme(&parts.headers));
    }
    let (Some(nonce), Some(response)) = (use_nonce(), use_context::<ResponseOptions>()) else {
        return;
    };
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}' 'strict-dynamic' 'wasm-unsafe-eval'; \
         style-src 'self' 'nonce-{nonce}'; connect-src {connect}; img-src 'self' data:; font-src 'self'; \
         manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    );
    if let Ok(policy) = HeaderValue::try_from(policy) {
        response.insert_header(header::CONTENT_SECURITY_POLICY, policy);
    }
    response.insert_header(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
}

/// Middleware that adds headers to every response, including files and errors.
async fn security_headers(
    State((state, instance)): State<(AppState, Option<HeaderValue>)>,
    request: Request,
    next: Next,
) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if state.config.server.https {
        headers.insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=63072000; includeSubDomains"),
        );
    }
    // Pages have set a policy of their own.
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    if is_api {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(name) = instance {
            headers.insert(INSTANCE_HEADER, name);
        }
    }
    response
}

const SECURITY_HEADERS: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];
