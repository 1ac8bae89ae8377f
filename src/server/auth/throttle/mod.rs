//! Rate limits for password attempts and refreshes.
//!
//! Attempts are counted in *buckets*. Each bucket has a number of free attempts, which become free again
//! over time. Once they are used up, each further attempt has to wait twice as long as the one before, up
//! to one minute. No account is ever locked: the attempts of others can keep a user waiting, but not on a
//! device where the user has signed in before, because it has buckets of its own ("device cookies", OWASP:
//! Slow Down Online Guessing Attacks with Device Cookies).
//!
//! | bucket | protects against |
//! |---|---|
//! | an address, for devices that the account does not know | guessing at many accounts |
//! | an account and an address, for the same | guessing at one account |
//! | an account, for the same | the same from many addresses |
//! | an account and a known device, in a minute and in an hour | a stolen device |
//! | an account, for all known devices together | many stolen devices |
//! | an account, for right passwords | unlimited hashing by those who know one |
//! | a session, for the password of its user | guessing with a stolen session |
//! | a session, for refreshes | unlimited tokens |
//! | an account, for mails that its user asks for | mails to many strangers |
//! | an account, for changes of its factors | notices without limit |
//!
//! The charge for an attempt is refunded when the password was right or could not be checked, and that for
//! a refresh when the database failed. The charges for right passwords and for registrations are never
//! refunded.
//!
//! With several instances the buckets are in Redis and shared by all; while Redis is unreachable, each
//! instance counts on its own.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use metrics::counter;

use self::{
    rate_limit::{BucketKey, MAX_BACKOFF, RateLimit},
    redis::SharedBuckets,
};
use crate::{
    api::error::ApiError,
    server::{
        client_info::ClientInfo,
        config::ThrottleConfig,
        db::users::Email,
        ids::{DeviceId, SessionId, UserId},
    },
};

mod rate_limit;
pub mod redis;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// The minimum number of attempts in an hour for each known device of an account, and for all of them
/// together. A single stolen device must not use up the attempts of the others.
const PER_KNOWN_DEVICE: u32 = 100;
const PER_KNOWN_DEVICES: u32 = 300;

/// The minimum number of right passwords of one account in a minute: more than any user needs.
const RIGHT_PER_ACCOUNT: u32 = 300;

/// The number of mails that a user may ask for in an hour.
const MAILS_PER_ACCOUNT: u32 = 20;

/// The number of changes of its factors that a user may make in an hour.
const FACTOR_CHANGES_PER_ACCOUNT: u32 = 60;

/// The minimum ratio between the refreshes that are allowed and those that a client needs.
const REFRESH_MARGIN: u32 = 4;

/// The rate limiter of this instance.
pub struct Throttle {
    address: RateLimit,
    device: RateLimit,
    account: RateLimit,
    known_device: RateLimit,
    known_devices: RateLimit,
    right_passwords: RateLimit,
    refreshes: RateLimit,
    mails: RateLimit,
    factor_changes: RateLimit,
    memory: Memory,
    shared: Option<SharedBuckets>,
}

/// The buckets that an attempt was charged to, for a refund.
#[must_use]
pub struct Charge(Vec<BucketKey>);

impl Throttle {
    /// Counts in memory; with `shared`, together with the other instances. `access_ttl` is the lifetime of
    /// an access token in seconds: however short it is, clients can refresh in time.
    pub fn new(config: &ThrottleConfig, access_ttl: i64, shared: Option<SharedBuckets>) -> Self {
        let needed = 60 / u32::try_from(access_ttl).unwrap_or(u32::MAX).max(1);
        Self {
            address: RateLimit::per(MINUTE, config.per_address),
            device: RateLimit::per(MINUTE, config.per_device),
            account: RateLimit::per(HOUR, config.per_account),
            known_device: RateLimit::per(HOUR, config.per_account.max(PER_KNOWN_DEVICE)),
            known_devices: RateLimit::per(HOUR, config.per_account.saturating_mul(3).max(PER_KNOWN_DEVICES)),
            right_passwords: RateLimit::per(MINUTE, config.per_address.max(RIGHT_PER_ACCOUNT)),
            refreshes: RateLimit::per(MINUTE, config.refreshes_per_session.max(REFRESH_MARGIN * needed)),
            mails: RateLimit::per(HOUR, MAILS_PER_ACCOUNT),
            factor_changes: RateLimit::per(HOUR, FACTOR_CHANGES_PER_ACCOUNT),
            memory: Memory::default(),
            shared,
        }
    }

