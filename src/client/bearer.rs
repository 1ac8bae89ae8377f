//! The HTTP client of the server functions: sends the access token in the `Authorization` header
//! (RFC 6750, 2.1).

use std::future::Future;

use bytes::Bytes;
use futures::{Sink, Stream};
use send_wrapper::SendWrapper;
use server_fn::{
    client::{Client, browser::BrowserClient},
    request::browser::BrowserRequest,
    response::browser::BrowserResponse,
};

use super::storage;
use crate::api::{error::ApiError, types::AccessToken};

/// The HTTP client that attaches the stored access token, even if expired, or else the last one that this tab
/// has seen, so that a logout still names its session. Without a token the request is sent as it is.
pub struct BearerClient;

pub(super) async fn send(
    request: BrowserRequest,
    token: Option<AccessToken>,
) -> Result<BrowserResponse, ApiError> {
    if let Some(token) = token {
        request.headers().set("Authorization", &format!("Bearer {}", token.expose()));
    }
    <BrowserClient as Client<ApiError>>::send(request).await
}

/// Implements `Client` for `$client`: each request carries the token that `$token` evaluates to.
macro_rules! attach_token {
    ($client:ty, $token:expr) => {
        impl Client<ApiError> for $client {
            type Request = BrowserRequest;
            type Response = BrowserResponse;

            fn send(
                request: BrowserRequest,
            ) -> impl Future<Output = Result<BrowserResponse, ApiError>> + Send {
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
                    ApiError,
                >,
            > + Send {
                <BrowserClient as Client<ApiError>>::open_websocket(path)
            }

            fn spawn(future: impl Future<Output = ()> + Send + 'static) {
                <BrowserClient as Client<ApiError>>::spawn(future);
            }
        }
    };
}
pub(super) use attach_token;

attach_token!(BearerClient, storage::load().map(|stored| stored.access_token).or_else(storage::last_seen));
