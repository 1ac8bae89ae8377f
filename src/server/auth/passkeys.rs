//! Passkeys (WebAuthn Level 3): what a browser is asked, and whether its answer is right. The ceremonies are those of
//! `webauthn-rs`; a passkey has to verify its user, so it is two factors.
//!
//! The state of a ceremony is not kept but given to the browser, authenticated by one of our keys and with an end, so
//! that visitors who have not signed in leave nothing in the database. It is no secret, and it names the session or the
//! sign-in that it is for. That it is completed once is checked where the answer takes effect: `db/factors.rs` records
//! the completed ones.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tracing::{error, warn};
use webauthn_rs::{
    Webauthn, WebauthnBuilder,
    prelude::{
        DiscoverableAuthentication, Passkey, PasskeyRegistration, PublicKeyCredential,
        RegisterPublicKeyCredential, Url, Uuid, WebauthnError,
    },
};

use super::{key::Key, keys::Keys};
use crate::{
    api::{error::ApiError, types::PasskeyCeremony},
    server::{
        clock::UnixSeconds,
        config::Config,
        db::factors::{Ceremony, PasskeyRow, PasskeyUse},
        ids::{CeremonyId, SessionId, UserId},
    },
};

/// How long a ceremony may take, in seconds.
const LIFE: i64 = 300;

/// The site, as passkeys know it.
pub struct Passkeys {
    /// `None` if the site has no name, only an IP address: browsers then refuse passkeys.
    webauthn: Option<Webauthn>,
}

/// A ceremony under way, as the browser keeps it.
#[derive(Serialize, Deserialize)]
struct Pending<S> {
    id: CeremonyId,
    expires_at: UnixSeconds,
    adds: Option<Adds>,
    state: S,
}

/// Who adds a passkey in a ceremony: the session, and the version of the password when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adds {
    pub session: SessionId,
    pub password_version: i64,
}

/// What a passkey that was made is to be kept as.
pub struct Registered {
    pub ceremony: Ceremony,
    pub credential_id: String,
    /// As JSON.
    pub credential: String,
    pub signatures: i64,
    pub password_version: i64,
}

impl Passkeys {
    /// The site at the first of its public addresses; without one, that of a machine for development, `localhost`.
    ///
    /// # Errors
    /// The address cannot be that of a site with passkeys.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let origins: Vec<Url> = config
            .server
            .public_url
            .0
            .iter()
            .map(|origin| origin.to_string().parse())
            .collect::<Result<_, _>>()?;
        let localhost = Url::parse("http://localhost")?;
        let main = origins.first().unwrap_or(&localhost);
        let Some(name) = main.domain() else { return Ok(Self { webauthn: None }) };
        let mut builder = WebauthnBuilder::new(name, main)?.rp_name(config.site_name());
        builder = builder.allow_any_port(origins.is_empty());
        let is_within = |origin: &&Url| {
            origin.domain().is_some_and(|host| host == name || host.ends_with(&format!(".{name}")))
        };
        for origin in origins.iter().skip(1).filter(is_within) {
            builder = builder.append_allowed_origin(origin);
        }
        Ok(Self { webauthn: Some(builder.build()?) })
    }

    fn webauthn(&self) -> Result<&Webauthn, ApiError> {
        self.webauthn.as_ref().ok_or(ApiError::Unavailable)
    }

    /// Begins to add a passkey. `known` are those that the user has.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] if the site has no name.
    pub fn begin_registration(
        &self,
        keys: &Keys,
        (user_id, email, adds): (UserId, &str, Adds),
        known: &[PasskeyRow],
        now: UnixSeconds,
    ) -> Result<PasskeyCeremony, ApiError> {
        let known: Vec<_> =
            known.iter().filter_map(|row| read(row).ok()).map(|passkey| passkey.cred_id().clone()).collect();
        let user = Uuid::from_bytes(*user_id.as_bytes());
        let begun = self.webauthn()?.start_passkey_registration(user, email, email, Some(known));
        let (options, state) = begun.map_err(|error| internal(&error))?;
        let mut options = serde_json::to_value(options.public_key).map_err(|_| ApiError::Internal)?;
        // So that the user need not type an address to sign in with it.
        options["authenticatorSelection"]["residentKey"] = "required".into();
        options["authenticatorSelection"]["requireResidentKey"] = true.into();
        give(keys, &options, Some(adds), state, now)
    }

    /// The passkey that the browser has made.
    ///
    /// # Errors
    /// [`ApiError::InvalidGrant`] when the answer is not one to a ceremony of this session that is under way.
    pub fn finish_registration(
        &self,
        keys: &Keys,
        (ceremony, credential): (&str, &str),
        session: SessionId,
        now: UnixSeconds,
    ) -> Result<Registered, ApiError> {
        let webauthn = self.webauthn()?;
        let (ceremony, adds, state) = take::<PasskeyRegistration>(keys, ceremony, now)?;
        let adds = adds.filter(|adds| adds.session == session).ok_or_else(ApiError::wrong_passkey)?;
        let answer: RegisterPublicKeyCredential = parse(credential)?;
        let made = webauthn.finish_passkey_registration(&answer, &state).map_err(|error| refused(&error))?;
        let credential = serde_json::to_value(&made).map_err(|_| ApiError::Internal)?;
        Ok(Registered {
            ceremony,
            credential_id: BASE64_URL_SAFE_NO_PAD.encode(made.cred_id()),
            signatures: credential["cred"]["counter"].as_i64().unwrap_or_default(),
            credential: credential.to_string(),
            password_version: adds.password_version,
        })
    }

    /// Begins a sign-in with whichever passkey the browser has.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] if the site has no name.
    pub fn begin_login(&self, keys: &Keys, now: UnixSeconds) -> Result<PasskeyCeremony, ApiError> {
        let begun = self.webauthn()?.start_discoverable_authentication();
        let (options, state) = begun.map_err(|error| internal(&error))?;
        let options = serde_json::to_value(options.public_key).map_err(|_| ApiError::Internal)?;
        give(keys, &options, None, state, now)
    }

    /// The credential id of the passkey that has answered, by which its row is found.
    ///
    /// # Errors
    /// [`ApiError::InvalidGrant`].
    pub fn credential_id(credential: &str) -> Result<String, ApiError> {
        let answer: PublicKeyCredential = parse(credential)?;
        Ok(BASE64_URL_SAFE_NO_PAD.encode(answer.get_credential_id()))
    }

    /// Checks the answer of this passkey of this user.
    ///
    /// # Errors
    /// [`ApiError::InvalidGrant`] when the answer is not one to a sign-in that is under way, or not by this passkey.
    pub fn finish_login(
        &self,
        keys: &Keys,
        (ceremony, credential): (&str, &str),
        (user_id, row): (UserId, &PasskeyRow),
        now: UnixSeconds,
    ) -> Result<PasskeyUse, ApiError> {
        let webauthn = self.webauthn()?;
        let (ceremony, adds, state) = take::<DiscoverableAuthentication>(keys, ceremony, now)?;
        if adds.is_some() {
            return Err(ApiError::wrong_passkey());
        }
        let answer: PublicKeyCredential = parse(credential)?;
        let named =
            webauthn.identify_discoverable_authentication(&answer).map_err(|error| refused(&error))?;
        if named.0.as_bytes() != user_id.as_bytes() {
            return Err(ApiError::wrong_passkey());
        }
        let mut passkey = read(row)?;
        let checked = webauthn.finish_discoverable_authentication_v2(&answer, state, &passkey);
        let result = checked.map_err(|error| refused(&error))?;
        if !result.user_verified() {
            return Err(ApiError::wrong_passkey());
        }
        passkey.update_credential(&result);
        Ok(PasskeyUse {
            id: row.id.parse().map_err(|_| ApiError::Internal)?,
            ceremony,
            credential: serde_json::to_string(&passkey).map_err(|_| ApiError::Internal)?,
            signatures: result.counter().into(),
        })
    }
}

