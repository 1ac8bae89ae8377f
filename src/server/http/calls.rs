//! The routes of the server functions.
//!
//! A server function runs here without a reactive owner of Leptos, which would cost more than the check of a token.
//! So `leptos_axum::extract` and `use_context` find nothing in it: a handler has [`RequestContext`] instead.

use axum::{
    Router,
    extract::{Request, State},
    http::header::{CONTENT_TYPE, SET_COOKIE},
    response::{IntoResponse, Response},
    routing::{MethodRouter, post},
};
use server_fn::{Protocol, ServerFn, axum::AxumServerFnBackend};

use crate::{
    api::{account, admin, auth, error::ApiError, factors, token},
    server::{
        AppState,
        http::{forms, request_context::RequestContext},
    },
};

/// The routes of all server functions. A new one gets an entry here and in `openapi/operations.rs`.
pub fn routes() -> Router<AppState> {
    let calls = [
        call::<auth::Register>(),
        call::<auth::Login>(),
        call::<auth::BeginPasskeyLogin>(),
        call::<auth::LoginWithPasskey>(),
        call::<auth::Refresh>(),
        call::<auth::Logout>(),
        call::<auth::ForgotPassword>(),
        call::<auth::ResetPassword>(),
        call::<auth::VerifyEmail>(),
        call::<token::CheckStatelessly>(),
        call::<account::Me>(),
        call::<account::Sessions>(),
        call::<account::Events>(),
        call::<account::RevokeSession>(),
        call::<account::LogoutEverywhere>(),
        call::<account::ChangePassword>(),
        call::<account::Profile>(),
        call::<account::SendVerification>(),
        call::<account::ChangeEmail>(),
        call::<account::Delete>(),
        call::<account::Export>(),
        call::<factors::SignInMethods>(),
        call::<factors::BeginTotp>(),
        call::<factors::AddTotp>(),
        call::<factors::RemoveTotp>(),
        call::<factors::RenewRecoveryCodes>(),
        call::<factors::BeginPasskey>(),
        call::<factors::AddPasskey>(),
        call::<factors::RenamePasskey>(),
        call::<factors::RemovePasskey>(),
        call::<factors::Reauthenticate>(),
        call::<factors::ReauthenticateWithPasskey>(),
        call::<admin::Users>(),
        call::<admin::Sessions>(),
        call::<admin::Clients>(),
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
    let running = F::Protocol::run_server(input, F::run_body);
    let (result, cookies) = RequestContext::provide(state, parts, form.is_some(), running).await;
    let mut response = match form {
        Some(page) => forms::redirect(&page, F::PATH, result.err()),
        None => result.unwrap_or_else(IntoResponse::into_response),
    };
    response.headers_mut().extend(cookies.into_iter().map(|cookie| (SET_COOKIE, cookie)));
    response
}
