//! The signing keys: one from the settings, or those of a folder ([`key_folder`](super::key_folder)).

use std::{collections::BTreeSet, path::Path, sync::Arc};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};

use super::{key::Key, key_folder::KeyFolder};
use crate::server::{clock::UnixSeconds, config::TokenConfig};

/// The keys whose tokens are accepted, of which the first one signs.
#[derive(Clone)]
pub struct Keys(Vec<Arc<Key>>);

impl Keys {
    /// [`Keys::load`], with a key made first if the settings name none and the folder is empty.
    ///
    /// # Errors
    /// See [`Keys::load`]; or the folder cannot be written.
    pub fn load_or_make(config: &TokenConfig, now: UnixSeconds) -> Result<Self> {
        if config.signing_key.is_none() {
            KeyFolder::new(Path::new(&config.keys)).make_first(config, now)?;
        }
        Self::load(config, now)
    }

    /// Takes the key from the settings or, without one, those of the folder. A previous key of the settings is accepted
    /// in both cases.
    ///
    /// # Errors
    /// A key is not base64url, too short or all zeros; a file of the folder cannot be read, or others can read it; or
    /// none may sign.
    pub fn load(config: &TokenConfig, now: UnixSeconds) -> Result<Self> {
        let mut keys = match &config.signing_key {
            Some(key) => vec![decode("HALLPASS_SIGNING_KEY", key)?],
            None => KeyFolder::new(Path::new(&config.keys)).load(config, now)?,
        };
        if let Some(previous) = &config.previous_signing_key {
            keys.push(decode("HALLPASS_PREVIOUS_SIGNING_KEY", previous)?);
        }
        Self::new(keys)
    }

    /// These keys, of which the first one that is not retired signs.
    ///
    /// # Errors
    /// There is none that could sign.
    pub fn new(mut keys: Vec<Key>) -> Result<Self> {
        // Sorting is stable: the others stay in order.
        keys.sort_by_key(|key| key.retired().is_some());
        let can_sign = keys.first().is_some_and(|key| key.retired().is_none());
        ensure!(can_sign, "all signing keys are retired: `hallpass keys new` makes one");
        Ok(Self(keys.into_iter().map(Arc::new).collect()))
    }

    /// These keys, and those of `others` that are not among them.
    pub fn with_those_of(&self, others: &Self) -> Self {
        let is_missing = |key: &&Arc<Key>| self.all().all(|known| known.id() != key.id());
        Self(self.0.iter().chain(others.0.iter().filter(is_missing)).cloned().collect())
    }

    /// The same keys, of which the one with this id signs, if it is among them.
    pub fn signing_with(mut self, id: &str) -> Self {
        self.0.sort_by_key(|key| key.id() != id);
        self
    }

    /// The ids of the retired keys.
    pub fn retired(&self) -> BTreeSet<&str> {
        self.all().filter(|key| key.retired().is_some()).map(Key::id).collect()
    }

    /// The newest key that is not retired.
    pub fn newest(&self) -> &Key {
        let may_sign = self.all().filter(|key| key.retired().is_none());
        may_sign.max_by_key(|key| (key.made(), key.id())).unwrap_or_else(|| self.current())
    }

    /// The oldest key of the folder that is not retired.
    pub fn oldest(&self) -> &Key {
        let may_sign = self.all().filter(|key| key.retired().is_none() && key.made() > 0);
        may_sign.min_by_key(|key| (key.made(), key.id())).unwrap_or_else(|| self.current())
    }

    /// The key that signs.
    pub fn current(&self) -> &Key {
        &self.0[0]
    }

    /// The base64url tag that authenticates a message for one purpose: [`Key::refresh`],
    /// [`Key::device`], [`Key::mail`] or [`Key::passkey`].
    pub fn tag(&self, purpose: fn(&Key) -> &hmac::Key, message: &[u8]) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(purpose(self.current()), message).as_ref())
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
        self.0.iter().map(Arc::as_ref)
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
    Key::of_secret(Zeroizing::new(secret)).context(variable.to_owned())
}
