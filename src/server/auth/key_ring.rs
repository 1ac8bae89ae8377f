//! The keys in use, which change while the server runs: a key of the folder signs once every instance accepts it.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock},
};

use anyhow::Result;
use hallpass_allowlist::MAX_TOKEN_LIFE;
use tracing::{info, warn};

use crate::server::{
    auth::{
        allowlist::Allowlist,
        jwt::Jwt,
        key::{Key, PublicJwk},
        keys::Keys,
    },
    clock::UnixSeconds,
    config::TokenConfig,
};

/// How long a retired key is published, in seconds: until the last token that it has signed has expired by any clock.
const PUBLISHED_FOR: i64 = MAX_TOKEN_LIFE.as_secs().cast_signed() + 60;

/// The keys, and what signs and verifies access tokens with them.
pub struct Ring {
    pub keys: Keys,
    pub jwt: Jwt,
    /// The ids of the keys that were read last; the others were read before.
    found: BTreeSet<String>,
    /// When this process began to use it.
    since: UnixSeconds,
}

impl Ring {
    fn new(
        config: &TokenConfig,
        keys: Keys,
        found: BTreeSet<String>,
        since: UnixSeconds,
    ) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { jwt: Jwt::new(config, &keys)?, keys, found, since }))
    }

    /// The public keys that verify access tokens which have not expired, or will be issued. A retired key may have
    /// signed until this process read of it.
    pub fn public_keys(&self, now: UnixSeconds) -> Vec<PublicJwk> {
        let last_signed = |retired: UnixSeconds| retired.max(self.since);
        let may_verify = |key: &&Key| {
            key.id() == self.keys.current().id()
                || key.retired().is_none_or(|retired| now <= last_signed(retired) + PUBLISHED_FOR)
        };
        self.keys.all().filter(may_verify).filter_map(Key::public).cloned().collect()
    }
}

/// The [`Ring`] in use, which is replaced as a whole.
pub struct KeyRing {
    config: TokenConfig,
    current: RwLock<Arc<Ring>>,
}

impl KeyRing {
    pub fn new(config: &TokenConfig, keys: Keys, now: UnixSeconds) -> Result<Self> {
        let found = ids(&keys);
        Ok(Self { config: config.clone(), current: RwLock::new(Ring::new(config, keys, found, now)?) })
    }

    pub fn current(&self) -> Arc<Ring> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the folder of keys again, if the keys are from there. New keys are accepted at once. The newest one that
    /// is not retired signs once every running instance accepts it; until then, the one that signs now goes on. A key
    /// whose file is gone is kept until the next start: tokens that it has signed may be live.
    ///
    /// # Errors
    /// A file cannot be used, or the table of instances. Then the keys are as they were, or accept new ones already.
    pub async fn follow_folder(&self, allowlist: &Allowlist, now: UnixSeconds) -> Result<()> {
        if self.config.signing_key.is_some() {
            return Ok(());
        }
        let before = self.current();
        let found = Keys::load(&self.config, now)?;
        let signer = before.keys.current().id().to_owned();
        let accepted = found.with_those_of(&before.keys);
        // A signing key whose file is lost goes on until there is a newer one: the older ones may be retired elsewhere.
        let successor = accepted.newest().id().to_owned();
        let found = ids(&found);
        let is_changed = found != before.found || accepted.retired() != before.keys.retired();
        if !is_changed && signer == successor {
            return Ok(());
        }
        let lost = accepted.all().filter(|key| !found.contains(key.id()) && key.retired().is_none());
        for lost in lost.filter(|_| is_changed) {
            let id = lost.id();
            warn!("the file of the signing key {id} is gone: the key is accepted until the next start");
        }
        // Accepted here before the row of this instance says so.
        self.replace(accepted.clone().signing_with(&signer), found.clone(), now)?;
        let all: Vec<_> = ids(&accepted).into_iter().collect();
        let may_sign = allowlist.change_keys(Some(&successor), &all).await?;
        if successor == signer {
            return Ok(());
        }
        if !may_sign {
            return Ok(());
        }
        info!("the key {successor} signs from now on");
        self.replace(accepted.signing_with(&successor), found, now)
    }

    fn replace(&self, keys: Keys, found: BTreeSet<String>, now: UnixSeconds) -> Result<()> {
        let ring = Ring::new(&self.config, keys, found, now)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = ring;
        Ok(())
    }
}

fn ids(keys: &Keys) -> BTreeSet<String> {
    keys.all().map(|key| key.id().to_owned()).collect()
}
