//! The routes of the server functions, and the request that a handler answers.
//!
//! A server function runs here without a reactive owner of Leptos, which would cost more than the check of a token.
//! So `leptos_axum::extract` and `use_context` find nothing in it: a handler has [`RequestContext`] instead.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Router,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue,
        header::{CONTENT_TYPE, SET_COOKIE},
        request::Parts,
    },
    response::{IntoResponse, Response},
    routing::{MethodRouter, post},
};
use server_fn::{Protocol, ServerFn, axum::AxumServerFnBackend};
use tokio::task_local;

use crate::{
    api::{account, admin, auth, error::ApiError, token},
    server::{
        AppState,
        auth::authenticate::{Administrator, Authenticated},
        clock,
        http::forms,
    },
};

task_local! {
    static CURRENT: Arc<RequestContext>;
}

/// The routes of all server functions. A new one gets an entry here and in `openapi/operations.rs`.
pub fn routes() -> Router<AppState> {
    let calls = [
        call::<auth::Register>(),
        call::<auth::Login>(),
        call::<auth::Refresh>(),
        call::<auth::Logout>(),
        call::<token::CheckStatelessly>(),
        call::<account::Me>(),
        call::<account::Sessions>(),
        call::<account::Events>(),
        call::<account::RevokeSession>(),
        call::<account::LogoutEverywhere>(),
        call::<account::ChangePassword>(),
        call::<admin::Users>(),
        call::<admin::Sessions>(),
        call::<admin::DisableUser>(),
        call::<admin::EnableUser>(),
        call::<admin::SetRole>(),
        call::<admin::RevokeSession>(),
        call::<admin::RevokeSessions>(),
        call::<admin::RevokeAllSessions>(),
    ];
    calls.into_iter().fold(Router::new(), |router, (path, method)| router.route(path, method))
}

fn call<F>() -> (&'static str, MethodRouter<AppState>)
where
    F: ServerFn<Error = ApiError, Server = AxumServerFnBackend> + 'static,
{
    (F::PATH, post(answer::<F>))
}

/// Answers a call with JSON, or, if a browser has posted it as a form, with a redirect to the page of the form.
async fn answer<F>(State(state): State<AppState>, request: Request) -> Response
where
    F: ServerFn<Error = ApiError, Server = AxumServerFnBackend> + 'static,
{
    let form = forms::page_of_form(&request, &state.config.server);
    let (parts, body) = request.into_parts();
    let mut input = Request::new(body);
    if let Some(content_type) = parts.headers.get(CONTENT_TYPE) {
        input.headers_mut().insert(CONTENT_TYPE, content_type.clone());
    }
    let context = Arc::new(RequestContext { state, parts, cookies: Mutex::default() });
    let running = F::Protocol::run_server(input, F::run_body);
    let result = CURRENT.scope(Arc::clone(&context), running).await;
    let mut response = match form {
        Some(page) => forms::redirect(&page, F::PATH, result.err()),
        None => result.unwrap_or_else(IntoResponse::into_response),
    };
    let cookies = std::mem::take(&mut *context.cookies.lock().unwrap_or_else(PoisonError::into_inner));
    response.headers_mut().extend(cookies.into_iter().map(|cookie| (SET_COOKIE, cookie)));
    response
}

/// The request that a handler answers, and the cookies that its response sets.
pub struct RequestContext {
    pub state: AppState,
    pub parts: Parts,
    cookies: Mutex<Vec<HeaderValue>>,
}

impl RequestContext {
    /// The context of the call that this task answers.
    ///
    /// # Errors
    /// [`ApiError::Internal`]: the server function was not called by a request, but while a page was rendered.
    pub fn current() -> Result<Arc<Self>, ApiError> {
        CURRENT.try_with(Arc::clone).map_err(|_| ApiError::Internal)
    }

    /// The context of the call, and the proof that its bearer is an administrator.
    ///
    /// # Errors
    /// Those of [`Auth::authenticate`](crate::server::auth::Auth::authenticate), and [`ApiError::InsufficientScope`].
    pub async fn require_admin() -> Result<(Arc<Self>, Administrator), ApiError> {
        let context = Self::current()?;
        let administrator = context.authenticate().await?.administrator()?;
        Ok((context, administrator))
    }

    /// The proof that the request carries a live access token.
    ///
    /// # Errors
    /// Those of [`Auth::authenticate`](crate::server::auth::Auth::authenticate).
    pub async fn authenticate(&self) -> Result<Authenticated, ApiError> {
        self.state.auth.authenticate(self.headers(), clock::now()).await
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// Sets a cookie with the response, whether the call succeeds or not.
    pub fn append_cookie(&self, header: Option<HeaderValue>) {
        self.cookies.lock().unwrap_or_else(PoisonError::into_inner).extend(header);
    }
}
