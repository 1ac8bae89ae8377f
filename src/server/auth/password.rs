//! Passwords: which ones are accepted, and how they are hashed and verified. Argon2id runs on a bounded set
//! of threads of its own, so that a flood of logins does not starve the requests of signed-in users.

use std::{
    collections::HashSet,
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, LazyLock},
    thread::{self, available_parallelism},
};

use anyhow::{Context, Result};
use argon2::{
    Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version, password_hash::phc::PasswordHash,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::oneshot;
use tracing::error;

use crate::{
    api::error::ApiError,
    server::{
        auth::{breached_passwords::BreachedPasswords, password_queue::Queue},
        config::PasswordConfig,
        db::users::NO_PASSWORD,
    },
};

pub use crate::server::auth::password_queue::Share;

/// About 10,000 of the most common passwords that are long enough to be accepted otherwise.
static COMMON: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    include_str!("common_passwords.txt").lines().filter(|line| !line.starts_with('#')).collect()
});

/// How many characters a password may have.
pub const LENGTH: RangeInclusive<usize> = 8..=128;

/// Rejects passwords that are too short, too long, or among the first that attackers try. There are no
/// composition rules (NIST SP 800-63B-4, 3.1.1.2). The password is used exactly as typed.
///
/// # Errors
/// [`ApiError::InvalidFields`], with advice on what to change.
pub fn validate_new_password(password: &SecretString, email: &str) -> Result<(), ApiError> {
    let text = password.expose_secret();
    let refuse = |advice: &str| Err(ApiError::invalid_field("password", advice));
    let chars = text.chars().count();
    if chars < *LENGTH.start() {
        return refuse("Use at least 8 characters.");
    }
    if chars > *LENGTH.end() {
        return refuse("Use at most 128 characters.");
    }
    let lower = text.to_lowercase();
    let letters = lower.trim_end_matches(|c: char| c.is_ascii_digit() || c.is_ascii_punctuation());
    let email = email.trim().to_lowercase();
    let local_part = email.split('@').next().unwrap_or_default();
    if COMMON.contains(lower.as_str()) || letters == "hallpass" {
        return refuse("This password is too common. Choose another.");
    }
    if lower == email || lower == local_part {
        return refuse("This is your e-mail address. Choose another password.");
    }
    Ok(())
}

/// The result of a password verification.
#[derive(Debug, PartialEq, Eq)]
pub enum PasswordCheck {
    /// The password is right. `rehashed` is a hash with the current parameters, if the stored one has
    /// others.
    Match {
        rehashed: Option<String>,
    },
    Mismatch,
}

/// A pool of threads that hash and verify passwords. Cheap to clone.
#[derive(Clone)]
pub struct PasswordHasherPool {
    jobs: Arc<Jobs>,
}

/// The sending side of the queue. Dropping the last [`PasswordHasherPool`] closes the queue; reference
/// counting alone would not, because each worker holds a reference, too.
struct Jobs(Arc<Queue<Job>>);

impl Drop for Jobs {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A unit of work for a worker.
type Job = Box<dyn FnOnce(&Hasher) + Send>;

struct Hasher {
    argon2: Argon2<'static>,
    breached: Option<BreachedPasswords>,
    /// A hash with the current parameters, of a random password. The password of an unknown user is
    /// compared with it, so that the check takes as long as a known user's.
    dummy_hash: String,
}

impl Hasher {
    fn refuse_breached(&self, password: &str) -> Result<(), ApiError> {
        let Some(breached) = &self.breached else { return Ok(()) };
        match breached.contains(password) {
            Ok(false) => Ok(()),
            Ok(true) => Err(ApiError::invalid_field(
                "password",
                "This password is known from a breach of another site. Choose another.",
            )),
            Err(error) => {
                error!(%error, "the file of breached passwords cannot be read: {error}");
                Err(ApiError::Unavailable)
            }
        }
    }
}

impl PasswordHasherPool {
    /// Starts the threads of the pool.
    ///
    /// # Errors
    /// The parameters are outside what Argon2 allows, or a thread cannot be started.
    pub fn new(config: &PasswordConfig) -> Result<Self> {
        let params = Params::new(config.memory_kib, config.iterations, config.parallelism, None)
            .map_err(|error| anyhow::anyhow!("{error}"))
            .context("the [password] settings are outside what Argon2 allows")?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).context("the system's random generator fails")?;
        let dummy_hash = hash_with(&argon2, &secret).context("a password cannot be hashed")?;
        let breached = match &config.breached {
            Some(file) => Some(
                BreachedPasswords::open(Path::new(file))
                    .with_context(|| format!("HALLPASS_BREACHED_PASSWORDS: {file} cannot be used"))?,
            ),
            None => None,
        };
        let workers = match config.workers {
            0 => available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)),
            workers => workers,
        };
        let (hasher, queue) =
            (Arc::new(Hasher { argon2, breached, dummy_hash }), Arc::new(Queue::new(config.queue)));
        let jobs = Arc::new(Jobs(Arc::clone(&queue)));
        for _ in 0..workers {
            let (hasher, queue) = (Arc::clone(&hasher), Arc::clone(&queue));
            thread::Builder::new()
                .name("password".into())
                .spawn(move || work(&hasher, &queue))
                .context("a thread for passwords cannot be started")?;
        }
        Ok(Self { jobs })
    }

    /// Hashes a new password into a PHC string, unless it is known from a breach.
    ///
    /// # Errors
    /// [`ApiError::InvalidFields`] for a breached password; [`ApiError::Unavailable`] when the queue is full, or the file of
    /// breached passwords cannot be read.
    pub async fn hash(&self, share: Share, password: SecretString) -> Result<String, ApiError> {
        self.run(share, move |hasher| {
            hasher.refuse_breached(password.expose_secret())?;
            hash_with(&hasher.argon2, password.expose_secret().as_bytes())
        })
        .await?
    }

    /// Compares the password with a stored hash, or with a dummy hash when there is no such user, or their password is
    /// void: all take the same time.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when the queue is full.
    pub async fn verify(
        &self,
        share: Share,
        password: SecretString,
        stored: Option<String>,
    ) -> Result<PasswordCheck, ApiError> {
        self.run(share, move |hasher| {
            let password = password.expose_secret().as_bytes();
            let stored = stored.filter(|hash| hash != NO_PASSWORD);
            let known = stored.is_some();
            let stored = stored.as_deref().unwrap_or(&hasher.dummy_hash);
            let stored = PasswordHash::new(stored).map_err(|_| ApiError::Internal)?;
            let right = hasher.argon2.verify_password(password, &stored).is_ok();
            if !(right && known) {
                return Ok(PasswordCheck::Mismatch);
            }
            let today = PasswordHash::new(&hasher.dummy_hash).map_err(|_| ApiError::Internal)?;
            let same = stored.algorithm == today.algorithm
                && stored.version == today.version
                && stored.params == today.params;
            let rehashed = if same { None } else { Some(hash_with(&hasher.argon2, password)?) };
            Ok(PasswordCheck::Match { rehashed })
        })
        .await?
    }

    async fn run<T: Send + 'static>(
        &self,
        share: Share,
        task: impl FnOnce(&Hasher) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let (sender, done) = oneshot::channel();
        let job: Job = Box::new(move |hasher| {
            // Do not hash for a client that has disconnected.
            if !sender.is_closed() {
                let _ = sender.send(task(hasher));
            }
        });
        self.jobs.0.push(share, job);
        // The queue was full, or dropped the job in favor of another share's.
        done.await.map_err(|_| ApiError::Unavailable)
    }
}

