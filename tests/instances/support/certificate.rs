//! Certificates for tests.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// A private certificate authority, and its certificate.
pub fn authority() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), certificate)
}

/// The files of a certificate for 127.0.0.1, and of its key.
pub fn certificate(
    folder: &Path,
    name: &str,
    authority: &(Issuer<'static, KeyPair>, String),
) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority.0).unwrap();
    let write = |name: String, text: String| {
        let file = folder.join(name);
        fs::write(&file, text).unwrap();
        file.display().to_string()
    };
    (write(format!("{name}.pem"), certificate.pem()), write(format!("{name}.key"), key.serialize_pem()))
}