    /// Charges an attempt from the client's address.
    ///
    /// # Errors
    /// [`ApiError::TooManyRequests`], with the seconds to wait.
    pub async fn try_address(&self, caller: &ClientInfo) -> Result<Charge, ApiError> {
        let address = BucketKey::of("address", &[&caller.rate_limit_prefix().to_string()]);
        self.count(&[(address, self.address)]).await
    }

    /// Charges a login attempt at an account, whether the account exists or not. A known device does not
    /// have to wait because of the attempts of others from its address.
    ///
    /// # Errors
    /// [`ApiError::TooManyRequests`], with the seconds to wait.
    pub async fn try_login(
        &self,
        email: &Email,
        caller: &ClientInfo,
        known_device: Option<DeviceId>,
    ) -> Result<Charge, ApiError> {
        let email = email.as_str();
        if let Some(id) = known_device {
            let id = id.to_string();
            let device = BucketKey::of("device", &[email, &id]);
            let device_by_hour = BucketKey::of("device by hour", &[email, &id]);
            let devices = BucketKey::of("known devices", &[email]);
            let limits = [self.device, self.known_device, self.known_devices];
            let buckets: Vec<_> = [device, device_by_hour, devices].into_iter().zip(limits).collect();
            return self.count(&buckets).await;
        }
        // This charge stays if the attempt has to wait for one of the account's buckets.
        let mut counted = self.try_address(caller).await?;
        let here = BucketKey::of("account at address", &[email, &caller.rate_limit_prefix().to_string()]);
        let anywhere = BucketKey::of("account", &[email]);
        counted.0.extend(self.count(&[(here, self.device), (anywhere, self.account)]).await?.0);
        Ok(counted)
    }

    /// Charges a right password of a user. This is never refunded: a client that has a password could
    /// otherwise have it hashed, and start sessions, without limit.
    ///
    /// # Errors
    /// [`ApiError::TooManyRequests`], with the seconds to wait.
    pub async fn charge_right_password(&self, user_id: UserId) -> Result<(), ApiError> {
        let bucket = BucketKey::of("right passwords", &[&user_id.to_string()]);
        self.count(&[(bucket, self.right_passwords)]).await.map(|_stays| ())
    }

    /// Charges a mail that a user asks for, to whatever address. Never refunded.
    ///
    /// # Errors
    /// [`ApiError::TooManyRequests`], with the seconds to wait.
    pub async fn charge_mail(&self, user_id: UserId) -> Result<(), ApiError> {
        let bucket = BucketKey::of("mails", &[&user_id.to_string()]);
        self.count(&[(bucket, self.mails)]).await.map(|_stays| ())
    }

    /// Charges a change of what a user signs in with, which sends a notice. Never refunded.
    ///
    /// # Errors
    /// [`ApiError::TooManyRequests`], with the seconds to wait.
    pub async fn charge_factor_change(&self, user_id: UserId) -> Result<(), ApiError> {
        let bucket = BucketKey::of("factor changes", &[&user_id.to_string()]);
        self.count(&[(bucket, self.factor_changes)]).await.map(|_stays| ())
    }

    /// Charges a refresh of a session.
    ///
    /// # Errors
    /// [`ApiError::TooManyRequests`], with the seconds to wait.
    pub async fn charge_refresh(&self, session_id: SessionId) -> Result<Charge, ApiError> {
        self.count(&[(BucketKey::of("refreshes", &[&session_id.to_string()]), self.refreshes)]).await
    }

    /// Charges an attempt at the password of a session's own user.
    ///
    /// # Errors
    /// [`ApiError::TooManyRequests`], with the seconds to wait.
    pub async fn try_session(&self, session_id: SessionId) -> Result<Charge, ApiError> {
        self.count(&[(BucketKey::of("session", &[&session_id.to_string()]), self.device)]).await
    }

