//! A passkey made of software (WebAuthn Level 3, 6), which can also lie.

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use serde_json::{Value, json};

const USER_PRESENT: u8 = 1;
pub const USER_VERIFIED: u8 = 4;
const BACKUP_ELIGIBLE: u8 = 8;
pub const BACKED_UP: u8 = 16;
const HAS_KEY: u8 = 64;

/// A passkey, and what it says in its answers.
pub struct Passkey {
    key: EcdsaKeyPair,
    id: Vec<u8>,
    /// The id of the user, as the site has given it.
    pub user_handle: String,
    pub origin: String,
    pub relying_party: String,
    pub flags: u8,
    /// What it counts; 0 if it does not.
    pub signatures: u32,
}

impl Passkey {
    /// Makes a passkey as `options` ask for it, in a browser at `origin`. Returns it with the answer.
    pub fn make(options: &str, origin: &str) -> (Self, Value) {
        let options: Value = serde_json::from_str(options).unwrap();
        assert_eq!(options["authenticatorSelection"]["residentKey"], "required");
        assert_eq!(options["authenticatorSelection"]["userVerification"], "required");
        let mut id = vec![0; 16];
        aws_lc_rs::rand::fill(&mut id).unwrap();
        let passkey = Self {
            key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap(),
            id,
            user_handle: options["user"]["id"].as_str().unwrap().to_owned(),
            origin: origin.to_owned(),
            relying_party: options["rp"]["id"].as_str().unwrap().to_owned(),
            flags: USER_PRESENT | USER_VERIFIED | BACKUP_ELIGIBLE | BACKED_UP,
            signatures: 0,
        };
        let answer = passkey.register(options["challenge"].as_str().unwrap());
        (passkey, answer)
    }

    /// The answer that registers the passkey.
    pub fn register(&self, challenge: &str) -> Value {
        let mut data = self.data(HAS_KEY);
        data.extend([0; 16]);
        data.extend(u16::try_from(self.id.len()).unwrap().to_be_bytes());
        data.extend(&self.id);
        data.extend(self.cose_key());
        // CBOR: {"fmt": "none", "attStmt": {}, "authData": data}.
        let length = u16::try_from(data.len()).unwrap().to_be_bytes();
        let object = [b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x59", &length[..], &data].concat();
        self.credential(json!({
            "clientDataJSON": BASE64.encode(self.client_data("webauthn.create", challenge)),
            "attestationObject": BASE64.encode(object),
            "transports": ["internal"],
        }))
    }

    /// The answer that signs its user in, as `options` ask for it.
    pub fn sign_in(&mut self, options: &str) -> Value {
        let options: Value = serde_json::from_str(options).unwrap();
        assert_eq!(
            (&options["userVerification"], &options["rpId"]),
            (&json!("required"), &json!("localhost"))
        );
        if self.signatures > 0 {
            self.signatures += 1;
        }
        let data = self.data(0);
        let client_data = self.client_data("webauthn.get", options["challenge"].as_str().unwrap());
        let signed = [&data[..], digest(&SHA256, &client_data).as_ref()].concat();
        let signature = self.key.sign(&SystemRandom::new(), &signed).unwrap();
        self.credential(json!({
            "clientDataJSON": BASE64.encode(client_data),
            "authenticatorData": BASE64.encode(data),
            "signature": BASE64.encode(signature),
            "userHandle": self.user_handle,
        }))
    }

    fn data(&self, more_flags: u8) -> Vec<u8> {
        let party = digest(&SHA256, self.relying_party.as_bytes());
        [party.as_ref(), &[self.flags | more_flags], &self.signatures.to_be_bytes()].concat()
    }

    /// The public key for ES256 (RFC 9053, 2.1 and 7.1.1).
    fn cose_key(&self) -> Vec<u8> {
        let point = self.key.public_key().as_ref();
        [b"\xa5\x01\x02\x03\x26\x20\x01\x21\x58\x20", &point[1..33], b"\x22\x58\x20", &point[33..]].concat()
    }

    fn client_data(&self, kind: &str, challenge: &str) -> Vec<u8> {
        let data =
            json!({ "type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": false });
        data.to_string().into_bytes()
    }

    fn credential(&self, response: Value) -> Value {
        let id = BASE64.encode(&self.id);
        json!({
            "id": id, "rawId": id, "type": "public-key", "response": response,
            "clientExtensionResults": {}, "authenticatorAttachment": "platform",
        })
    }
}
