//! The text form of refresh tokens: `sid.counter.HMAC(key, sid, counter)`.
//!
//! A forged token is refused without a lookup, the database holds nothing that could be stolen and used,
//! and the successor of a token is always the same text, so that a lost response can be repeated (RFC 9700,
//! 4.14.2, requires that what such a token encodes be protected).

use super::{key::Key, keys::Keys};
use crate::{api::types::RefreshToken, server::ids::SessionId};

/// Makes the refresh token of a session with this counter.
pub fn sign(keys: &Keys, session_id: SessionId, counter: i64) -> RefreshToken {
    let tag = keys.tag(Key::refresh, &message(session_id, counter));
    RefreshToken::new(format!("{session_id}.{counter}.{tag}"))
}

/// The session and the counter of a token that one of our keys authenticates; `None` for anything else.
pub fn verify(keys: &Keys, token: &RefreshToken) -> Option<(SessionId, i64)> {
    let mut parts = token.expose().split('.');
    let (session_id, counter, tag) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let session_id = session_id.parse().ok()?;
    let number: i64 = counter.parse().ok().filter(|number| *number >= 0)?;
    // The signature covers the number, not its text: `+1` and `01` are not the canonical form of 1.
    let is_our_spelling = number.to_string() == counter;
    let is_signed = keys.verify_tag(Key::refresh, &message(session_id, number), tag);
    (is_our_spelling && is_signed).then_some((session_id, number))
}

/// Whether the text has the form of a refresh token, regardless of its signature.
pub fn is_well_formed(token: &RefreshToken) -> bool {
    let mut parts = token.expose().split('.');
    let session = parts.next().is_some_and(|id| id.parse::<SessionId>().is_ok());
    let counter = parts.next().is_some_and(|counter| counter.parse::<u64>().is_ok());
    let tag = parts.next().is_some_and(Keys::is_tag);
    session && counter && tag && parts.next().is_none()
}

fn message(session_id: SessionId, counter: i64) -> [u8; 24] {
    let mut message = [0; 24];
    message[..16].copy_from_slice(session_id.as_bytes());
    message[16..].copy_from_slice(&counter.to_be_bytes());
    message
}

#[cfg(test)]
mod tests {
    use secrecy::zeroize::Zeroizing;

    use super::*;

    fn keys(current: u8, previous: Option<u8>) -> Keys {
        let key = |letter| Key::of_secret(Zeroizing::new(vec![letter; 32])).unwrap();
        Keys::new([current].into_iter().chain(previous).map(key).collect()).unwrap()
    }

    #[test]
    fn a_token_reads_back_and_its_successor_is_always_the_same() {
        let keys = keys(b'A', None);
        let session = SessionId::random();
        assert_eq!(verify(&keys, &sign(&keys, session, 7)), Some((session, 7)));
        assert_eq!(sign(&keys, session, 8), sign(&keys, session, 8));
    }

    #[test]
    fn a_key_is_accepted_until_it_is_retired() {
        let session = SessionId::random();
        let token = sign(&keys(b'A', None), session, 1);
        assert_eq!(verify(&keys(b'E', Some(b'A')), &token), Some((session, 1)));
        assert_eq!(verify(&keys(b'E', None), &token), None);
    }

    #[test]
    fn the_tokens_of_another_service_are_told_from_what_is_none() {
        let token = sign(&keys(b'A', None), SessionId::random(), 1);
        assert!(is_well_formed(&token) && verify(&keys(b'E', None), &token).is_none());
        for other in
            ["", "a.1.b", "forged", &token.expose().replace('.', ""), &format!("{}.", token.expose())]
        {
            assert!(!is_well_formed(&RefreshToken::new(other.to_owned())), "{other}");
        }
    }

    #[test]
    fn nothing_else_is_accepted() {
        let keys = keys(b'A', None);
        let (session, other) = (SessionId::random(), SessionId::random());
        let token = sign(&keys, session, 1);
        let tag = token.expose().rsplit('.').next().unwrap();
        let forged = [
            String::new(),
            "..".into(),
            "a.b.c".into(),
            tag.into(),
            format!("{session}.2.{tag}"),
            format!("{other}.1.{tag}"),
            format!("{session}.+1.{tag}"),
            format!("{session}.01.{tag}"),
            format!("{session}.-1.{tag}"),
            format!("{session}.18446744073709551616.{tag}"),
            format!("{session}.1.{}", &tag[..42]),
            format!("{session}.1.{tag}."),
            format!("{session}.1.{tag}="),
            format!("{session}.1."),
        ];
        for text in forged {
            assert_eq!(verify(&keys, &RefreshToken::new(text.clone())), None, "{text}");
        }
        // Every single bit of the text is protected.
        let bytes = token.expose().as_bytes();
        for place in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[place / 8] ^= 1 << (place % 8);
            if let Ok(text) = String::from_utf8(flipped) {
                assert_eq!(verify(&keys, &RefreshToken::new(text)), None, "bit {place}");
            }
        }
    }
}
