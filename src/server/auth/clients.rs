//! Clients: other services that may ask about tokens and revoke them (RFC 6749, 2). Their ids and secrets, and how a
//! request proves that it comes from one. The command line makes them.

use anyhow::{Context, Result};
use aws_lc_rs::{hmac, rand};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};

use super::{Auth, authenticate::Administrator, unavailable};
use crate::{
    api::{
        error::ApiError,
        types::{ClientInfo, ClientList},
    },
    server::{clock::UnixSeconds, db::clients::Client, ids::ClientNumber},
};

/// Distinct prefixes, by which scanners find secrets that were committed to a repository.
const ID_PREFIX: &str = "hpc_";
const SECRET_PREFIX: &str = "hps_";

/// The size of a secret: no guess succeeds, so guesses need not be counted.
const SECRET_BYTES: usize = 32;

/// The longest name of a client, in characters.
pub const MAX_NAME: usize = 100;

/// The name of a new client, trimmed; `None` if it is empty, too long or has control characters.
pub fn name(text: &str) -> Option<&str> {
    let text = text.trim();
    let is_name = (1..=MAX_NAME).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    is_name.then_some(text)
}

/// A new id.
pub fn new_id() -> String {
    format!("{ID_PREFIX}{}", ClientNumber::random())
}

/// A new secret for the client with this id, and the hash by which it is recognized.
///
/// # Errors
/// The system's random generator fails.
pub fn new_secret(id: &str) -> Result<(SecretString, String)> {
    let mut bytes = [0; SECRET_BYTES];
    rand::fill(&mut bytes).ok().context("the system's random generator fails")?;
    let secret: SecretString = format!("{SECRET_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)).into();
    let hash = BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key(&secret), id.as_bytes()).as_ref());
    Ok((secret, hash))
}

/// The hash of a secret is an HMAC with it over the id, so that a hash is of no use for another client.
fn key(secret: &SecretString) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes())
}

/// The proof that a request came from a client.
#[derive(Debug)]
pub struct AuthenticatedClient {
    id: String,
    may_revoke_users: bool,
}

impl AuthenticatedClient {
    pub fn id(&self) -> &str {
        &self.id
    }

    /// # Errors
    /// [`ApiError::UnauthorizedClient`] unless the client was added with this permission.
    pub fn require_may_revoke_users(&self) -> Result<(), ApiError> {
        if self.may_revoke_users { Ok(()) } else { Err(ApiError::UnauthorizedClient) }
    }
}

impl Auth {
    /// All clients, the oldest first.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`].
    pub async fn clients(&self, _: &Administrator, now: UnixSeconds) -> Result<ClientList, ApiError> {
        let clients = self.db.clients().await.map_err(unavailable)?.into_iter();
        let clients = clients.map(|Client { id, name, created_at, may_revoke_users }| ClientInfo {
            client_id: id,
            name,
            created_at,
            may_revoke_users,
        });
        Ok(ClientList { now: self.allowlist.shared_time(now), clients: clients.collect() })
    }

    /// The client with this id and secret.
    ///
    /// # Errors
    /// [`ApiError::InvalidClient`] whether the id or the secret is wrong; [`ApiError::Unavailable`].
    pub async fn authenticate_client(
        &self,
        id: &str,
        secret: &SecretString,
    ) -> Result<AuthenticatedClient, ApiError> {
        let is_id = id.strip_prefix(ID_PREFIX).is_some_and(|number| number.parse::<ClientNumber>().is_ok());
        let credentials =
            if is_id { self.db.client_credentials(id).await.map_err(unavailable)? } else { None };
        let hash =
            credentials.as_ref().and_then(|known| BASE64_URL_SAFE_NO_PAD.decode(&known.secret_hash).ok());
        hmac::verify(&key(secret), id.as_bytes(), &hash.unwrap_or_default())
            .map_err(|_| ApiError::InvalidClient)?;
        let may_revoke_users = credentials.is_some_and(|known| known.may_revoke_users);
        Ok(AuthenticatedClient { id: id.to_owned(), may_revoke_users })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_recognized_by_its_hash_and_only_for_its_client() {
        let (id, other) = (new_id(), new_id());
        let (secret, hash) = new_secret(&id).unwrap();
        let hash = BASE64_URL_SAFE_NO_PAD.decode(hash).unwrap();
        assert!(hmac::verify(&key(&secret), id.as_bytes(), &hash).is_ok());
        assert!(hmac::verify(&key(&secret), other.as_bytes(), &hash).is_err());
        assert!(hmac::verify(&key(&new_secret(&id).unwrap().0), id.as_bytes(), &hash).is_err());
        assert!(secret.expose_secret().starts_with("hps_") && secret.expose_secret().len() == 47);
        assert!(id.starts_with("hpc_") && id.len() == 26);
    }

    #[test]
    fn name_is_a_line_of_text() {
        assert_eq!(name("  billing API "), Some("billing API"));
        for text in ["", " ", "two\nlines", &"x".repeat(101)] {
            assert_eq!(name(text), None, "{text:?}");
        }
    }
}
