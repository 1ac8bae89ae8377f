//! The text form of the one-time tokens in mails: `id.HMAC(key, id)`.
//!
//! A forged token is refused without a lookup, and the database holds nothing that could be stolen and used: the
//! text is made from the id when the mail is sent. What a token is for, and until when, is in its row.

use super::{key::Key, keys::Keys};
use crate::server::ids::MailTokenId;

/// Makes the text of a token.
pub fn sign(keys: &Keys, id: MailTokenId) -> String {
    format!("{id}.{}", keys.tag(Key::mail, id.as_bytes()))
}

/// The id of a token that one of our keys authenticates; `None` for anything else.
pub fn verify(keys: &Keys, token: &str) -> Option<MailTokenId> {
    let (id, tag) = token.trim().split_once('.')?;
    let id: MailTokenId = id.parse().ok()?;
    keys.verify_tag(Key::mail, id.as_bytes(), tag).then_some(id)
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
    fn a_token_reads_back_also_after_a_change_of_keys() {
        let id = MailTokenId::random();
        let token = sign(&keys(b'A', None), id);
        assert_eq!(verify(&keys(b'A', None), &token), Some(id));
        // Mail programs leave a space or a line break where a link was copied.
        assert_eq!(verify(&keys(b'A', None), &format!(" {token}\n")), Some(id));
        assert_eq!(verify(&keys(b'E', Some(b'A')), &token), Some(id));
        assert_eq!(verify(&keys(b'E', None), &token), None);
    }

    #[test]
    fn nothing_else_is_accepted() {
        let keys = keys(b'A', None);
        let (id, other) = (MailTokenId::random(), MailTokenId::random());
        let token = sign(&keys, id);
        let tag = token.split_once('.').unwrap().1;
        for forged in
            ["", ".", tag, &format!("{other}.{tag}"), &format!("{id}."), &format!("{id}.{}", &tag[..42])]
        {
            assert_eq!(verify(&keys, forged), None, "{forged}");
        }
        // The tags of other tokens over the same bytes are made with other keys.
        for purpose in [Key::refresh, Key::device] {
            assert_eq!(verify(&keys, &format!("{id}.{}", keys.tag(purpose, id.as_bytes()))), None);
        }
        for place in 0..token.len() * 8 {
            let mut flipped = token.clone().into_bytes();
            flipped[place / 8] ^= 1 << (place % 8);
            if let Ok(text) = String::from_utf8(flipped) {
                assert_eq!(verify(&keys, &text), None, "bit {place}");
            }
        }
    }
}
