//! The routes (pages, files, server functions, health), and the middleware for all of them (headers, limits).

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
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
use tower::{Service, ServiceBuilder};
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::CompressionLayer,
    limit::RequestBodyLimitLayer,
    set_header::{SetResponseHeader, SetResponseHeaderLayer},
    timeout::TimeoutLayer,
    trace::{DefaultOnResponse, TraceLayer},
};
use tracing::{Level, info_span};

use crate::{
    api::{
        INSTANCE_HEADER,
        error::ApiError,
        types::{ConfirmedLogout, EndReason, Presence, Role},
    },
    app::{
        self,
        front::FrontPage,
        return_to::next_page,
        shell::{self, Site, SiteOrigin},
        theme::{self, Theme},
    },
    server::{
        AppState,
        auth::guards::max_facts,
        clock, config,
        http::{
            assets::{self, IMMUTABLE},
            calls,
            cookie::{self, RefreshCookies},
            csrf::{self, Target},
            dev_mail, error_response, forms, guards, health, oauth,
            openapi::{self, page::Reference},
            other_versions, sse, well_known,
        },
        metrics,
    },
};

/// The service for all requests. What all of them need is a layer of the whole router: a layer that the router
/// applies to each route is boxed and cloned once more for every request.
pub fn service(
    state: AppState,
) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send {
    let server = &state.config.server;
    // Facts are sent as JSON in JSON, which doubles the quotes.
    let facts = 2 * max_facts(state.config.redis.partitions);
    let (limit, timeout) = (server.body_limit_bytes.max(facts), server.request_timeout());
    let instance = HeaderValue::try_from(state.config.instance_name()).ok();
    let shared = Arc::new(Outermost { state: state.clone(), instance });
    // The path without the query, so that secrets that clients send there by mistake are not logged.
    let span =
        |request: &Request| info_span!("request", method = %request.method(), path = request.uri().path());
    ServiceBuilder::new()
        .map_response(|response: axum::http::Response<_>| response.map(Body::new))
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(span)
                .on_response(DefaultOnResponse::new().level(Level::DEBUG)),
        )
        .layer(middleware::from_fn_with_state(shared, outermost))
        .layer(CatchPanicLayer::custom(error_response::panicked))
        .layer(RequestBodyLimitLayer::new(limit))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, timeout))
        .service(router(state))
}

fn router(state: AppState) -> Router {
    let description = openapi::description(&cookie::refresh_name(&state));
    let docs = Arc::new(Reference::of(&description));
    let description = description.to_string();
    let site = pages(&state, docs)
        .merge(site_files(&state))
        .route("/openapi.json", get(([(header::CONTENT_TYPE, "application/json")], description)))
        .route("/metrics", get(measurements))
        // `CompressionLayer` sets it only where it may compress, and not on files that are compressed already.
        .layer(SetResponseHeaderLayer::appending(
            header::VARY,
            HeaderValue::from_name(header::ACCEPT_ENCODING),
        ))
        .layer(CompressionLayer::new());
    let auth = Arc::clone(&state.auth);
    site.merge(calls::routes())
        .merge(sse::routes())
        .route("/api/{*path}", any(ApiError::NotFound))
        .merge(oauth::routes())
        .merge(guards::routes())
        .merge(well_known::routes())
        .merge(health::routes(auth))
        .with_state(state)
}

/// The built files of the site.
fn site_files(state: &AppState) -> Router<AppState> {
    // The path contains the version that the files had at start.
    let caching = if state.assets.is_empty() { "no-cache" } else { IMMUTABLE };
    let files = SetResponseHeader::overriding(
        site_pkg_dir_service(&state.leptos),
        header::CACHE_CONTROL,
        |response: &axum::http::Response<_>| {
            response.status().is_success().then(|| HeaderValue::from_static(caching))
        },
    );
    let files = Router::new().route_service(&site_pkg_dir_service_route_path(&state.leptos), files);
    if state.assets.is_empty() {
        return files;
    }
    let folder = state.leptos.site_pkg_dir.trim_matches('/');
    Router::new()
        .nest(&state.assets, files)
        .route(&format!("/{{version}}/{folder}/{{*path}}"), get(other_versions::file))
}

