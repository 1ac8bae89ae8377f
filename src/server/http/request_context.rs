//! The request that a handler answers. `calls.rs` provides it, and handlers ask for it.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use axum::http::{HeaderMap, HeaderValue, request::Parts};
use tokio::task_local;

use crate::{
    api::error::ApiError,
    server::{
        AppState,
        auth::{
            authenticate::{Administrator, Authenticated},
            step_up::ConfirmedAdministrator,
        },
        clock,
    },
};

task_local! {
    static CURRENT: Arc<RequestContext>;
}

/// The request that a handler answers, and the cookies that its response sets.
pub struct RequestContext {
    pub state: AppState,
    pub parts: Parts,
    /// Whether a browser has posted this call as a plain form.
    pub is_form: bool,
    cookies: Mutex<Vec<HeaderValue>>,
}

impl RequestContext {
    /// Runs a call with its context. Returns its result, and the cookies to set.
    pub async fn provide<T>(
        state: AppState,
        parts: Parts,
        is_form: bool,
        call: impl Future<Output = T>,
    ) -> (T, Vec<HeaderValue>) {
        let context = Arc::new(Self { state, parts, is_form, cookies: Mutex::default() });
        let result = CURRENT.scope(Arc::clone(&context), call).await;
        let cookies = mem::take(&mut *context.cookies.lock().unwrap_or_else(PoisonError::into_inner));
        (result, cookies)
    }

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

    /// The same, and the proof that the administrator may change others.
    ///
    /// # Errors
    /// Also those of [`Auth::confirm`](crate::server::auth::Auth::confirm).
    pub async fn require_confirmed_admin() -> Result<(Arc<Self>, ConfirmedAdministrator), ApiError> {
        let (context, administrator) = Self::require_admin().await?;
        let confirmed = context.state.auth.confirm(administrator, clock::now()).await?;
        Ok((context, confirmed))
    }

    /// The context of the call, and its bearer, who has signed in recently or knows the password.
    ///
    /// # Errors
    /// Those of [`Auth::authenticate`](crate::server::auth::Auth::authenticate) and
    /// [`Auth::require_recent`](crate::server::auth::Auth::require_recent).
    pub async fn require_recent(password: String) -> Result<(Arc<Self>, Authenticated), ApiError> {
        let context = Self::current()?;
        let authenticated = context.authenticate().await?;
        context.state.auth.require_recent(&authenticated, password.into(), clock::now()).await?;
        Ok((context, authenticated))
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
