//! Devices that an account knows: a browser in which someone has signed in keeps a token that says so,
//! `id.HMAC(key, e-mail address, id)`. It lets nobody in. It only spares its holder from waiting while
//! others guess at the account's password (see `server/throttle.rs`).

use super::keys::{Key, Keys};
use crate::server::{ids::DeviceId, users::Email};

/// The token of this device for the account with this address.
pub fn sign(keys: &Keys, email: &Email, id: DeviceId) -> String {
    format!("{id}.{}", keys.tag(Key::device, &message(email, id)))
}

/// Which device, if one of our keys made the token for this very account.
pub fn verify(keys: &Keys, email: &Email, token: &str) -> Option<DeviceId> {
    let (id, tag) = token.split_once('.')?;
    let id = id.parse().ok()?;
    keys.verify_tag(Key::device, &message(email, id), tag).then_some(id)
}

fn message(email: &Email, id: DeviceId) -> Vec<u8> {
    [id.as_bytes(), email.as_str().as_bytes()].concat()
}
