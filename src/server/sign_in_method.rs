//! How users sign in, and how sure that makes who they are.

use std::str::FromStr;

use crate::api::types::Assurance;

/// How the user signed in when a session began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignInMethod {
    Password,
    /// With a code of the authenticator app, or a recovery code.
    PasswordAndCode,
    /// A passkey that has verified its user, by a PIN or a fingerprint for example.
    Passkey,
}

impl SignInMethod {
    const ALL: [(Self, &str); 3] = [
        (Self::Password, "password"),
        (Self::PasswordAndCode, "password_and_code"),
        (Self::Passkey, "passkey"),
    ];

    /// The method as it is written in the database.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(method, _)| *method == self).map_or("", |(_, text)| text)
    }

    /// The claim `acr`.
    pub fn assurance(self) -> Assurance {
        match self {
            Self::Password => Assurance::Aal1,
            Self::PasswordAndCode | Self::Passkey => Assurance::Aal2,
        }
    }

    /// The claim `amr` (RFC 8176, 2).
    pub fn references(self) -> &'static [&'static str] {
        match self {
            Self::Password => &["pwd"],
            Self::PasswordAndCode => &["pwd", "otp", "mfa"],
            Self::Passkey => &["pop", "user", "mfa"],
        }
    }
}

impl FromStr for SignInMethod {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().find(|(_, known)| *known == text).map(|(method, _)| *method).ok_or(())
    }
}
