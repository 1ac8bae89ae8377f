//! The keys in use, which change while the server runs: a key of the folder signs once every instance accepts it.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock},
};

use anyhow::Result;
use tracing::{info, warn};

use crate::server::{
    auth::{allowlist::Allowlist, jwt::Jwt, keys::Keys},
    clock::UnixSeconds,
    config::TokenConfig,
};

/// The keys, and what signs and verifies access tokens with them.
pub struct Ring {
    pub keys: Keys,
    pub jwt: Jwt,
}

impl Ring {
    fn new(config: &TokenConfig, keys: Keys) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { jwt: Jwt::new(config, &keys)?, keys }))
    }
}

/// The [`Ring`] in use, which is replaced as a whole.
pub struct KeyRing {
    config: TokenConfig,
    current: RwLock<Arc<Ring>>,
}

impl KeyRing {
    pub fn new(config: &TokenConfig, keys: Keys) -> Result<Self> {
        Ok(Self { config: config.clone(), current: RwLock::new(Ring::new(config, keys)?) })
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
        let successor = found.current().id().to_owned();
        let ids = |keys: &Keys| keys.all().map(|key| key.id().to_owned()).collect::<BTreeSet<_>>();
        let accepted = found.with_those_of(&before.keys);
        let is_changed = ids(&accepted) != ids(&before.keys) || accepted.retired() != before.keys.retired();
        if !is_changed && signer == successor {
            return Ok(());
        }
        for lost in ids(&accepted).difference(&ids(&found)) {
            warn!("the file of the signing key {lost} is gone: the key is accepted until the next start");
        }
        // Accepted here before the others are told so.
        self.replace(accepted.clone().signing_with(&signer))?;
        let all: Vec<_> = ids(&accepted).into_iter().collect();
        let signs = if allowlist.change_keys(&successor, &all).await? { successor } else { signer.clone() };
        if signs != signer {
            info!("the key {signs} signs from now on");
            self.replace(accepted.signing_with(&signs))?;
        }
        Ok(())
    }

    fn replace(&self, keys: Keys) -> Result<()> {
        let ring = Ring::new(&self.config, keys)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = ring;
        Ok(())
    }
}
