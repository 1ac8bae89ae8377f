//! The codes of an authenticator app.

use hallpass::server::clock;
use totp_rs::{Builder, Secret};

/// The code that an app with this secret shows at this time, in Unix seconds.
pub fn code_at(secret: &str, time: i64) -> String {
    let totp = Builder::new().with_secret(Secret::try_from_base32(secret).unwrap()).build().unwrap();
    totp.generate(time.try_into().unwrap()).to_string()
}

/// The code that it shows `steps` of 30 seconds from now. A test that needs two valid codes takes 0 and then 1: each is
/// valid for at least 30 seconds, while that of the step before can expire at any moment.
pub fn code(secret: &str, steps: i64) -> String {
    code_at(secret, clock::now() + steps * 30)
}
