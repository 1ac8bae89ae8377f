//! The codes of authenticator apps: RFC 6238 with SHA-1, six digits and steps of 30 seconds, which is what all apps know.
//! This file does no I/O and reads no clock.

use qrcode::{QrCode, render::svg};
use secrecy::zeroize::Zeroizing;
use totp_rs::{Algorithm, Builder, Secret, TotpError};
use tracing::error;

use crate::{
    api::{error::ApiError, types::TotpSecret},
    server::clock::UnixSeconds,
};

/// The length of a secret: that of the hash (RFC 4226, 4, R6).
const SECRET_BYTES: usize = 20;
const DIGITS: u8 = 6;
/// The length of a time step in seconds.
const STEP: i64 = 30;
/// How many steps the clock of the app may be ahead or behind.
const DRIFT: u16 = 1;

/// A new secret for the app of the user with this address.
///
/// # Errors
/// [`ApiError::Internal`] when the system's random generator fails.
pub fn new_secret(email: &str, site: &str) -> Result<TotpSecret, ApiError> {
    let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
    aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|_| ApiError::Internal)?;
    // The URI has a colon between the two.
    let [site, account] = [site, email].map(|text| text.replace(':', " "));
    let made = builder(&bytes[..]).with_issuer(Some(site)).with_account_name(account).build();
    let totp = made.map_err(|error| internal(&error))?;
    let uri = totp.to_url().map_err(|error| internal(&error))?;
    let code = QrCode::new(&uri).map_err(|error| {
        error!(%error, "a QR code cannot be drawn: {error}");
        ApiError::Internal
    })?;
    let qr_svg = code.render::<svg::Color<'_>>().min_dimensions(200, 200).build();
    Ok(TotpSecret { secret: totp.secret().to_base32(), uri, qr_svg })
}

/// The time step of the code, if it is the one of the present step or a neighboring one. Whether it was used before is in
/// the database.
pub fn verify(secret: &str, code: &str, now: UnixSeconds) -> Option<i64> {
    let secret = Secret::try_from_base32(secret).ok()?;
    let totp = builder(secret.as_bytes()).build_noncompliant();
    totp.check(code, now.try_into().ok()?)?.try_into().ok()
}

/// A code as the user has typed it, without the space that many apps show in the middle.
pub fn without_spaces(typed: &str) -> String {
    typed.chars().filter(|character| !character.is_whitespace()).collect()
}

/// Whether the text has the form of a code.
pub fn is_code(text: &str) -> bool {
    text.len() == usize::from(DIGITS) && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn builder(secret: &[u8]) -> Builder {
    Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(DIGITS)
        .with_step_duration(STEP.cast_unsigned())
        .with_skew(DRIFT)
        .with_secret(secret)
}

fn internal(error: &TotpError) -> ApiError {
    error!(%error, "a secret for an authenticator app cannot be made: {error}");
    ApiError::Internal
}

#[cfg(test)]
mod tests {
    use totp_rs::Totp;

    use super::*;

    /// The secret of RFC 6238, appendix B: the ASCII text `12345678901234567890`.
    const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

    /// The last six of the eight digits in RFC 6238, appendix B.
    #[test]
    fn codes_are_those_of_rfc_6238() {
        for (time, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(verify(SECRET, code, time), Some(time / STEP), "{time}");
        }
    }

    #[test]
    fn a_code_is_good_for_its_step_and_the_two_beside_it() {
        let (code, step) = ("287082", 1);
        for (time, is_good) in [(0, true), (29, true), (30, true), (89, true), (90, false), (3_000, false)] {
            assert_eq!(verify(SECRET, code, time), is_good.then_some(step), "{time}");
        }
    }

    #[test]
    fn nothing_else_is_a_code() {
        for text in ["", "28708", "2870820", "28708a", "287 082", "２８７０８２", "-87082", "+28708"] {
            assert!(!is_code(text), "{text}");
            assert_eq!(verify(SECRET, text, 59), None, "{text}");
        }
        assert!(is_code("287082"));
        assert_eq!(verify(SECRET, "287083", 59), None);
        assert_eq!(verify("not base32!", "287082", 59), None);
        assert_eq!(verify(SECRET, "287082", -1), None);
    }

    #[test]
    fn a_secret_is_long_and_an_app_reads_it_from_the_uri() {
        let made = new_secret("ann@example.com", "Acme: id & more").unwrap();
        assert_eq!(Secret::try_from_base32(&made.secret).unwrap().as_bytes().len(), SECRET_BYTES);
        let read = Totp::from_url(&made.uri).unwrap();
        assert_eq!(read.secret().to_base32(), made.secret);
        assert_eq!(read.issuer(), Some("Acme  id & more"));
        assert!(made.qr_svg.contains("<svg") && made.qr_svg.contains("</svg>"), "{}", made.qr_svg);
        assert_ne!(new_secret("ann@example.com", "Acme").unwrap().secret, made.secret);
        assert_eq!(format!("{made:?}"), "TotpSecret([redacted])");
    }
}
