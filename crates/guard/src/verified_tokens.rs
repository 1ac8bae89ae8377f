//! The access tokens whose signature this process has verified, and what they say: a signature is verified once.

use std::hash::{BuildHasher, Hash, Hasher};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use foldhash::fast::RandomState;

/// Stands for the text of a token.
///
/// 128 bits of a signature cannot be guessed, so a client that sends them holds the token that was verified here, and
/// gets the claims of that token. The hash of the whole text keeps a token from being accepted after it was altered.
#[derive(PartialEq, Eq)]
struct Fingerprint {
    text: u64,
    signature: [u8; 16],
}

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.text);
    }
}

/// What the tokens say whose signature has been verified here. A token among them may have expired or been revoked since.
pub struct VerifiedTokens<C> {
    claims: papaya::HashMap<Fingerprint, C, RandomState>,
    texts: RandomState,
}

impl<C> Default for VerifiedTokens<C> {
    fn default() -> Self {
        // Reads must not slow down while the map grows, as in the mirror.
        let map = papaya::HashMap::builder().resize_mode(papaya::ResizeMode::Blocking);
        Self { claims: map.hasher(RandomState::default()).build(), texts: RandomState::default() }
    }
}

impl<C: Clone> VerifiedTokens<C> {
    /// What exactly this token says, if it was verified here.
    pub fn get(&self, token: &str) -> Option<C> {
        self.claims.pin().get(&self.fingerprint(token)?).cloned()
    }

    /// Remembers a token that was verified.
    pub fn insert(&self, token: &str, claims: C) {
        if let Some(fingerprint) = self.fingerprint(token) {
            self.claims.pin().insert(fingerprint, claims);
        }
    }

    /// Forgets the tokens whose claims do not satisfy this.
    pub fn retain(&self, mut satisfy: impl FnMut(&C) -> bool) {
        self.claims.pin().retain(|_, claims| satisfy(claims));
    }

    /// Forgets all tokens: a key is no longer accepted.
    pub fn clear(&self) {
        self.claims.pin().clear();
    }

    /// `None` if the text has no signature of that length.
    fn fingerprint(&self, token: &str) -> Option<Fingerprint> {
        // 24 characters of base64 are 18 bytes.
        let (_, signature) = token.rsplit_once('.')?;
        let mut bytes = [0; 18];
        BASE64_URL_SAFE_NO_PAD.decode_slice(signature.get(..24)?, &mut bytes).ok()?;
        let (signature, _) = bytes.split_first_chunk()?;
        Some(Fingerprint { text: self.texts.hash_one(token), signature: *signature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_found_by_its_whole_text_only() {
        let verified = VerifiedTokens::default();
        let token = format!("{}.{}.{}", "h".repeat(40), "p".repeat(300), "s".repeat(43));
        verified.insert(&token, "ann");
        assert_eq!(verified.get(&token), Some("ann"));
        for place in 0..token.len() {
            let other = if &token[place..=place] == "A" { "B" } else { "A" };
            let altered = format!("{}{other}{}", &token[..place], &token[place + 1..]);
            assert!(verified.get(&altered).is_none(), "{altered}");
            assert!(verified.get(&token[..place]).is_none());
        }
        for longer in [format!("{token}A"), format!(".{token}"), format!("{token} "), format!("{token}.")] {
            assert!(verified.get(&longer).is_none(), "{longer}");
        }
    }

    #[test]
    fn text_without_a_signature_is_not_remembered() {
        let verified = VerifiedTokens::default();
        for text in ["", ".", "..", "h.p.short", &format!("h.p.{}", "é".repeat(24)), &"s".repeat(60)] {
            verified.insert(text, "ann");
            assert!(verified.get(text).is_none(), "{text}");
        }
    }

    #[test]
    fn tokens_are_forgotten_by_what_they_say() {
        let verified = VerifiedTokens::default();
        let token = |payload: &str| format!("h.{payload}.{}", "s".repeat(43));
        verified.insert(&token("early"), 100);
        verified.insert(&token("late"), 101);
        verified.retain(|expires_at| *expires_at > 100);
        assert_eq!(verified.get(&token("early")), None);
        assert_eq!(verified.get(&token("late")), Some(101));
    }
}
