//! The signing keys, read from the settings or generated once for development. Each secret yields the key
//! that signs access tokens, the keys that authenticate refresh tokens and device tokens, and a public key
//! id.

use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::hmac;
use base64::{
    Engine,
    prelude::{BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD},
};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use tracing::warn;

use crate::server::config::TokenConfig;

/// RFC 7518, 3.2: a key must be at least as long as the hash.
const MIN_SECRET_BYTES: usize = 32;

/// A secret and the keys that are derived from it.
pub struct Key {
    id: String,
    secret: Zeroizing<Vec<u8>>,
    refresh: hmac::Key,
    device: hmac::Key,
}

impl Key {
    fn new(secret: Zeroizing<Vec<u8>>) -> Result<Self> {
        ensure!(
            secret.len() >= MIN_SECRET_BYTES,
            "a signing key has {} bytes: it needs at least {MIN_SECRET_BYTES}",
            secret.len()
        );
        // HMAC pads an empty key with zeros (RFC 2104, 2), so a key of zeros is as good as none.
        ensure!(
            secret.iter().any(|byte| *byte != 0),
            "a signing key is all zeros: `openssl rand 32 | basenc --base64url` makes one"
        );
        let master = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let derive = |purpose: &str| hmac::sign(&master, purpose.as_bytes());
        Ok(Self {
            id: BASE64_URL_SAFE_NO_PAD.encode(&derive("hallpass key id").as_ref()[..6]),
            refresh: hmac::Key::new(hmac::HMAC_SHA256, derive("hallpass refresh token").as_ref()),
            device: hmac::Key::new(hmac::HMAC_SHA256, derive("hallpass device").as_ref()),
            secret,
        })
    }

    /// The `kid`, which identifies the key and reveals nothing about it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key that signs access tokens.
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// The key that authenticates refresh tokens. It is derived, so that neither kind of token reveals
    /// anything about the key of the other.
    pub fn refresh(&self) -> &hmac::Key {
        &self.refresh
    }

    /// The key that authenticates device tokens ([`device_cookie`](super::device_cookie)).
    pub fn device(&self) -> &hmac::Key {
        &self.device
    }
}

/// The current key and, during a key rotation, the previous one.
pub struct Keys {
    current: Key,
    previous: Option<Key>,
}

impl Keys {
    /// Takes the keys from the settings; without one, reads the development key from its file, which is
    /// generated at the first start.
    ///
    /// # Errors
    /// A key is not base64url, too short or all zeros; the key file cannot be read, or others can read it.
    pub fn load(config: &TokenConfig) -> Result<Self> {
        let current = match &config.signing_key {
            Some(key) => decode("HALLPASS_SIGNING_KEY", key)?,
            None => Key::new(development_secret(Path::new(&config.key_file))?)?,
        };
        let previous = config.previous_signing_key.as_ref();
        let previous = previous.map(|key| decode("HALLPASS_PREVIOUS_SIGNING_KEY", key)).transpose()?;
        Ok(Self { current, previous })
    }

    /// The key that signs.
    pub fn current(&self) -> &Key {
        &self.current
    }

    /// The base64url tag that authenticates a message for one purpose: [`Key::refresh`] or [`Key::device`].
    pub fn tag(&self, purpose: fn(&Key) -> &hmac::Key, message: &[u8]) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(purpose(&self.current), message).as_ref())
    }

    /// Whether one of our keys for this purpose produced exactly this tag, of 32 bytes, for the message.
    pub fn verify_tag(&self, purpose: fn(&Key) -> &hmac::Key, message: &[u8], tag: &str) -> bool {
        tag_bytes(tag)
            .is_some_and(|bytes| self.all().any(|key| hmac::verify(purpose(key), message, &bytes).is_ok()))
    }

    /// Whether the text has the form of a tag.
    pub fn is_tag(tag: &str) -> bool {
        tag_bytes(tag).is_some()
    }

    /// All keys whose tokens are accepted, the current one first.
    pub fn all(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.current).chain(&self.previous)
    }
}

fn tag_bytes(tag: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    (BASE64_URL_SAFE_NO_PAD.decode_slice(tag, &mut bytes) == Ok(bytes.len())).then_some(bytes)
}

fn decode(variable: &str, key: &SecretString) -> Result<Key> {
    let text = key.expose_secret().trim().trim_end_matches('=');
    // The decoder's own error would quote a byte of the secret.
    let secret = BASE64_URL_SAFE_NO_PAD.decode(text).ok().with_context(|| {
        format!("{variable} is not base64url; `openssl rand 32 | basenc --base64url` makes a key")
    })?;
    Key::new(Zeroizing::new(secret)).context(variable.to_owned())
}

fn development_secret(file: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let name = file.display();
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => make_development_secret(file)?,
        Err(error) => return Err(error).with_context(|| format!("the key file {name} cannot be read")),
    };
    let mode = fs::metadata(file)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!("the key file {name} has mode {mode:o}, so others can read it: chmod 600 {name}");
    }
    warn!("signing with the development key in {name}; set HALLPASS_SIGNING_KEY where it matters");
    let text = Zeroizing::new(text);
    let secret = BASE64_URL_SAFE.decode(text.trim()).ok();
    secret.map(Zeroizing::new).with_context(|| format!("the key file {name} is damaged: it is not base64url"))
}

fn make_development_secret(file: &Path) -> Result<String> {
    let name = file.display();
    let mut secret = Zeroizing::new([0; MIN_SECRET_BYTES]);
    aws_lc_rs::rand::fill(&mut *secret).context("the system's random generator fails")?;
    let text = BASE64_URL_SAFE.encode(*secret);
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("the folder of {name} cannot be created"))?;
    }
    // With `create_new`, two concurrent first starts cannot end up with different keys.
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let mut key_file = made.with_context(|| format!("the key file {name} cannot be created"))?;
    key_file
        .write_all(text.as_bytes())
        .and_then(|()| key_file.sync_all())
        .with_context(|| format!("the key file {name} cannot be written"))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_that_is_too_short_or_all_zeros_is_refused() {
        let key = |secret: &[u8]| {
            Key::new(Zeroizing::new(secret.to_vec())).map(drop).map_err(|error| error.to_string())
        };
        for zeros in [32, 33, 64, 100] {
            assert!(key(&vec![0; zeros]).unwrap_err().contains("all zeros"), "{zeros}");
        }
        assert!(key(&[1; 31]).unwrap_err().contains("at least 32"));
        assert_eq!(key(&[1; 32]), Ok(()));
    }
}
