//! Recovery codes: 120 random bits as text, of which the database keeps the hash. A plain hash is enough for
//! so many bits (ASVS 5.0, 6.5.2).

use aws_lc_rs::{digest, rand};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use totp_rs::Secret;

use crate::{api::error::ApiError, server::ids::UserId};

/// How many codes a user gets.
const COUNT: usize = 10;
/// The random bytes of a code: 24 characters in base32.
const BYTES: usize = 15;
/// How many characters stand together in the text of a code.
const GROUP: usize = 4;

/// New codes, such as `mzxw-6ytb-oi7g-43dp-nb2h-i2lt`, and their hashes.
///
/// # Errors
/// [`ApiError::Internal`] when the system's random generator fails.
pub fn new_codes(user_id: UserId) -> Result<(Vec<String>, Vec<String>), ApiError> {
    let code = || {
        let mut bytes = [0; BYTES];
        rand::fill(&mut bytes).map_err(|_| ApiError::Internal)?;
        let text = Secret::from(&bytes[..]).to_base32().to_lowercase();
        let groups: Vec<_> = text.as_bytes().chunks(GROUP).map(String::from_utf8_lossy).collect();
        Ok(groups.join("-"))
    };
    let codes: Vec<String> = (0..COUNT).map(|_| code()).collect::<Result<_, ApiError>>()?;
    let hashes = codes.iter().map(|code| hash(user_id, code)).collect();
    Ok((codes, hashes))
}

/// The hash of a code as the user has typed it: hyphens, spaces and the case of letters do not matter.
pub fn hash(user_id: UserId, typed: &str) -> String {
    let code: String =
        typed.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| c.to_ascii_lowercase()).collect();
    let message = [&user_id.as_bytes()[..], code.as_bytes()].concat();
    BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &message))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_differ_and_can_be_typed_in_several_ways() {
        let ann = UserId::random();
        let (codes, hashes) = new_codes(ann).unwrap();
        assert_eq!((codes.len(), codes.iter().collect::<BTreeSet<_>>().len()), (10, 10));
        for (code, stored) in codes.iter().zip(&hashes) {
            assert_eq!(code.len(), 29);
            assert!(
                code.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            );
            for typed in [
                code.clone(),
                code.to_uppercase(),
                code.replace('-', ""),
                format!(" {} \n", code.replace('-', " ")),
            ] {
                assert_eq!(hash(ann, &typed), *stored, "{typed}");
            }
            assert!(!hashes.contains(&hash(ann, &code[..28])));
            assert!(!hashes.contains(&hash(UserId::random(), code)));
        }
    }
}
