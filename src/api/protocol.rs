//! The protocol of the calls: `POST` with JSON or a form, answered with JSON, so that a browser, a plain HTML
//! form and `curl` use the same address.

use std::iter;

use http::Method;
use serde::{
    Serialize,
    de::{self, DeserializeOwned, value::MapDeserializer},
};
use serde_qs::DuplicateKeyBehavior;
use server_fn::{
    Protocol,
    error::FromServerFnError,
    request::{ClientReq, Req},
    response::{ClientRes, TryRes},
};

use super::error::ApiError;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// The protocol of all server functions.
///
/// # Errors
/// The server answers [`ApiError::UnsupportedMediaType`] for any other content type,
/// [`ApiError::PayloadTooLarge`] when the body cannot be read to its end, and [`ApiError::InvalidRequest`]
/// when it cannot be parsed or a field is repeated.
pub struct FormOrJson;

impl<Input, Output, Client, Server> Protocol<Input, Output, Client, Server, ApiError> for FormOrJson
where
    Input: Serialize + DeserializeOwned + Send,
    Output: Serialize + DeserializeOwned + Send,
    Client: server_fn::client::Client<ApiError>,
    Server: server_fn::server::Server<ApiError>,
{
    const METHOD: Method = Method::POST;

    async fn run_server<F, Fut>(request: Server::Request, server_fn: F) -> Result<Server::Response, ApiError>
    where
        F: Fn(Input) -> Fut + Send,
        Fut: Future<Output = Result<Output, ApiError>> + Send,
    {
        let content_type = request.to_content_type().map(|value| {
            let media_type = value.split(';').next().unwrap_or_default();
            media_type.trim().to_ascii_lowercase()
        });
        let body = request.try_into_bytes().await.map_err(|_| ApiError::PayloadTooLarge)?;
        let input = match content_type.as_deref() {
            // Generated clients name the type of a body that they leave out.
            None | Some(JSON) if body.is_empty() => no_fields(),
            Some(JSON) => serde_json::from_slice(&body).map_err(|error| error.to_string()),
            Some(FORM) => from_form(&body),
            _ => return Err(ApiError::UnsupportedMediaType),
        };
        let input =
            input.map_err(|_| ApiError::InvalidRequest("The request's fields cannot be read.".into()))?;
        let output = server_fn(input).await?;
        let json = serde_json::to_string(&output).map_err(|_| ApiError::Internal)?;
        Server::Response::try_from_string(JSON, json)
    }

    async fn run_client(path: &str, input: Input) -> Result<Output, ApiError> {
        let body = serde_json::to_string(&input).map_err(|_| ApiError::Internal)?;
        let request = Client::Request::try_new_post(path, JSON, JSON, body)?;
        let response = Client::send(request).await?;
        let refused = response.status() >= 400;
        let body = response.try_into_bytes().await?;
        if refused {
            return Err(ApiError::de(body));
        }
        serde_json::from_slice(&body).map_err(|_| ApiError::Transport)
    }
}

fn no_fields<T: DeserializeOwned>() -> Result<T, String> {
    let fields = MapDeserializer::<_, de::value::Error>::new(iter::empty::<(&str, &str)>());
    T::deserialize(fields).map_err(|error| error.to_string())
}

fn from_form<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    // Parsers differ on which of two values of a field counts, so a repeated field is an error. Brackets in a name have no
    // meaning: no field has parts.
    let strict = serde_qs::Config::new().duplicate_key_behavior(DuplicateKeyBehavior::Error).max_depth(0);
    // The parser refuses a pair without a name, which is an unknown field like others.
    let named: Vec<_> = body.split(|byte| *byte == b'&').filter(|pair| !pair.starts_with(b"=")).collect();
    strict.deserialize_bytes(&named.join(&b'&')).map_err(|error| error.to_string())
}
