//! What an access token says to a service.

use hallpass_allowlist::{SessionId, TokenId, TokenRecord, UnixSeconds, UserId};
use serde::Deserialize;

use crate::verifier::AccessClaims;

/// The claims of a live access token. Those that a later version of Hallpass adds are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Claims {
    /// The id of the user, which does not change.
    pub sub: UserId,
    /// The id of the session.
    pub sid: SessionId,
    /// The id of the token.
    pub jti: TokenId,
    /// The e-mail address of the user.
    pub email: String,
    /// The role of the user: `user` or `admin`.
    #[serde(default = "user")]
    pub role: String,
    /// When the token was issued, in seconds since the Unix epoch.
    pub iat: UnixSeconds,
    /// From when on it is no longer accepted, in seconds since the Unix epoch.
    pub exp: UnixSeconds,
    /// When the user signed in, in seconds since the Unix epoch; `None` in tokens of earlier versions of Hallpass.
    #[serde(default)]
    pub auth_time: Option<UnixSeconds>,
    /// How surely the user was recognized: `aal1` by one factor, `aal2` by two (NIST SP 800-63B).
    #[serde(default)]
    pub acr: Option<String>,
    /// How the user signed in: `pwd`, `otp`, `pop`, `user`, `mfa` (RFC 8176).
    #[serde(default)]
    pub amr: Vec<String>,
}

/// The role that tokens do not name.
const USER: &str = "user";

fn user() -> String {
    USER.to_owned()
}

impl Claims {
    /// Whether the user has this role. An administrator is also a user.
    pub fn has_role(&self, role: &str) -> bool {
        role == self.role || role == USER
    }

    pub(crate) fn record(&self) -> TokenRecord {
        TokenRecord { token_id: self.jti, session_id: self.sid, user_id: self.sub, expires_at: self.exp }
    }
}

impl AccessClaims for Claims {
    fn issued_at(&self) -> UnixSeconds {
        self.iat
    }

    fn expires_at(&self) -> UnixSeconds {
        self.exp
    }
}
