//! Devices that an account knows: a browser in which someone has signed in keeps a token that says so,
//! `id.HMAC(key, e-mail address, id)`. It lets nobody in. It only spares its holder from waiting while
//! others guess at the account's password (see `server/throttle.rs`).

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::keys::{Key, Keys};
use crate::server::{ids::DeviceId, users::Email};

/// The token of this device for the account with this address.
pub fn sign(keys: &Keys, email: &Email, id: DeviceId) -> String {
    let tag = hmac::sign(keys.current().device(), &message(email, id));
    format!("{id}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag.as_ref()))
}

/// Which device, if one of our keys made the token for this very account.
pub fn verify(keys: &Keys, email: &Email, token: &str) -> Option<DeviceId> {
    let (id, tag) = token.split_once('.')?;
    let id = id.parse().ok()?;
    let mut bytes = [0; 32];
    let length = BASE64_URL_SAFE_NO_PAD.decode_slice(tag, &mut bytes).ok()?;
    let signed = |key: &Key| hmac::verify(key.device(), &message(email, id), &bytes).is_ok();
    (length == bytes.len() && keys.all().any(signed)).then_some(id)
}

fn message(email: &Email, id: DeviceId) -> Vec<u8> {
    [id.as_bytes(), email.as_str().as_bytes()].concat()
}