/// Whether a passkey is synchronized between devices, as it has said last.
pub fn is_backed_up(row: &PasskeyRow) -> bool {
    let credential = serde_json::from_str::<serde_json::Value>(&row.credential).unwrap_or_default();
    credential["cred"]["backup_state"] == true
}

fn read(row: &PasskeyRow) -> Result<Passkey, ApiError> {
    serde_json::from_str(&row.credential).map_err(|error| {
        error!(passkey.id = row.id, "passkey {} cannot be read: {error}", row.id);
        ApiError::Internal
    })
}

fn parse<T: DeserializeOwned>(credential: &str) -> Result<T, ApiError> {
    serde_json::from_str(credential).map_err(|_| ApiError::wrong_passkey())
}

/// The ceremony as the browser gets it: `base64url(JSON).HMAC`.
fn give<S: Serialize>(
    keys: &Keys,
    options: &serde_json::Value,
    adds: Option<Adds>,
    state: S,
    now: UnixSeconds,
) -> Result<PasskeyCeremony, ApiError> {
    let pending = Pending { id: CeremonyId::random(), expires_at: now + LIFE, adds, state };
    let text = serde_json::to_vec(&pending).map_err(|_| ApiError::Internal)?;
    let text = BASE64_URL_SAFE_NO_PAD.encode(text);
    let tag = keys.tag(Key::passkey, text.as_bytes());
    Ok(PasskeyCeremony { ceremony: format!("{text}.{tag}"), options: options.to_string() })
}

/// A ceremony that we have begun and that is under way: who adds a passkey in it, or `None` for a sign-in, and its state.
fn take<S: DeserializeOwned>(
    keys: &Keys,
    ceremony: &str,
    now: UnixSeconds,
) -> Result<(Ceremony, Option<Adds>, S), ApiError> {
    let (text, tag) = ceremony.split_once('.').ok_or_else(ApiError::wrong_passkey)?;
    if !keys.verify_tag(Key::passkey, text.as_bytes(), tag) {
        return Err(ApiError::wrong_passkey());
    }
    let text = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| ApiError::wrong_passkey())?;
    let pending: Pending<S> = serde_json::from_slice(&text).map_err(|_| ApiError::wrong_passkey())?;
    if pending.expires_at <= now {
        return Err(ApiError::wrong_passkey());
    }
    Ok((Ceremony { id: pending.id, expires_at: pending.expires_at }, pending.adds, pending.state))
}

fn refused(error: &WebauthnError) -> ApiError {
    warn!(%error, "a passkey was refused: {error}");
    ApiError::wrong_passkey()
}

fn internal(error: &WebauthnError) -> ApiError {
    error!(%error, "a passkey ceremony cannot begin: {error}");
    ApiError::Internal
}
