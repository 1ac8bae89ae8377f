//! The folder of signing keys: a file for each, named by the time at which it was made and its id. `keys.rs` reads it,
//! and the command line changes it.
//!
//! - `1795898000-Kx3c….pem`: a key pair of Ed25519 or P-256, PKCS #8 in PEM.
//! - `1795898000-8dGs….hs256`: a secret of HS256, as base64url.
//! - `1795898000-Kx3c….retired-1796000000.pem`: the same key since it was retired.
//!
//! Names that begin with a dot are not read: secrets that Kubernetes mounts have such neighbors.

use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::{
    rand,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair},
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use secrecy::zeroize::Zeroizing;
use tracing::{info, warn};

use crate::server::{
    auth::key::{Key, MIN_SECRET_BYTES},
    clock::UnixSeconds,
    config::{SigningAlgorithm, TokenConfig},
};

const RETIRED: &str = ".retired-";

/// The length of a line of PEM (RFC 7468, 2).
const PEM_LINE: usize = 64;

/// A folder with key files.
pub struct KeyFolder<'a>(&'a Path);

/// A key file.
pub struct KeyFile {
    path: PathBuf,
    pub key: Key,
}

impl<'a> KeyFolder<'a> {
    pub fn new(folder: &'a Path) -> Self {
        Self(folder)
    }

    /// Makes a key if there is none.
    ///
    /// # Errors
    /// See [`KeyFolder::load`] and [`KeyFolder::make`].
    pub fn make_first(&self, config: &TokenConfig, now: UnixSeconds) -> Result<()> {
        if self.list()?.is_empty() {
            self.make(config.signing_alg, now)?;
            warn!(
                "made a signing key in {}; other instances need the same file, and so does the next start",
                self.0.display()
            );
        }
        Ok(())
    }

    /// The keys whose refresh tokens may still be in use, the newest first.
    ///
    /// # Errors
    /// There is no key; or a file cannot be read, is damaged, or can be read or changed by others.
    pub fn load(&self, config: &TokenConfig, now: UnixSeconds) -> Result<Vec<Key>> {
        let files = self.list()?;
        ensure!(
            !files.is_empty(),
            "there is no signing key in {}: set HALLPASS_KEYS to the folder with those of the instances",
            self.0.display()
        );
        let may_be_in_use =
            |key: &Key| key.retired().is_none_or(|retired| now < retired + config.refresh_ttl_seconds);
        Ok(files.into_iter().map(|file| file.key).filter(may_be_in_use).collect())
    }

    /// All key files, the newest first.
    ///
    /// # Errors
    /// See [`KeyFolder::load`].
    pub fn list(&self) -> Result<Vec<KeyFile>> {
        let mut files = Vec::new();
        let entries = match fs::read_dir(self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("the keys in {} cannot be read", self.0.display()));
            }
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !name.starts_with('.') {
                files.push(read(path, &name).with_context(|| format!("the key file {name}"))?);
            }
        }
        // Of a key that is there under two names, as a copy leaves it, the retired one counts.
        files.sort_by(|one, other| {
            let order = |file: &KeyFile| (file.key.made(), file.key.id().to_owned(), file.key.retired());
            order(other).cmp(&order(one))
        });
        files.dedup_by(|next, kept| next.key.id() == kept.key.id());
        Ok(files)
    }

    /// Makes a key. Nobody else can read its file, and it is complete or missing.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn make(&self, algorithm: SigningAlgorithm, now: UnixSeconds) -> Result<KeyFile> {
        let (key, text, ending) = generate(algorithm)?;
        // Later than all others, so that it is the newest even if two are made within a second.
        let now = self.list()?.first().map_or(now, |newest| now.max(newest.key.made() + 1));
        fs::create_dir_all(self.0).with_context(|| format!("{} cannot be created", self.0.display()))?;
        let name = format!("{now}-{}.{ending}", key.id());
        let (path, unfinished) = (self.0.join(&name), self.0.join(format!(".{name}")));
        let write = || {
            let mut file =
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)
        };
        write().with_context(|| format!("the key file {} cannot be written", path.display()))?;
        info!("made the signing key {}", key.id());
        Ok(KeyFile { path, key: key.dated(now, None) })
    }

    /// Retires a key: it signs nothing any more, and is forgotten when the last refresh token that it authenticates has
    /// expired.
    ///
    /// # Errors
    /// There is no such key, it was retired before, or no newer one could sign instead.
    pub fn retire(&self, id: &str, now: UnixSeconds) -> Result<()> {
        let files = self.list()?;
        let file =
            files.iter().find(|file| file.key.id() == id).with_context(|| format!("there is no key {id}"))?;
        ensure!(file.key.retired().is_none(), "the key {id} has been retired before");
        let is_replaced =
            files.iter().any(|other| other.key.retired().is_none() && other.key.made() > file.key.made());
        ensure!(is_replaced, "no newer key could sign instead of {id}: `hallpass keys new` makes one");
        let ending = file.path.extension().unwrap_or_default().to_string_lossy().into_owned();
        let retired = file.path.with_file_name(format!("{}-{id}{RETIRED}{now}.{ending}", file.key.made()));
        fs::rename(&file.path, retired).with_context(|| format!("{} cannot be renamed", file.path.display()))
    }
}

