//! The codes of an authenticator app.

use hallpass::server::clock;
use totp_rs::{Builder, Secret};

/// The code that an app with this secret shows at this time, in Unix seconds.
pub fn code_at(secret: &str, time: i64) -> String {
    let totp = Builder::new().with_secret(Secret::try_from_base32(secret).unwrap()).build().unwrap();
    totp.generate(time.try_into().unwrap()).to_string()
}

/// The code that it shows `steps` of 30 seconds from now.
pub fn code(secret: &str, steps: i64) -> String {
    code_at(secret, clock::now() + steps * 30)
}
