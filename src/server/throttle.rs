//! How often one may try a password: per account and per address, in this process's memory.

use std::{hash::Hash, net::IpAddr, num::NonZeroU32};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

use super::{config::ThrottleConfig, users::Email};
use crate::api::error::AuthError;

/// Counts the tries. A full minute's worth may come at once; after that, one at a time.
pub struct Throttle {
    per_account: DefaultKeyedRateLimiter<Email>,
    per_address: DefaultKeyedRateLimiter<IpAddr>,
}

impl Throttle {
    pub fn new(config: &ThrottleConfig) -> Self {
        let quota = |tries| Quota::per_minute(NonZeroU32::new(tries).unwrap_or(NonZeroU32::MIN));
        Self {
            per_account: RateLimiter::keyed(quota(config.per_account)),
            per_address: RateLimiter::keyed(quota(config.per_address)),
        }
    }

    /// Counts a try from this address.
    ///
    /// # Errors
    /// [`AuthError::TooManyRequests`], with the seconds to wait.
    pub fn try_address(&self, address: IpAddr) -> Result<(), AuthError> {
        check(&self.per_address, &address)
    }

    /// Counts a try at this account, whether it exists or not.
    ///
    /// # Errors
    /// [`AuthError::TooManyRequests`], with the seconds to wait.
    pub fn try_account(&self, email: &Email) -> Result<(), AuthError> {
        check(&self.per_account, email)
    }

    /// Drops what no longer counts.
    pub fn forget_old(&self) {
        self.per_account.retain_recent();
        self.per_address.retain_recent();
    }
}

fn check<K: Clone + Eq + Hash>(limiter: &DefaultKeyedRateLimiter<K>, key: &K) -> Result<(), AuthError> {
    limiter.check_key(key).map_err(|not_until| {
        let wait = not_until.wait_time_from(DefaultClock::default().now());
        AuthError::TooManyRequests(wait.as_secs() + 1)
    })
}
