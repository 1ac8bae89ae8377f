//! The public keys that Hallpass publishes (RFC 7517), which change while the guard runs.
//!
//! Hallpass signs with a new key only when every guard has recorded that it accepts the key, so a guard that is counted
//! knows all keys that sign. Only one that was cut off may meet a key that it does not know: it then asks.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hallpass_allowlist::{Clock, SystemClock, Uptime};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tracing::warn;

use crate::{
    claims::Claims,
    hallpass::{Hallpass, HallpassError},
    refusal::Refusal,
    verifier::{Verifier, VerifyingKey},
    wire::Settings,
};

/// How long a key that is no longer published is accepted: instances do not change their keys at the same moment.
const KEPT_FOR: Duration = Duration::from_mins(1);

/// For how long the published keys are not read again because of a token whose key is unknown.
const FRESH_FOR: Duration = Duration::from_secs(5);

/// The time between two attempts to read them for that reason.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A JSON Web Key, as far as it matters here.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    kid: Option<String>,
}

#[derive(Clone)]
struct PublicKey {
    id: String,
    verifier: Verifier,
    /// When it was published last.
    seen: Uptime,
}

impl PublicKey {
    /// A key of a kind that Hallpass signs with; `None` for every other one.
    fn read(issuer: &str, audience: &str, key: Value, seen: Uptime) -> Option<Self> {
        let Jwk { kty, crv, x, y, kid } = serde_json::from_value(key).ok()?;
        let (id, x) = (kid?, x?);
        let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if !id.bytes().all(is_base64url) {
            return None;
        }
        let key = match (kty.as_str(), crv.as_deref(), &y) {
            ("OKP", Some("Ed25519"), _) => VerifyingKey::Ed25519 { x: &x },
            ("EC", Some("P-256"), Some(y)) => VerifyingKey::P256 { x: &x, y },
            _ => return None,
        };
        let verifier = Verifier::new(issuer, audience, &id, key).ok()?;
        Some(Self { id, verifier, seen })
    }
}

/// The published keys, and those that were published a moment ago.
fn with_those_before(mut published: Vec<PublicKey>, before: &[PublicKey], now: Uptime) -> Vec<PublicKey> {
    let is_gone = |key: &&PublicKey| published.iter().all(|other| other.id != key.id);
    let gone = before.iter().filter(is_gone).filter(|key| now.since(key.seen) < KEPT_FOR);
    let gone: Vec<_> = gone.cloned().collect();
    published.extend(gone);
    published
}

/// The keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("{0}")]
    Hallpass(#[from] HallpassError),
    #[error("the settings of Hallpass have changed: start this service again")]
    Changed,
    #[error(
        "Hallpass publishes no key of Ed25519 or P-256: with HS256, a service that verifies tokens could also make them"
    )]
    None,
}

/// The keys whose tokens the guard accepts.
pub struct PublicKeys {
    hallpass: Hallpass,
    /// What Hallpass has said at the start, without its keys.
    settings: Settings,
    /// Whether Hallpass has said something else since: then no token can be judged here.
    has_changed: AtomicBool,
    known: RwLock<Known>,
    /// Locked while they are read again because of an unknown key: when that was tried last.
    tried: Mutex<Option<Uptime>>,
}

#[derive(Clone)]
struct Known {
    keys: Arc<[PublicKey]>,
    /// When they were read last.
    read: Uptime,
}

impl PublicKeys {
    /// The keys in the settings of Hallpass.
    ///
    /// # Errors
    /// [`KeysError::None`].
    pub fn new(hallpass: Hallpass, settings: Settings) -> Result<Self, KeysError> {
        let now = SystemClock.uptime();
        let known = RwLock::new(Known { keys: Arc::new([]), read: now });
        let (has_changed, tried) = (AtomicBool::new(false), Mutex::default());
        let without_keys = Settings { keys: Vec::new(), ..settings.clone() };
        let keys = Self { hallpass, settings: without_keys, has_changed, known, tried };
        keys.adopt(settings, now)?;
        Ok(keys)
    }

    /// Whether Hallpass has the settings with which this guard has started.
    pub fn are_current(&self) -> bool {
        !self.has_changed.load(Ordering::Relaxed)
    }

    /// The claims of a token, live or not.
    pub async fn verify(&self, token: &str) -> Result<Claims, Refusal> {
        if let Some(verified) = self.verify_locally(token) {
            return verified;
        }
        if !has_header_of_ours(token) {
            return Err(Refusal::InvalidToken);
        }
        self.read_for_unknown_key().await?;
        self.verify_locally(token).unwrap_or(Err(Refusal::InvalidToken))
    }

    /// `None` if the key is unknown.
    fn verify_locally(&self, token: &str) -> Option<Result<Claims, Refusal>> {
        let keys = self.known().keys;
        let key = keys.iter().find(|key| key.verifier.is_for(token))?;
        Some(key.verifier.verify(token).map_err(|_| Refusal::InvalidToken))
    }

    /// The ids of all keys, in order.
    pub fn ids(&self) -> Vec<String> {
        let mut ids: Vec<_> = self.known().keys.iter().map(|key| key.id.clone()).collect();
        // Instances may publish them in another order while they change.
        ids.sort_unstable();
        ids
    }

