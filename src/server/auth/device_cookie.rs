//! Known devices: a browser in which a user has signed in keeps a token that proves it,
//! `id.version.HMAC(key, id, version, e-mail address)`. The token does not authenticate its holder. It only
//! exempts the holder from waiting while others guess the account's password (see
//! `server/auth/throttle.rs`). The version is that of the password: a device that signed in with an older
//! password is no longer known.
//!
//! Several people may use one browser, so its cookie holds the tokens of several accounts.

use super::{key::Key, keys::Keys};
use crate::server::{db::users::Email, ids::DeviceId};

/// The number of accounts to which a browser stays known: the ones that signed in last.
const MAX_ACCOUNTS: usize = 5;

/// The separator between the tokens of a cookie. It does not occur in a token.
pub const SEPARATOR: char = '~';

/// A device on which a user has signed in to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownDevice {
    pub id: DeviceId,
    /// The version of the password that was used there.
    pub password_version: i64,
}

/// Makes the token of a device for the account with this address.
pub fn sign(keys: &Keys, email: &Email, device: KnownDevice) -> String {
    let KnownDevice { id, password_version } = device;
    format!("{id}.{password_version}.{}", keys.tag(Key::device, &message(email, device)))
}

/// The device, if one of the tokens in the cookie was signed by one of our keys for this account.
pub fn verify(keys: &Keys, email: &Email, cookie: &str) -> Option<KnownDevice> {
    tokens(cookie).find_map(|token| {
        let (device, tag) = parse(token)?;
        keys.verify_tag(Key::device, &message(email, device), tag).then_some(device)
    })
}

/// The cookie with this token first, followed by the tokens of other devices that it held. Anything in the
/// browser's cookie that is not a well-formed token is dropped.
pub fn remember(cookie: Option<&str>, token: &str) -> String {
    let id = |token: &str| parse(token).map(|(device, _)| device.id);
    let new = id(token);
    let others =
        tokens(cookie.unwrap_or_default()).filter(|other| id(other).is_some_and(|id| Some(id) != new));
    let kept: Vec<_> = [token].into_iter().chain(others).take(MAX_ACCOUNTS).collect();
    kept.join(&SEPARATOR.to_string())
}

fn tokens(cookie: &str) -> impl Iterator<Item = &str> {
    cookie.split(SEPARATOR).filter(|token| parse(token).is_some()).take(MAX_ACCOUNTS)
}

/// The device and the tag of a token; `None` for what none of our keys can have signed.
fn parse(token: &str) -> Option<(KnownDevice, &str)> {
    let mut parts = token.split('.');
    let (id, version, tag) = (parts.next()?, parts.next()?, parts.next()?);
    let device = KnownDevice { id: id.parse().ok()?, password_version: version.parse().ok()? };
    let is_ours =
        parts.next().is_none() && device.password_version.to_string() == version && Keys::is_tag(tag);
    is_ours.then_some((device, tag))
}

fn message(email: &Email, device: KnownDevice) -> Vec<u8> {
    let version = device.password_version.to_be_bytes();
    [device.id.as_bytes(), &version[..], email.as_str().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use secrecy::zeroize::Zeroizing;

    use super::*;

    fn keys() -> Keys {
        Keys::new(vec![Key::of_secret(Zeroizing::new(vec![b'E'; 32])).unwrap()]).unwrap()
    }

    fn email(number: usize) -> Email {
        Email::parse(&format!("user{number}@example.com")).unwrap()
    }

    fn device(password_version: i64) -> KnownDevice {
        KnownDevice { id: DeviceId::random(), password_version }
    }

    #[test]
    fn cookie_remembers_the_accounts_that_were_signed_in_to_last() {
        let keys = keys();
        let devices: Vec<_> = (0..8).map(|_| device(1)).collect();
        let mut cookie = None;
        for (number, device) in devices.iter().enumerate() {
            let token = sign(&keys, &email(number), *device);
            cookie = Some(remember(cookie.as_deref(), &token));
        }
        let cookie = cookie.unwrap();
        for (number, device) in devices.iter().enumerate() {
            let known = verify(&keys, &email(number), &cookie);
            assert_eq!(known, (number >= 3).then_some(*device), "user {number}");
        }
        // Signing in again does not displace another account.
        let again = KnownDevice { password_version: 2, ..devices[3] };
        let cookie = remember(Some(&cookie), &sign(&keys, &email(3), again));
        assert_eq!(verify(&keys, &email(3), &cookie), Some(again));
        for (number, device) in devices.iter().enumerate().skip(4) {
            assert_eq!(verify(&keys, &email(number), &cookie), Some(*device));
        }
        assert!(cookie.len() < 500, "{}", cookie.len());
    }

    #[test]
    fn token_is_good_for_its_own_account_and_version_only() {
        let keys = keys();
        let device = device(1);
        let token = sign(&keys, &email(0), device);
        assert_eq!(verify(&keys, &email(0), &token), Some(device));
        assert_eq!(verify(&keys, &email(1), &token), None);
        for forged in [
            token.replace(".1.", ".2."),
            token.replace(".1.", ".01."),
            token.replace(".1.", ".+1."),
            token.replace(".1.", "."),
            format!("{token}."),
            token[..token.len() - 2].to_owned(),
            String::new(),
        ] {
            assert_eq!(verify(&keys, &email(0), &forged), None, "{forged}");
        }
    }

    #[test]
    fn nothing_but_tokens_is_sent_back_to_the_browser() {
        let keys = keys();
        let token = sign(&keys, &email(0), device(1));
        for junk in
            ["", "~", "~~~~", "a.1.b", "x", &"y".repeat(5000), &format!("{token}.z"), "\u{e9}; Path=/"]
        {
            assert_eq!(remember(Some(junk), &token), token, "{junk}");
        }
    }
}
