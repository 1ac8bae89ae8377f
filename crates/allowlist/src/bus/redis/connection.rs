//! The commands to the primary of a partition, and its keys.

use std::{collections::HashMap, sync::LazyLock, time::Duration};

use redis::{ErrorKind, RedisError, Script, aio::MultiplexedConnection, cmd};

use crate::{
    bus::{
        event::{Event, Link, Nonce, Position},
        stream::{BATCH, Entry, Partition, Register},
    },
    clock::UnixSeconds,
    id::{BusId, SessionId, TokenId},
    record::{RETENTION, TokenRecord},
};

/// How long replicas may take to confirm a write. Shorter than the timeout for a response.
const REPLICAS_TIMEOUT: Duration = Duration::from_millis(500);

static JOIN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/join.lua")));
static RENEW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/renew.lua")));
static ALLOW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/allow.lua")));
static REVOKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/revoke.lua")));

/// A connection to the primary of one partition. Clones share it.
#[derive(Clone)]
pub struct Connection {
    partition: Partition,
    inner: MultiplexedConnection,
}

impl Connection {
    pub fn new(partition: Partition, inner: MultiplexedConnection) -> Self {
        Self { partition, inner }
    }

    /// The connection as the `redis` crate has it, and the prefix of the partition's keys.
    pub fn parts(&mut self) -> (&mut MultiplexedConnection, String) {
        let prefix = key(self.partition, "");
        (&mut self.inner, prefix)
    }

    /// Reads the position of the newest event, the membership, and the identity of this Redis. Creates the
    /// chain and the identity if they do not exist.
    pub async fn join(&mut self) -> Result<(Position, Register, String), RedisError> {
        let (position, fields, identity): (String, _, _) = JOIN
            .key(key(self.partition, "register"))
            .key(key(self.partition, "events"))
            .key(key(self.partition, "identity"))
            .arg(Nonce::random().0)
            .arg(BusId::random().to_string())
            .invoke_async(&mut self.inner)
            .await?;
        Ok((position.parse().unwrap_or_default(), read_register(fields), identity))
    }