/// The main loop of a worker, which ends when the last [`PasswordHasherPool`] is dropped.
fn work(hasher: &Hasher, queue: &Queue<Job>) {
    while let Some(job) = queue.next() {
        // A panic drops the job's sender, which fails its request; the worker continues.
        let _ = catch_unwind(AssertUnwindSafe(|| job(hasher)));
    }
}

fn hash_with(argon2: &Argon2<'_>, password: &[u8]) -> Result<String, ApiError> {
    argon2.hash_password(password).map(|hash| hash.to_string()).map_err(|_| ApiError::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passwords(memory_kib: u32) -> PasswordHasherPool {
        let config = PasswordConfig {
            memory_kib,
            iterations: 1,
            parallelism: 1,
            workers: 1,
            queue: 8,
            breached: None,
        };
        PasswordHasherPool::new(&config).unwrap()
    }

    fn secret(text: &str) -> SecretString {
        text.into()
    }

    #[tokio::test]
    async fn a_password_is_taken_exactly_as_typed() {
        let passwords = passwords(64);
        let long = "é".repeat(72);
        let hash = passwords.hash(Share::default(), secret(&long)).await.unwrap();
        assert_eq!(
            passwords.verify(Share::default(), secret(&long), Some(hash.clone())).await,
            Ok(PasswordCheck::Match { rehashed: None })
        );
        for other in [&format!("{long} "), &format!("{long}\0"), &"é".repeat(71), &long.to_uppercase()] {
            assert_eq!(
                passwords.verify(Share::default(), secret(other), Some(hash.clone())).await,
                Ok(PasswordCheck::Mismatch)
            );
        }
    }

    #[tokio::test]
    async fn a_hash_by_older_parameters_is_renewed() {
        let old = passwords(64).hash(Share::default(), secret("correct horse")).await.unwrap();
        let today = passwords(128);
        let Ok(PasswordCheck::Match { rehashed: Some(renewed) }) =
            today.verify(Share::default(), secret("correct horse"), Some(old)).await
        else {
            panic!("not renewed");
        };
        assert!(renewed.starts_with("$argon2id$v=19$m=128,t=1,p=1$"));
        assert_eq!(
            today.verify(Share::default(), secret("correct horse"), Some(renewed)).await,
            Ok(PasswordCheck::Match { rehashed: None })
        );
    }

    #[tokio::test]
    async fn nobody_has_no_password() {
        assert_eq!(
            passwords(64).verify(Share::default(), secret("correct horse"), None).await,
            Ok(PasswordCheck::Mismatch)
        );
    }

    #[test]
    fn common_short_and_long_passwords_are_refused_and_nothing_else() {
        let email = "Annabelle@example.com";
        for text in [
            "",
            "1234567",
            "password",
            "PASSWORD1",
            "12345678",
            "iloveyou1",
            "Hallpass2026!",
            "annabelle",
            "Annabelle@example.com",
            &"a".repeat(129),
        ] {
            assert!(validate_new_password(&secret(text), email).is_err(), "{text}");
        }
        for text in ["        x", "correct horse", "ünïcödé🔑", &"a".repeat(128)] {
            assert!(validate_new_password(&secret(text), email).is_ok(), "{text}");
        }
    }
}
