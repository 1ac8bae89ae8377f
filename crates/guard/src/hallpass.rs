//! Hallpass as the guard's system of record: what the guard cannot know, it asks over HTTP.

use std::{sync::Arc, time::Duration};

use hallpass_allowlist::{InstanceId, InstanceRow, SessionId, SessionStore, TokenRecord, UnixSeconds};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url, redirect::Policy};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};

use crate::wire::{self, Facts, Liveness, Recorded, Settings};

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long the list of revoked sessions may take: 20 MB when there are a million.
const REVOKED_SESSIONS_TIMEOUT: Duration = Duration::from_secs(15);

/// When a silent connection is probed.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Hallpass has not answered as it should.
#[derive(Debug, thiserror::Error)]
pub enum HallpassError {
    /// It did not answer, or not in time.
    #[error("Hallpass cannot be reached: {}", with_causes(.0))]
    Unreachable(#[source] reqwest::Error),
    /// It refused the request.
    #[error("Hallpass answered {status}{}{message}", if .message.is_empty() { "" } else { ": " })]
    Refused {
        /// The status of the answer.
        status: StatusCode,
        /// Its text for people, if it has one.
        message: String,
    },
    /// It answered something else, as a proxy or a later version may.
    #[error("the answer of Hallpass cannot be read")]
    Unreadable,
}

impl HallpassError {
    /// Whether the same request may succeed later.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Refused { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Unreadable => false,
        }
    }
}

/// The error with what led to it, on which reqwest is silent.
fn with_causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A connection to Hallpass as one of its clients. Cheap to clone.
#[derive(Clone)]
pub struct Hallpass(Arc<Connection>);

struct Connection {
    http: Client,
    /// Without a slash at its end.
    address: String,
    client_id: String,
    client_secret: SecretString,
}

/// The body of an error (RFC 6749, 5.2).
#[derive(Deserialize)]
struct ErrorBody {
    message: String,
}

impl Hallpass {
    /// Connects to nothing yet. `ca` are certificates in PEM that are trusted beside those of the operating system.
    ///
    /// # Errors
    /// A certificate cannot be read.
    pub fn new(
        address: &Url,
        client_id: String,
        client_secret: SecretString,
        #[cfg(feature = "tls")] ca: Option<&[u8]>,
    ) -> Result<Self, reqwest::Error> {
        let http = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .tcp_keepalive(KEEPALIVE)
            // A silent connection of HTTP/2 would be used again after a timeout.
            .http1_only()
            // The secret goes to no other address.
            .redirect(Policy::none());
        // In plain text, it does not go to a proxy of the environment either.
        let http = if address.scheme() == "http" { http.no_proxy() } else { http };
        #[cfg(feature = "tls")]
        let http = trusting(http, ca)?;
        let (http, address) = (http.build()?, address.as_str().trim_end_matches('/').to_owned());
        Ok(Self(Arc::new(Connection { http, address, client_id, client_secret })))
    }

    pub async fn settings(&self) -> Result<Settings, HallpassError> {
        json(self.request(Method::GET, wire::SETTINGS)).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let Connection { http, address, client_id, client_secret } = &*self.0;
        http.request(method, format!("{address}{path}"))
            .basic_auth(client_id, Some(client_secret.expose_secret()))
    }
}

#[cfg(feature = "tls")]
fn trusting(
    http: reqwest::ClientBuilder,
    ca: Option<&[u8]>,
) -> Result<reqwest::ClientBuilder, reqwest::Error> {
    // Where the service has chosen another provider, that one stays.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let certificates = ca.map_or(Ok(Vec::new()), reqwest::Certificate::from_pem_bundle)?;
    Ok(certificates.into_iter().fold(http, reqwest::ClientBuilder::add_root_certificate))
}

impl SessionStore for Hallpass {
    type Error = HallpassError;

    async fn is_token_live(&self, token: &TokenRecord) -> Result<bool, HallpassError> {
        let asking = self.request(Method::POST, wire::TOKEN).json(token);
        Ok(json::<Liveness>(asking).await?.is_live)
    }

    async fn revoked_sessions(
        &self,
        _: UnixSeconds,
        mut each: impl FnMut(SessionId) + Send + 'static,
    ) -> Result<(), HallpassError> {
        let asking = self.request(Method::GET, wire::REVOKED_SESSIONS).timeout(REVOKED_SESSIONS_TIMEOUT);
        let text = send(asking).await?.text().await.map_err(unreachable)?;
        whole_list(&text).ok_or(HallpassError::Unreadable)?.into_iter().for_each(&mut each);
        Ok(())
    }

    async fn record_instance(&self, id: InstanceId, name: &str, facts: &str) -> Result<i64, HallpassError> {
        let facts = Facts { name: name.to_owned(), facts: facts.to_owned() };
        let asking = self.request(Method::PUT, &format!("{}/{id}", wire::INSTANCES)).json(&facts);
        Ok(json::<Recorded>(asking).await?.time_ms)
    }

    async fn other_instances(&self, id: InstanceId) -> Result<Vec<InstanceRow>, HallpassError> {
        let mut all: Vec<InstanceRow> = json(self.request(Method::GET, wire::INSTANCES)).await?;
        let id = id.to_string();
        all.retain(|row| row.id != id);
        Ok(all)
    }

    async fn delete_instance(&self, id: &str, beat: Option<i64>) -> Result<(), HallpassError> {
        let asking = self.request(Method::DELETE, &format!("{}/{id}", wire::INSTANCES));
        send(asking.query(&beat.map(|beat| [("beat", beat)]))).await.map(drop)
    }
}

/// The ids of a list of revoked sessions; `None` if it is not whole, or something else.
fn whole_list(text: &str) -> Option<Vec<SessionId>> {
    let count = text.lines().count().checked_sub(1)?;
    let ids = text.strip_suffix(&wire::revoked_sessions_end(count))?;
    ids.split_inclusive('\n').map(|line| line.strip_suffix('\n')?.parse().ok()).collect()
}

async fn send(request: RequestBuilder) -> Result<Response, HallpassError> {
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let message = response.json::<ErrorBody>().await.map(|body| body.message).unwrap_or_default();
    Err(HallpassError::Refused { status, message })
}

async fn json<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, HallpassError> {
    let read = send(request).await?.json().await;
    read.map_err(|error| match error.is_decode() && !error.is_timeout() {
        true => HallpassError::Unreadable,
        false => unreachable(error),
    })
}

fn unreachable(error: reqwest::Error) -> HallpassError {
    HallpassError::Unreachable(error.without_url())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_list_is_read() {
        let (one, other) = (SessionId::random(), SessionId::random());
        assert_eq!(whole_list("end 0\n"), Some(vec![]));
        assert_eq!(whole_list(&format!("{one}\n{other}\nend 2\n")), Some(vec![one, other]));
        for text in [
            String::new(),
            "\n".into(),
            "end 0".into(),
            "end 1\n".into(),
            format!("{one}\n"),
            format!("{one}\n{other}\nend 1\n"),
            format!("{one}\nend 2\n"),
            format!("{one}\nend 1"),
            format!("{one}\nend 1\n\n"),
            format!("{one}x\nend 1\n"),
            "<html>\nend 1\n".into(),
        ] {
            assert_eq!(whole_list(&text), None, "{text:?}");
        }
    }
}