    /// Charges an attempt to all of these buckets or, if it has to wait for one of them, to none.
    async fn count(&self, buckets: &[(BucketKey, RateLimit)]) -> Result<Charge, ApiError> {
        let mut counted = Charge(Vec::new());
        for (bucket, limit) in buckets {
            let wait = match &self.shared {
                Some(shared) => shared.record_attempt(*bucket, *limit).await,
                None => None,
            };
            let wait = wait.unwrap_or_else(|| self.memory.count(*bucket, *limit, Instant::now()));
            if !wait.is_zero() {
                counter!("hallpass_throttled_total").increment(1);
                self.refund(counted).await;
                return Err(ApiError::TooManyRequests(wait.as_secs_f64().ceil() as u64));
            }
            counted.0.push(*bucket);
        }
        Ok(counted)
    }

    /// Takes back the charges of an attempt.
    pub async fn refund(&self, counted: Charge) {
        for bucket in counted.0 {
            if let Some(shared) = &self.shared {
                shared.refund_attempt(bucket).await;
            }
            self.memory.refund(bucket);
        }
    }

    /// Drops the buckets that are empty again.
    pub fn forget_old(&self) {
        self.memory.forget_old(Instant::now());
    }
}

/// The buckets of this process.
#[derive(Default)]
struct Memory(Mutex<HashMap<BucketKey, Level>>);

#[derive(Clone, Copy)]
struct Level {
    attempts: f64,
    at: Instant,
    waits_until: Instant,
    empty_at: Instant,
}

impl Memory {
    /// Charges an attempt and returns zero, or returns how long it has to wait. The rule is the same as in
    /// `scripts/record_attempt.lua`.
    fn count(&self, bucket: BucketKey, limit: RateLimit, now: Instant) -> Duration {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let level = buckets.entry(bucket).or_insert(Level {
            attempts: 0.0,
            at: now,
            waits_until: now,
            empty_at: now,
        });
        // Another caller read its clock later than this one, and came first.
        let now = now.max(level.at);
        if level.waits_until > now {
            return level.waits_until - now;
        }
        let forgotten = (now - level.at).as_secs_f64() / limit.refill_interval.as_secs_f64();
        level.attempts = (level.attempts - forgotten).max(0.0) + 1.0;
        level.at = now;
        let over = (level.attempts - f64::from(limit.burst)).round();
        let wait = if over >= 0.0 {
            Duration::from_secs(1 << (over as u32).min(30)).min(MAX_BACKOFF)
        } else {
            Duration::ZERO
        };
        level.waits_until = now + wait;
        level.empty_at = level.waits_until + limit.refill_interval.mul_f64(level.attempts);
        Duration::ZERO
    }

    fn refund(&self, bucket: BucketKey) {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(level) = buckets.get_mut(&bucket) {
            level.attempts -= 1.0;
            level.waits_until = level.at;
        }
    }

