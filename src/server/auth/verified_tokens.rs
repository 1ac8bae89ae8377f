//! The access tokens whose signature this instance has verified, and what they say. `authenticate.rs` calls this.

use std::{
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use foldhash::fast::RandomState;
use hallpass_allowlist::TokenRecord;

use super::jwt::AccessClaims;
use crate::{
    api::types::Role,
    server::{
        clock::UnixSeconds,
        ids::{SessionId, TokenId, UserId},
    },
};

/// The part of a verified token's claims that requests need.
#[derive(Debug)]
pub struct VerifiedClaims {
    pub user_id: UserId,
    pub session_id: SessionId,
    pub token_id: TokenId,
    pub email: Box<str>,
    pub role: Role,
    pub expires_at: UnixSeconds,
}

impl VerifiedClaims {
    /// The entry of the allowlist that must exist for the token to be live.
    pub fn record(&self) -> TokenRecord {
        let Self { user_id, session_id, token_id, expires_at, .. } = *self;
        TokenRecord { token_id, session_id, user_id, expires_at }
    }
}

impl From<AccessClaims> for VerifiedClaims {
    fn from(claims: AccessClaims) -> Self {
        let AccessClaims { sub, sid, jti, email, role, exp, .. } = claims;
        Self {
            user_id: sub,
            session_id: sid,
            token_id: jti,
            email: email.into_boxed_str(),
            role,
            expires_at: exp,
        }
    }
}

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

/// The claims of unexpired tokens whose signature has been verified here. A token among them may have been revoked
/// since.
pub struct VerifiedTokens {
    claims: papaya::HashMap<Fingerprint, Arc<VerifiedClaims>, RandomState>,
    texts: RandomState,
}

impl Default for VerifiedTokens {
    fn default() -> Self {
        // Reads must not slow down while the map grows, as in the mirror.
        let map = papaya::HashMap::builder().resize_mode(papaya::ResizeMode::Blocking);
        Self { claims: map.hasher(RandomState::default()).build(), texts: RandomState::default() }
    }
}

impl VerifiedTokens {
    /// The claims of exactly this token, if it was verified here.
    pub fn get(&self, token: &str) -> Option<Arc<VerifiedClaims>> {
        self.claims.pin().get(&self.fingerprint(token)?).cloned()
    }

    /// Remembers a token that was verified.
    pub fn insert(&self, token: &str, claims: Arc<VerifiedClaims>) {
        if let Some(fingerprint) = self.fingerprint(token) {
            self.claims.pin().insert(fingerprint, claims);
        }
    }

    pub fn forget_expired(&self, now: UnixSeconds) {
        self.claims.pin().retain(|_, claims| claims.expires_at > now);
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

    fn claims(email: &str, expires_at: UnixSeconds) -> Arc<VerifiedClaims> {
        let (user_id, session_id, token_id) = (UserId::random(), SessionId::random(), TokenId::random());
        Arc::new(VerifiedClaims {
            user_id,
            session_id,
            token_id,
            email: email.into(),
            role: Role::User,
            expires_at,
        })
    }

    #[test]
    fn token_is_found_by_its_whole_text_only() {
        let verified = VerifiedTokens::default();
        let token = format!("{}.{}.{}", "h".repeat(40), "p".repeat(300), "s".repeat(43));
        verified.insert(&token, claims("ann@example.com", 100));
        assert_eq!(&*verified.get(&token).unwrap().email, "ann@example.com");
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
            verified.insert(text, claims("ann@example.com", 100));
            assert!(verified.get(text).is_none(), "{text}");
        }
    }

    #[test]
    fn expired_tokens_are_forgotten() {
        let verified = VerifiedTokens::default();
        let token = |payload: &str| format!("h.{payload}.{}", "s".repeat(43));
        verified.insert(&token("early"), claims("ann@example.com", 100));
        verified.insert(&token("late"), claims("bob@example.com", 101));
        verified.forget_expired(100);
        assert!(verified.get(&token("early")).is_none());
        assert_eq!(&*verified.get(&token("late")).unwrap().email, "bob@example.com");
    }
}
