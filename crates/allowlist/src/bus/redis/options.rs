//! The options of a Redis.

use secrecy::SecretString;

/// Where Redis is, and how it is used.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// `redis://…`, `redis+sentinel://…/name` or `redis+cluster://…`, each also with `rediss`. May contain a
    /// user and a password.
    pub url: SecretString,
    /// The certificates, in PEM, that the servers' certificates are verified with; `None` for those of the
    /// operating system.
    pub ca: Option<Vec<u8>>,
    /// The number of servers that hold the same data, a primary and its replicas counted together. A majority of
    /// them confirms each revocation.
    pub nodes: usize,
    /// The number of shares into which the users are divided, from 1 on: in a Redis Cluster, each may be on
    /// another node.
    pub partitions: u16,
    /// The user at Sentinels that require one; that of the URL if neither this nor the password is set.
    pub sentinel_username: Option<String>,
    /// The password at Sentinels that require one.
    pub sentinel_password: Option<SecretString>,
}