    /// Reads the published keys again.
    ///
    /// # Errors
    /// [`KeysError`]: the keys stay as they were.
    pub async fn read(&self) -> Result<(), KeysError> {
        let asked = SystemClock.uptime();
        let published = self.hallpass.settings().await?;
        self.adopt(published, asked)
    }

    fn adopt(&self, published: Settings, asked: Uptime) -> Result<(), KeysError> {
        let Settings { issuer, audience, equal, .. } = &self.settings;
        let has_changed =
            (issuer, audience, equal) != (&published.issuer, &published.audience, &published.equal);
        self.has_changed.store(has_changed, Ordering::Relaxed);
        if has_changed {
            return Err(KeysError::Changed);
        }
        let usable = |key| PublicKey::read(issuer, audience, key, asked);
        let published: Vec<_> = published.keys.into_iter().filter_map(usable).collect();
        if published.is_empty() {
            return Err(KeysError::None);
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let keys = with_those_before(published, &known.keys, asked);
        *known = Known { keys: keys.into(), read: asked };
        Ok(())
    }

    /// Reads them again unless that was done a moment ago, however many requests ask for it.
    async fn read_for_unknown_key(&self) -> Result<(), Refusal> {
        let mut tried = self.tried.lock().await;
        let now = SystemClock.uptime();
        if now.since(self.known().read) < FRESH_FOR {
            return Ok(());
        }
        if tried.is_some_and(|tried| now.since(tried) < RETRY_AFTER) {
            return Err(Refusal::Unavailable);
        }
        // Set before, too, for the case that this request is dropped while it waits.
        *tried = Some(now);
        let read = self.read().await;
        *tried = Some(SystemClock.uptime());
        read.map_err(|error| {
            warn!(%error, "the key of a token is unknown, and the published ones cannot be read: {error}");
            Refusal::Unavailable
        })
    }

    fn known(&self) -> Known {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whether the header is one that Hallpass would write, with some key.
fn has_header_of_ours(token: &str) -> bool {
    let Some((header, _)) = token.split_once('.') else { return false };
    let header = BASE64_URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    ["EdDSA", "ES256"].iter().any(|algorithm| {
        header.starts_with(format!(r#"{{"typ":"at+jwt","alg":"{algorithm}","kid":""#).as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(key: Value, seen: Uptime) -> Option<PublicKey> {
        PublicKey::read("hallpass", "hallpass", key, seen)
    }

    /// The example of RFC 8037, A.2, with this id.
    fn ed25519(kid: &str) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": kid })
    }

    #[test]
    fn keys_of_other_kinds_are_left_out() {
        let now = SystemClock.uptime();
        assert_eq!(read(ed25519("a-1_"), now).unwrap().id, "a-1_");
        // RFC 7515, A.3.1.
        let p256 = json!({
            "kty": "EC", "crv": "P-256", "kid": "b", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
        });
        assert!(read(p256, now).is_some());
        for other in [
            json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "c", "x": "c2VjcmV0" }),
            json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "d" }),
            json!({ "kty": "OKP", "crv": "X25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "e" }),
            json!({ "kty": "EC", "crv": "P-256", "x": "AA", "kid": "f" }),
            json!({ "kty": "OKP", "crv": "Ed25519", "kid": "g" }),
            ed25519("a\",\"alg\":\"none"),
            json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }),
            json!("key"),
            json!(null),
        ] {
            assert!(read(other.clone(), now).is_none(), "{other}");
        }
    }

    #[test]
    fn key_that_is_missing_is_kept_for_a_minute() {
        let at = |seconds| Uptime::after(Duration::from_secs(seconds));
        let ids = |keys: &[PublicKey]| keys.iter().map(|key| key.id.clone()).collect::<Vec<_>>();
        let keys = |ids: &[&str], seconds| -> Vec<PublicKey> {
            ids.iter().map(|id| read(ed25519(id), at(seconds)).unwrap()).collect()
        };
        let known = with_those_before(keys(&["b", "a"], 100), &[], at(100));
        let known = with_those_before(keys(&["b"], 130), &known, at(130));
        assert_eq!(ids(&known), ["b", "a"]);
        assert_eq!(ids(&with_those_before(keys(&["b", "a"], 159), &known, at(159))), ["b", "a"]);
        assert_eq!(ids(&with_those_before(keys(&["b"], 159), &known, at(159))), ["b", "a"]);
        assert_eq!(ids(&with_those_before(keys(&["b"], 160), &known, at(160))), ["b"]);
    }

    #[test]
    fn header_is_recognized_whatever_its_key() {
        let token = |header: &str| format!("{}.e30.AA", BASE64_URL_SAFE_NO_PAD.encode(header));
        for algorithm in ["EdDSA", "ES256"] {
            assert!(has_header_of_ours(&token(&format!(
                r#"{{"typ":"at+jwt","alg":"{algorithm}","kid":"x"}}"#
            ))));
        }
        for other in [
            r#"{"typ":"at+jwt","alg":"HS256","kid":"x"}"#,
            r#"{"typ":"at+jwt","alg":"none","kid":"x"}"#,
            r#"{"typ":"JWT","alg":"EdDSA","kid":"x"}"#,
            r#"{"alg":"EdDSA","typ":"at+jwt","kid":"x"}"#,
            "",
        ] {
            assert!(!has_header_of_ours(&token(other)), "{other}");
        }
    }
}