    fn forget_old(&self, now: Instant) {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.retain(|_, level| level.empty_at > now);
        buckets.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: RateLimit = RateLimit { burst: 3, refill_interval: Duration::from_secs(100_000) };

    #[test]
    fn clocks_that_are_read_in_another_order_make_nobody_wait() {
        let (memory, now) = (Memory::default(), Instant::now());
        let bucket = BucketKey::of("test", &[]);
        for earlier in [0, 5, 3] {
            let read = now + Duration::from_millis(10 - earlier);
            assert_eq!(memory.count(bucket, RateLimit { burst: 100, ..LIMIT }, read), Duration::ZERO);
        }
    }

    #[test]
    fn each_wait_is_twice_the_last_and_a_minute_at_the_most() {
        let (memory, bucket) = (Memory::default(), BucketKey::of("test", &[]));
        let mut now = Instant::now();
        for _ in 0..3 {
            assert_eq!(memory.count(bucket, LIMIT, now), Duration::ZERO);
        }
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let wait = Duration::from_secs(seconds);
            assert_eq!(memory.count(bucket, LIMIT, now), wait);
            // An attempt that comes too early does not extend the wait.
            assert_eq!(memory.count(bucket, LIMIT, now + wait / 2), wait / 2);
            now += wait;
            assert_eq!(memory.count(bucket, LIMIT, now), Duration::ZERO);
        }
        let later = now + MAX_BACKOFF + LIMIT.refill_interval * 20;
        memory.forget_old(later);
        assert!(memory.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_right_one_does_not_count() {
        let (memory, bucket) = (Memory::default(), BucketKey::of("test", &[]));
        let now = Instant::now();
        for _ in 0..100 {
            assert_eq!(memory.count(bucket, LIMIT, now), Duration::ZERO);
            memory.refund(bucket);
        }
    }

    const ANN: &str = "ann@example.com";

    fn throttle(per_account: u32, per_address: u32, per_device: u32, access_ttl: i64) -> Throttle {
        let config = ThrottleConfig { per_account, per_address, per_device, refreshes_per_session: 30 };
        Throttle::new(&config, access_ttl, None)
    }

    fn from(address: &str) -> ClientInfo {
        ClientInfo { address: address.parse().unwrap(), user_agent: String::new() }
    }

    /// A client that has to wait because of others does not use up its own attempts by trying again.
    #[tokio::test]
    async fn a_try_that_has_to_wait_counts_nowhere() {
        let throttle = throttle(1, 1000, 2, 300);
        let email = Email::parse(ANN).unwrap();
        let attacker = throttle.try_login(&email, &from("192.0.2.1"), None).await.unwrap();
        for _ in 0..100 {
            assert!(throttle.try_login(&email, &from("192.0.2.2"), None).await.is_err());
        }
        throttle.refund(attacker).await;
        assert!(throttle.try_login(&email, &from("192.0.2.2"), None).await.is_ok());
    }

    #[tokio::test]
    async fn known_device_does_not_wait_for_those_at_its_address_or_for_strangers() {
        let throttle = throttle(2, 2, 10, 300);
        let email = Email::parse(ANN).unwrap();
        while throttle.try_login(&email, &from("192.0.2.1"), None).await.is_ok() {}
        let known = Some(DeviceId::random());
        for _ in 0..10 {
            assert!(throttle.try_login(&email, &from("192.0.2.1"), known).await.is_ok());
        }
        assert!(throttle.try_login(&email, &from("192.0.2.1"), known).await.is_err());
    }

    #[tokio::test]
    async fn known_devices_of_an_account_are_limited_together() {
        let throttle = throttle(100, 60, 10, 300);
        let email = Email::parse(ANN).unwrap();
        let mut allowed = 0;
        for _ in 0..100 {
            let device = Some(DeviceId::random());
            while allowed < 1000 && throttle.try_login(&email, &from("192.0.2.1"), device).await.is_ok() {
                allowed += 1;
            }
        }
        assert!((300..310).contains(&allowed), "{allowed}");
        let other = Email::parse("bob@example.com").unwrap();
        assert!(throttle.try_login(&other, &from("192.0.2.1"), Some(DeviceId::random())).await.is_ok());
    }

    /// A stolen device with which somebody guesses for hours reaches its own limit before that of all
    /// devices.
    #[test]
    fn one_known_device_does_not_use_up_what_all_have() {
        let throttle = throttle(100, 60, 10, 300);
        assert!(throttle.known_device.refill_interval > 2 * throttle.known_devices.refill_interval);
        assert!(throttle.known_device.burst * 2 < throttle.known_devices.burst);
    }

    #[tokio::test]
    async fn right_passwords_of_one_account_are_limited() {
        let throttle = throttle(100, 60, 10, 300);
        let ann = UserId::random();
        for _ in 0..300 {
            assert!(throttle.charge_right_password(ann).await.is_ok());
        }
        assert!(throttle.charge_right_password(ann).await.is_err());
        assert!(throttle.charge_right_password(UserId::random()).await.is_ok());
    }

    #[tokio::test]
    async fn shorter_tokens_may_be_refreshed_more_often() {
        for (access_ttl, expected) in [(300, 30), (60, 30), (5, 48), (1, 240)] {
            let throttle = throttle(100, 60, 10, access_ttl);
            let session_id = SessionId::random();
            let mut allowed = 0;
            while throttle.charge_refresh(session_id).await.is_ok() {
                allowed += 1;
            }
            assert!((expected..expected + 5).contains(&allowed), "{access_ttl}: {allowed}");
            assert!(throttle.charge_refresh(SessionId::random()).await.is_ok());
        }
    }

    #[test]
    fn buckets_are_told_apart() {
        assert_ne!(BucketKey::of("a", &["b", "c"]), BucketKey::of("a", &["bc"]));
        assert_ne!(BucketKey::of("a", &["b"]), BucketKey::of("b", &["b"]));
    }
}
