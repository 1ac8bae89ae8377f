//! The ids of users, sessions, tokens, instances, buses, devices and events: 128 bits each from the system's
//! random generator (ASVS 5.0, 11.5.1, requires all 128, which a version 4 UUID does not have), written as 22
//! base64url characters.

use std::{fmt, str::FromStr};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 16]);

        impl $name {
            /// A new id, which cannot be guessed and has not been used before.
            pub fn random() -> Self {
                let mut bytes = [0; 16];
                aws_lc_rs::rand::fill(&mut bytes).expect("the system's random generator works");
                Self(bytes)
            }

            pub fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let mut bytes = [0; 16];
                match BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
                    Ok(16) => Ok(Self(bytes)),
                    _ => Err(InvalidId),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = [0; 22];
                match BASE64_URL_SAFE_NO_PAD.encode_slice(self.0, &mut text) {
                    Ok(_) => f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?),
                    Err(_) => Err(fmt::Error),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

id!(
    /// The id of a user: the claim `sub`.
    UserId
);
id!(
    /// The id of a session: the claim `sid`.
    SessionId
);
id!(
    /// The id of an access token: the claim `jti`.
    TokenId
);
id!(
    /// The id of one run of an instance.
    InstanceId
);
id!(
    /// The id of one partition's Redis and of the data in it. When the data is lost, the id changes.
    BusId
);

id!(
    /// The id of a browser in which a user has logged in.
    DeviceId
);
id!(
    /// The id of an event in the history of an account.
    EventId
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