/// The pages, and the fallback: the other files, such as the icon, and the page about pages that do not exist.
fn pages(state: &AppState, docs: Arc<Reference>) -> Router<AppState> {
    let auth = Arc::clone(&state.auth);
    let services = Arc::new(move || cookie::services(&auth).collect::<Vec<_>>().join(" "));
    let notes = state.config.demo.notes.as_deref().map(Arc::from);
    let mail = &state.config.mail;
    let site = Site {
        options: state.leptos.clone(),
        root: Arc::clone(&state.assets),
        https: state.config.server.https,
        is_split: assets::is_split(&state.leptos),
        services,
        version: state.version.as_ref().map(|version| version.to_string().into()),
        notes,
        mail_folder: mail.smtp_url.is_none().then(|| Arc::from(&*mail.dir)),
        mail_page: mail.on_site.then_some(dev_mail::PATH),
    };
    let connect = connect_sources(&state.leptos);
    let context = move || page_context(&connect);
    let pages = generate_route_list(app::App);
    let paths = pages.iter().map(|page| page.path().to_owned());
    let paths = paths.chain(FrontPage::ALL.map(|page| page.path().to_owned())).chain([DOCS.to_owned()]);
    let router = paths.filter(|path| path != "/").fold(Router::new(), |router, path| {
        router.route(&format!("{path}/"), get(async move || Redirect::permanent(&path)))
    });
    let router = FrontPage::ALL.into_iter().fold(router, |router, page| {
        let (site, context) = (site.clone(), context.clone());
        let draw = render_app_async_with_context(context, move || shell::front(&site, page));
        router.route(page.path(), get(async move |request: Request| front(page, request, draw).await))
    });
    let (app, not_found) = (site.clone(), site.clone());
    let router = match mail.on_site {
        true => {
            let (site, folder) = (site.clone(), mail.dir.clone());
            let page = async move |request: Request| mail_page(site, folder, request).await;
            router.route(dev_mail::PATH, get(page))
        }
        false => router,
    };
    router
        .route(DOCS, get(async move |request: Request| docs_page(&site, &request, &docs)))
        .leptos_routes_with_handler(
            pages,
            render_app_async_with_context(context.clone(), move || shell::app(&app)),
        )
        .fallback(file_and_error_handler_with_context::<AppState, _>(context, move |_| {
            shell::not_found(&not_found)
        }))
        .layer(middleware::from_fn_with_state(state.clone(), presence))
}

/// The path of the page about the API.
const DOCS: &str = "/docs";

/// The path of the page for administrators.
const ADMIN: &str = "/admin";

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
fn docs_page(site: &Site, request: &Request, docs: &Reference) -> Response {
    let origin = request.extensions().get().map(|SiteOrigin(origin)| origin.to_string());
    let content = docs.html(origin.unwrap_or_else(|| format!("http://{}", site.options.site_addr)));
    still_page(site, request, "API", &content, docs.policy.clone())
}

/// The page of the mails that are files.
async fn mail_page(site: Site, folder: String, request: Request) -> Response {
    if !dev_mail::is_local(request.headers()) {
        return ApiError::NotFound.into_response();
    }
    let content = dev_mail::html(&folder).await;
    let policy = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
    still_page(&site, &request, "Mails", &content, policy.to_owned())
}

fn still_page(
    site: &Site,
    request: &Request,
    title: &'static str,
    content: &str,
    policy: String,
) -> Response {
    let html = Owner::new().with(|| {
        provide_context(RequestUrl::new(&request.uri().to_string()));
        provide_page_context(request.extensions(), request.headers());
        shell::still(site, title, content).to_html()
    });
    let headers =
        [(header::CONTENT_SECURITY_POLICY, policy), (header::CACHE_CONTROL, "private, no-store".to_owned())];
    (headers, Html(html)).into_response()
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

/// Middleware that finds out, before a page is rendered, whether the browser is signed in, and if it was, why
/// its session has ended. The page is then right from its first byte.
async fn presence(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let cookies = RefreshCookies::of(request.headers(), &state);
    let forgotten: Vec<_> = cookies.clear(state.config.server.https).collect();
    let presence = if cookie::is_logout_pending(request.headers(), &state) {
        Presence::Anonymous
    } else {
        match cookies.presence(&state.auth, clock::now()).await {
            Ok(Some((_, presence))) => presence,
            Ok(None) => presence_of_arrival(&state, request.headers()).await,
            // Undetermined counts as signed in: every call of the page is checked again.
            Err(_) => Presence::SignedIn,
        }
    };
    let failed_logout = forms::failed_logout(request.uri());
    if let Some(origin) = Target::of(&request, &state.config.server).origin() {
        request.extensions_mut().insert(SiteOrigin(origin.to_string().into()));
    }
    let is_forbidden = presence == Presence::SignedIn
        && request.uri().path() == ADMIN
        && is_no_administrator(&state, request.headers()).await;
    request.extensions_mut().insert(presence);
    if presence != Presence::SignedIn
        && let Some(confirmed) = cookie::signed_out(request.headers(), &state)
    {
        request.extensions_mut().insert(confirmed);
    }
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
        let refusal = is_forbidden.then_some(ApiError::InsufficientScope);
        if let Some(error) = failed_logout.or(refusal) {
            *response.status_mut() = error.into_response().status();
        }
    }
    response
}