/// Generates a key, with the text and the ending of its file.
fn generate(algorithm: SigningAlgorithm) -> Result<(Key, Zeroizing<String>, &'static str)> {
    let random = SystemRandom::new();
    let failed = "the system's random generator fails";
    let pkcs8 = match algorithm {
        SigningAlgorithm::EdDsa => Ed25519KeyPair::generate_pkcs8v1(&random),
        SigningAlgorithm::Es256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random),
        SigningAlgorithm::Hs256 => {
            let mut secret = Zeroizing::new(vec![0; MIN_SECRET_BYTES]);
            rand::fill(&mut secret).context(failed)?;
            let text = Zeroizing::new(BASE64_URL_SAFE.encode(&*secret));
            return Ok((Key::of_secret(secret)?, text, "hs256"));
        }
    };
    let pkcs8 = Zeroizing::new(pkcs8.context(failed)?.as_ref().to_vec());
    let encoded = Zeroizing::new(BASE64_STANDARD.encode(&*pkcs8));
    let mut text = Zeroizing::new("-----BEGIN PRIVATE KEY-----\n".to_owned());
    for line in encoded.as_bytes().chunks(PEM_LINE) {
        text.push_str(str::from_utf8(line)?);
        text.push('\n');
    }
    text.push_str("-----END PRIVATE KEY-----\n");
    Ok((Key::of_pkcs8(pkcs8)?, text, "pem"))
}

fn read(path: PathBuf, name: &str) -> Result<KeyFile> {
    let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
    if mode & 0o027 != 0 {
        bail!("has mode {mode:o}, so others can read or change it: chmod 600");
    }
    let text = Zeroizing::new(fs::read(&path).context("cannot be read")?);
    let (stem, ending) = name.rsplit_once('.').context("has no ending: .pem or .hs256")?;
    let key = match ending {
        "pem" => {
            // The parser's own error could quote what it has read.
            let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(&text)
                .ok()
                .context("is not a PEM file with a private key")?;
            Key::of_pkcs8(Zeroizing::new(pkcs8.secret_pkcs8_der().to_vec()))?
        }
        "hs256" => {
            let text = text.trim_ascii();
            let secret =
                BASE64_URL_SAFE_NO_PAD.decode(text.trim_ascii_end().strip_suffix(b"=").unwrap_or(text));
            Key::of_secret(Zeroizing::new(secret.ok().context("is not base64url")?))?
        }
        _ => bail!("has an unknown ending: .pem and .hs256 are key files"),
    };
    let (stem, retired) = match stem.split_once(RETIRED) {
        Some((stem, retired)) => (stem, Some(retired.parse().context("has no time after `retired-`")?)),
        None => (stem, None),
    };
    let made = stem.split_once('-').and_then(|(made, _)| made.parse().ok());
    let made =
        made.context("has a name that does not begin with the time at which the key was made, and a dash")?;
    Ok(KeyFile { path, key: key.dated(made, retired) })
}
