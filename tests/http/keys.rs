//! Signing keys: with which algorithm tokens are signed, who can verify them, and how keys change without signing anyone
//! out.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, encode, jwk::JwkSet};
use serde_json::{Value, json};

use crate::support::*;

const ANN: &str = "ann@example.com";

/// The settings of a home whose keys are in a folder.
fn in_folder(algorithm: &str) -> Home {
    let home = Home::with(&format!("[token]\nsigning_alg = \"{algorithm}\"\nkeys = \"FOLDER\"\n"));
    let (settings, folder) = (home.path().join("Leptos.toml"), home.path().join("data/keys"));
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, text.replace("FOLDER", folder.to_str().unwrap())).unwrap();
    home
}

fn key_files(home: &Home) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(home.path().join("data/keys")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

async fn jwks(server: &Server) -> Value {
    let response = server.get("/.well-known/jwks.json").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/jwk-set+json");
    assert_eq!(response.headers()["cache-control"], "public, max-age=300");
    response.json().await.unwrap()
}

/// Verifies a token as another service does, which knows nothing but the published keys. Returns the claims.
fn verified(token: &str, keys: &Value) -> Option<Value> {
    let keys: JwkSet = serde_json::from_value(keys.clone()).unwrap();
    let header = jsonwebtoken::decode_header(token).unwrap();
    let key = keys.find(header.kid.as_deref()?)?;
    let mut validation = Validation::new(key.common.key_algorithm?.to_string().parse().ok()?);
    validation.set_audience(&["hallpass"]);
    validation.set_issuer(&["hallpass"]);
    #[expect(clippy::disallowed_methods, reason = "another service")]
    let decoded = jsonwebtoken::decode(token, &DecodingKey::from_jwk(key).unwrap(), &validation);
    Some(decoded.unwrap().claims)
}

#[tokio::test]
async fn others_can_verify_tokens_with_the_published_key() {
    for (name, algorithm) in [("EdDSA", Algorithm::EdDSA), ("ES256", Algorithm::ES256)] {
        let home = in_folder(name);
        let server = home.start().await;
        let pair = server.register(ANN).await;
        assert_eq!(jsonwebtoken::decode_header(&pair.access).unwrap().alg, algorithm);
        let keys = jwks(&server).await;
        assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
        assert!(keys["keys"][0].get("d").is_none(), "the private part is not published");
        assert_eq!(verified(&pair.access, &keys).unwrap()["email"], ANN);
        assert_eq!(status(server.me(&pair.access)).await, 200);
        let files = key_files(&home);
        assert_eq!(fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn secret_of_hs256_is_not_published() {
    for home in [Home::new(), in_folder("HS256")] {
        let server = home.start().await;
        let pair = server.register(ANN).await;
        assert_eq!(jsonwebtoken::decode_header(&pair.access).unwrap().alg, Algorithm::HS256);
        assert_eq!(jwks(&server).await, json!({ "keys": [] }));
    }
}

/// The attack on verifiers that take the algorithm from the token (RFC 8725, 2.1): the public key as a secret.
#[tokio::test]
async fn public_key_is_not_taken_for_a_secret() {
    let home = in_folder("EdDSA");
    let server = home.start().await;
    let pair = server.register(ANN).await;
    let keys = jwks(&server).await;
    let claims = verified(&pair.access, &keys).unwrap();
    let x = BASE64.decode(keys["keys"][0]["x"].as_str().unwrap()).unwrap();
    let document = keys["keys"][0].to_string();
    for secret in [&x[..], document.as_bytes(), b""] {
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some("at+jwt".into());
        header.kid = Some(keys["keys"][0]["kid"].as_str().unwrap().into());
        let forged = encode(&header, &claims, &EncodingKey::from_secret(secret)).unwrap();
        assert_eq!(status(server.me(&forged)).await, 401);
    }
}

#[tokio::test]
async fn new_key_signs_while_tokens_of_the_earlier_ones_are_accepted() {
    let home = in_folder("EdDSA");
    let server = home.start().await;
    let first = server.register(ANN).await;
    server.stop().await;
    let first_id = keys_of(&home)[0].clone();
    let second_id = hallpass_keys(&home, &["new", "--alg", "ES256"]);
    let server = home.start().await;
    let second = server.login(ANN).await;
    let published = jwks(&server).await;
    let ids: Vec<_> = published["keys"].as_array().unwrap().iter().map(|key| &key["kid"]).collect();
    assert_eq!(ids, [&json!(second_id.trim()), &json!(first_id)]);
    for pair in [&first, &second] {
        assert_eq!(status(server.me(&pair.access)).await, 200);
        assert!(verified(&pair.access, &published).is_some());
    }
    let (refreshed, next) = answer(server.refresh(&first.refresh)).await;
    assert_eq!(refreshed, 200, "{next}");
    server.stop().await;

    hallpass_keys(&home, &["retire", &first_id]);
    // Retired long ago elsewhere, and read just now: it may have signed here meanwhile. A copy has left the old name, too.
    let retired =
        key_files(&home).into_iter().find(|file| file.to_string_lossy().contains(".retired-")).unwrap();
    let (name, _) = retired.to_str().unwrap().split_once(".retired-").unwrap();
    fs::copy(&retired, format!("{name}.pem")).unwrap();
    let long_ago = hallpass::server::clock::now() - 1000;
    fs::rename(&retired, format!("{name}.retired-{long_ago}.pem")).unwrap();
    assert_eq!(keys_of(&home).len(), 2);
    let server = home.start().await;
    assert_eq!(jwks(&server).await, published, "tokens of the retired key may still be live");
    let third = server.login(ANN).await;
    assert_eq!(jsonwebtoken::decode_header(&third.access).unwrap().alg, Algorithm::ES256);
}

/// The ids of the keys in the folder, the newest first.
fn keys_of(home: &Home) -> Vec<String> {
    let list = hallpass_keys(home, &["list"]);
    list.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

fn hallpass_keys(home: &Home, arguments: &[&str]) -> String {
    let (output, text) = run(home.command().arg("keys").args(arguments));
    assert!(output.status.success(), "{text}");
    String::from_utf8(output.stdout).unwrap()
}
