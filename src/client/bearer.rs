//! How the access token gets into requests: two clients for server functions, one that attaches
//! the token as it is, and one that renews it first when little of its life is left.

use std::{future::Future, sync::LazyLock};

use bytes::Bytes;
use futures::{Sink, Stream, lock::Mutex};
use send_wrapper::SendWrapper;
use server_fn::{
    client::{Client, browser::BrowserClient},
    request::browser::BrowserRequest,
    response::browser::BrowserResponse,
};

use super::{
    session::{self, Tenure},
    storage::{self, StoredToken},
};
use crate::api::{self, error::AuthError, types::AccessToken};

/// One refresh at a time in this tab: those who come during one wait, and find its result.
static RENEWING: LazyLock<Mutex<()>> = LazyLock::new(|| Mutex::new(()));

/// Attaches the stored access token, expired or not; without one the request goes as it is.
pub struct BearerClient;

/// Attaches a fresh access token, after a refresh if need be.
///
/// # Errors
/// What the refresh answered, when there is no token without it.
pub struct RenewingClient;

/// A token with life enough left: the stored one, or the next.
async fn fresh_token() -> Result<AccessToken, AuthError> {
    let _one_at_a_time = RENEWING.lock().await;
    let stored = storage::load();
    if let Some(token) = &stored
        && !token.is_due(session::device_now())
    {
        return Ok(token.access_token.clone());
    }
    let tenure = Tenure::current();
    match api::auth::refresh(None).await {
        Ok(response) => {
            let token = StoredToken::new(response, session::device_now());
            if tenure.is_over() {
                // Logged out meanwhile: the server has ended this token as well.
                return Err(AuthError::InvalidToken);
            }
            storage::save(&token);
            Ok(token.access_token)
        }
        // The server cannot tell now; what is left of the old token is still good.
        Err(AuthError::Unavailable | AuthError::Transport)
            if let Some(token) =
                stored.as_ref().filter(|token| token.seconds_left(session::device_now()) > 0.0) =>
        {
            Ok(token.access_token.clone())
        }
        Err(error) => Err(error),
    }
}

async fn send(request: BrowserRequest, token: Option<AccessToken>) -> Result<BrowserResponse, AuthError> {
    if let Some(token) = token {
        request.headers().set("Authorization", &format!("Bearer {}", token.expose()));
    }
    <BrowserClient as Client<AuthError>>::send(request).await
}

macro_rules! send_in_the_browser {
    ($client:ty, $token:expr) => {
        impl Client<AuthError> for $client {
            type Request = BrowserRequest;
            type Response = BrowserResponse;

            fn send(
                request: BrowserRequest,
            ) -> impl Future<Output = Result<BrowserResponse, AuthError>> + Send {
                SendWrapper::new(async move { send(request, $token).await })
            }

            fn open_websocket(
                path: &str,
            ) -> impl Future<
                Output = Result<
                    (
                        impl Stream<Item = Result<Bytes, Bytes>> + Send + 'static,
                        impl Sink<Bytes> + Send + 'static,
                    ),
                    AuthError,
                >,
            > + Send {
                <BrowserClient as Client<AuthError>>::open_websocket(path)
            }

            fn spawn(future: impl Future<Output = ()> + Send + 'static) {
                <BrowserClient as Client<AuthError>>::spawn(future);
            }
        }
    };
}
send_in_the_browser!(BearerClient, storage::load().map(|stored| stored.access_token));
send_in_the_browser!(RenewingClient, Some(fresh_token().await?));