/// The presence when the browser has sent no refresh token: after a link in another site it leaves it out, and sends the
/// id of the session alone. That is enough to draw a page, which holds no data of the user; its calls are those of this
/// site again. The end of a session is shown by a page that has the token, and can forget it.
async fn presence_of_arrival(state: &AppState, headers: &HeaderMap) -> Presence {
    let Some(session_id) = cookie::session_id(headers, state) else { return Presence::Anonymous };
    match state.auth.presence_in(session_id, clock::now()).await {
        Ok(Presence::SignedIn) | Err(_) => Presence::SignedIn,
        Ok(_) => Presence::Anonymous,
    }
}

/// Whether SQL says that the user of this session is not an administrator. That decides the status of the page alone,
/// which holds no data: its calls need the role in the access token.
async fn is_no_administrator(state: &AppState, headers: &HeaderMap) -> bool {
    let Some(session_id) = cookie::session_id(headers, state) else { return false };
    state.auth.role_in(session_id).await.is_ok_and(|role| role == Some(Role::User))
}

/// Provides whether the browser is signed in, the address of the site, and the theme.
fn provide_page_context(extensions: &Extensions, headers: &HeaderMap) {
    if let Some(presence) = extensions.get::<Presence>() {
        provide_context(*presence);
    }
    if let Some(confirmed) = extensions.get::<ConfirmedLogout>() {
        provide_context(*confirmed);
    }
    if let Some(origin) = extensions.get::<SiteOrigin>() {
        provide_context(origin.clone());
    }
    provide_context(chosen_theme(headers));
}

fn chosen_theme(headers: &HeaderMap) -> Theme {
    let mut chosen = cookie::values(headers, theme::COOKIE).filter_map(|value| value.parse().ok());
    chosen.find(|theme| *theme != Theme::System).unwrap_or_default()
}

/// Provides what the app needs to render a page, and a policy that allows no scripts but those of the page.
fn page_context(connect: &str) {
    if let Some(parts) = use_context::<Parts>() {
        provide_page_context(&parts.extensions, &parts.headers);
    }
    let (Some(nonce), Some(response)) = (use_nonce(), use_context::<ResponseOptions>()) else {
        return;
    };
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}' 'strict-dynamic' 'wasm-unsafe-eval'; \
         style-src 'self' 'nonce-{nonce}'; connect-src {connect}; img-src 'self' data:; font-src 'self'; \
         base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    );
    if let Ok(policy) = HeaderValue::try_from(policy) {
        response.insert_header(header::CONTENT_SECURITY_POLICY, policy);
    }
    response.insert_header(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
}

/// What the outermost middleware needs.
struct Outermost {
    state: AppState,
    instance: Option<HeaderValue>,
}

/// Middleware that refuses requests of other sites, gives every error of a call its JSON, and adds headers to
/// every response, including files and errors.
async fn outermost(State(shared): State<Arc<Outermost>>, request: Request, next: Next) -> Response {
    let server = &shared.state.config.server;
    let path = request.uri().path();
    let is_api = ["/api/", "/oauth/", "/guard/"].iter().any(|prefix| path.starts_with(prefix));
    let refusal = if request.uri().path_and_query().is_none() {
        // A request for a tunnel (`CONNECT`) has no path, which the inner layers rely on.
        Some(ApiError::MethodNotAllowed)
    } else {
        csrf::require_same_origin(&request, server).err()
    };
    let mut response = match refusal {
        Some(refusal) => match forms::page_of_form_by_http(&request, server) {
            Some(page) => forms::redirect(&page, path, Some(ApiError::needs_https())),
            None => refusal.into_response(),
        },
        None => next.run(request).await,
    };
    if is_api {
        response = error_response::with_json(response);
    }
    let headers = response.headers_mut();
    headers.reserve(SECURITY_HEADERS.len() + 4);
    for (name, value) in SECURITY_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if server.https {
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
        if let Some(name) = &shared.instance {
            headers.insert(INSTANCE_HEADER, name.clone());
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