    /// Stores the report of `instance`, and returns the entries after `position` and the membership.
    /// Removes the `lapsed` members that have not reported again.
    pub async fn renew(
        &mut self,
        instance: &[u8],
        report: &str,
        position: Position,
        lapsed: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(Vec<Entry>, Register), RedisError> {
        let mut renew = RENEW.prepare_invoke();
        renew
            .key(key(self.partition, "register"))
            .key(key(self.partition, "events"))
            .arg(instance)
            .arg(report)
            .arg(position.to_string())
            .arg(BATCH);
        for (instance, report) in lapsed {
            renew.arg(instance).arg(report);
        }
        let (entries, fields): (Vec<RawEntry>, _) = renew.invoke_async(&mut self.inner).await?;
        Ok((read_all(entries)?, read_register(fields)))
    }

    /// Waits until `replicas` replicas have received everything that was written on this connection.
    ///
    /// # Errors
    /// Fewer replicas have, within the timeout.
    pub async fn wait_for_replicas(&mut self, replicas: usize) -> Result<(), RedisError> {
        let confirmed: usize =
            cmd("WAIT").arg(replicas).arg(REPLICAS_TIMEOUT.as_millis()).query_async(&mut self.inner).await?;
        if confirmed < replicas {
            return Err((ErrorKind::Io, "too few replicas confirm what is written").into());
        }
        Ok(())
    }

    /// Waits for entries after `position`, for at most `timeout`.
    pub async fn wait_for_entries(
        &mut self,
        position: Position,
        timeout: Duration,
    ) -> Result<Vec<Entry>, RedisError> {
        let streams: Option<Vec<(String, Vec<RawEntry>)>> = cmd("XREAD")
            .arg("COUNT")
            .arg(BATCH)
            .arg("BLOCK")
            .arg(timeout.as_millis().max(1))
            .arg("STREAMS")
            .arg(key(self.partition, "events"))
            .arg(position.to_string())
            .query_async(&mut self.inner)
            .await?;
        read_all(streams.into_iter().flatten().flat_map(|(_, entries)| entries).collect())
    }

    /// Checks that the node responds.
    pub async fn ping(&mut self) -> Result<(), RedisError> {
        cmd("PING").exec_async(&mut self.inner).await
    }

    /// Removes an instance that stops from the membership.
    pub async fn leave(&mut self, instance: &[u8]) -> Result<(), RedisError> {
        cmd("HDEL").arg(key(self.partition, "register")).arg(instance).exec_async(&mut self.inner).await
    }

    /// Adds a token to the list and publishes an event.
    pub async fn allow(&mut self, entry: &TokenRecord, now: UnixSeconds) -> Result<(), RedisError> {
        ALLOW
            .key(key(self.partition, "register"))
            .key(key(self.partition, "events"))
            .key(token_key(self.partition, entry.token_id))
            .arg(Nonce::random().0)
            .arg(Event::Issued(*entry).to_string())
            .arg(RETENTION.as_millis())
            .arg(entry.session_id.to_string())
            .arg((entry.expires_at - now).max(1))
            .invoke_async(&mut self.inner)
            .await
    }

    /// Removes tokens from the list, and publishes the revocation of these sessions in an event with this
    /// nonce.
    pub async fn revoke(
        &mut self,
        nonce: Nonce,
        sessions: &[SessionId],
        tokens: &[TokenId],
    ) -> Result<(), RedisError> {
        let mut revoke = REVOKE.prepare_invoke();
        revoke.key(key(self.partition, "register")).key(key(self.partition, "events"));
        for token_id in tokens {
            revoke.key(token_key(self.partition, *token_id));
        }
        revoke
            .arg(nonce.0)
            .arg(Event::Revoked(sessions.to_vec()).to_string())
            .arg(RETENTION.as_millis())
            .invoke_async(&mut self.inner)
            .await
    }

    /// Whether the token is on the list.
    pub async fn contains(&mut self, entry: &TokenRecord) -> Result<bool, RedisError> {
        let session: Option<Vec<u8>> =
            cmd("GET").arg(token_key(self.partition, entry.token_id)).query_async(&mut self.inner).await?;
        Ok(session.is_some_and(|session| session == entry.session_id.to_string().as_bytes()))
    }

    /// The warnings about settings of this Redis that put its data or confirmed revocations at risk.
    pub async fn config_warnings(&mut self, nodes: usize) -> Result<Vec<String>, RedisError> {
        let text: String = cmd("INFO").query_async(&mut self.inner).await?;
        let mut config_warnings = Vec::new();
        let policy = info_field(&text, "maxmemory_policy");
        if policy != "noeviction" {
            config_warnings
                .push(format!("Redis may evict keys (maxmemory-policy {policy}): set it to noeviction"));
        }
        let replicas: usize = info_field(&text, "connected_slaves").parse().unwrap_or_default();
        if replicas + 1 > nodes {
            config_warnings.push(match replicas {
                1 => "this Redis has one replica: set HALLPASS_REDIS_NODES=2, so that no failover undoes a \
                      revocation. Both nodes then confirm each one, so after a failover none is confirmed until \
                      the second node is back; to go on meanwhile takes two replicas, and HALLPASS_REDIS_NODES=3"
                    .into(),
                _ => format!(
                    "this Redis has {replicas} replicas: set HALLPASS_REDIS_NODES={}, so that a majority confirms \
                     each revocation and no failover undoes it",
                    replicas + 1
                ),
            });
        }
        Ok(config_warnings)
    }
}

/// The name of a key. All keys of a partition have one hash tag.
pub fn key(partition: Partition, name: &str) -> String {
    format!("{{hp:{}}}:{name}", partition.index())
}

fn token_key(partition: Partition, token_id: TokenId) -> String {
    key(partition, &format!("token:{token_id}"))
}

fn read_register(mut fields: HashMap<Vec<u8>, Vec<u8>>) -> Register {
    let head = fields.remove(b"head".as_slice());
    let head = head.and_then(|head| str::from_utf8(&head).ok()?.parse().ok());
    Register { head: head.map(Nonce), reports: fields }
}

type RawEntry = (String, Vec<Vec<u8>>);

fn read_entry((id, fields): RawEntry) -> Result<Entry, RedisError> {
    let position = id
        .parse()
        .map_err(|_| RedisError::from((ErrorKind::Parse, "the id of an entry cannot be read", id)))?;
    let fields: Vec<_> = fields.iter().map(|field| str::from_utf8(field).unwrap_or_default()).collect();
    let ["n", nonce, "p", before, "e", event] = fields[..] else {
        return Ok(Entry::Foreign(position));
    };
    let Ok(nonce) = nonce.parse() else {
        return Ok(Entry::Foreign(position));
    };
    Ok(match event.parse() {
        Ok(event) => {
            Entry::Link(Link { position, nonce: Nonce(nonce), before: before.parse().ok().map(Nonce), event })
        }
        Err(_) => Entry::Unreadable(position),
    })
}

fn read_all(entries: Vec<RawEntry>) -> Result<Vec<Entry>, RedisError> {
    entries.into_iter().map(read_entry).collect()
}

/// The value of a field in the response to `INFO`.
pub fn info_field<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default()
}
