//! The ids of users, sessions, tokens, instances and buses: 128 bits each from the system's random generator
//! (ASVS 5.0, 11.5.1, requires all 128, which a version 4 UUID does not have), written as 22 base64url
//! characters.

use std::fmt;

use crate::random;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

/// Defines an id: 128 random bits, written as 22 base64url characters, also in JSON.
#[macro_export]
macro_rules! define_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// A new id, which cannot be guessed and has not been used before.
            pub fn random() -> Self {
                Self($crate::id::random())
            }

            /// The 16 bytes of the id.
            pub fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::InvalidId;

            fn from_str(text: &str) -> Result<Self, $crate::InvalidId> {
                $crate::id::parse(text).map(Self)
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                $crate::id::write(&self.0, f)
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl $crate::serde::Serialize for $name {
            fn serialize<S: $crate::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> $crate::serde::Deserialize<'de> for $name {
            fn deserialize<D: $crate::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as $crate::serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(<D::Error as $crate::serde::de::Error>::custom)
            }
        }
    };
}

/// 16 random bytes.
#[doc(hidden)]
pub fn random() -> [u8; 16] {
    random::bytes()
}

/// Reads the text form of an id.
#[doc(hidden)]
pub fn parse(text: &str) -> Result<[u8; 16], InvalidId> {
    let mut bytes = [0; 16];
    match BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
        Ok(16) => Ok(bytes),
        _ => Err(InvalidId),
    }
}

/// Writes the text form of an id.
#[doc(hidden)]
pub fn write(id: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [0; 22];
    match BASE64_URL_SAFE_NO_PAD.encode_slice(id, &mut text) {
        Ok(_) => f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?),
        Err(_) => Err(fmt::Error),
    }
}

define_id!(
    /// The id of a user: the claim `sub` (RFC 7519, 4.1.2).
    UserId
);
define_id!(
    /// The id of a session: the claim `sid`.
    SessionId
);
define_id!(
    /// The id of an access token: the claim `jti` (RFC 7519, 4.1.7).
    TokenId
);
define_id!(
    /// The id of one run of an instance.
    InstanceId
);
define_id!(
    /// The id of one partition's Redis and of the data in it. When the data is lost, the id changes.
    BusId
);

/// The error for a text that is not 16 bytes in 22 base64url characters.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id")]
pub struct InvalidId;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let id = TokenId::random();
        assert_eq!(id.to_string().len(), 22);
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn only_the_one_spelling_of_an_id_is_read() {
        for text in [
            "",
            "*",
            "AAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAB",
            "AAAAAAAAAAAAAAAAAAAAAA==",
            "{p}AAAAAAAAAAAAAAAAAAA",
        ] {
            assert_eq!(text.parse::<SessionId>(), Err(InvalidId), "{text}");
        }
    }
}
