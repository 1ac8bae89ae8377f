//! The commands to the primary of a partition, and its keys.

use std::{collections::HashMap, sync::LazyLock, time::Duration};

use redis::{ErrorKind, RedisError, Script, aio::MultiplexedConnection, cmd};

use crate::{
    bus::{
        event::{Event, Link, Nonce, Position},
        redis::error::is_final,
        stream::{
            AllApplied, Awaited, BATCH, Entry, Head, Partition, Read, Register, Renewed, Report, Reported,
        },
    },
    clock::UnixSeconds,
    id::{BusId, InstanceId, SessionId, TokenId},
    record::{RETENTION, TokenRecord},
};

/// How long replicas may take to confirm a write. Shorter than the timeout for a response.
const REPLICAS_TIMEOUT: Duration = Duration::from_millis(500);

/// A script that may write when memory is full, too.
macro_rules! script {
    ($name:literal) => {
        script!("#!lua flags=allow-oom\n", $name)
    };
    ($flags:literal, $name:literal) => {
        LazyLock::new(|| {
            Script::new(concat!($flags, include_str!("scripts/register.lua"), include_str!($name)))
        })
    };
}

static JOIN: LazyLock<Script> = script!("scripts/join.lua");
static RENEW: LazyLock<Script> = script!("scripts/renew.lua");
static LEAVE: LazyLock<Script> = script!("scripts/leave.lua");
static ALLOW: LazyLock<Script> = script!("#!lua\n", "scripts/allow.lua");
static REVOKE: LazyLock<Script> = script!("scripts/revoke.lua");

/// The score from which on it is a beat, in the register.
pub const FIRST_BEAT: u64 = 1 << 52;

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

    /// Reads the position of the newest event, the head of the chain, and the identity of this Redis. Creates the
    /// chain and the identity if they do not exist.
    pub async fn join(&mut self) -> Result<(Position, Head, String), RedisError> {
        let (position, head, identity): (String, String, _) = JOIN
            .key(key(self.partition, "members"))
            .key(key(self.partition, "events"))
            .key(key(self.partition, "identity"))
            .key(key(self.partition, "acks"))
            .arg(Nonce::random().0)
            .arg(BusId::random().to_string())
            .invoke_async(&mut self.inner)
            .await?;
        let head = read_head(&mut head.split(' ')).ok_or_else(unreadable_head)?;
        Ok((position.parse().unwrap_or_default(), head, identity))
    }

    /// Stores the report of a member, and returns what the register answers.
    pub async fn renew(&mut self, report: &Report) -> Result<Option<Renewed>, RedisError> {
        let mut renew = RENEW.prepare_invoke();
        renew
            .key(key(self.partition, "members"))
            .key(key(self.partition, "acks"))
            .arg(report.instance.to_string())
            .arg(report.partitions)
            .arg(report.chain.0)
            .arg(report.applied)
            .arg(report.reported.map_or(-1, u64::cast_signed))
            .arg(report.lapsed_below);
        let renewed: Option<String> = renew.invoke_async(&mut self.inner).await?;
        renewed.map(|text| read_renewed(&text).ok_or_else(unreadable_head)).transpose()
    }

    /// Reads the membership.
    pub async fn register(&mut self) -> Result<Register, RedisError> {
        let profiles = cmd("HGETALL").arg(key(self.partition, "profiles")).query_async(&mut self.inner).await;
        let profiles = unless_refused(profiles)?.unwrap_or_default();
        let members: Vec<(Vec<u8>, f64)> = cmd("ZRANGE")
            .arg(key(self.partition, "members"))
            .arg("0")
            .arg("-1")
            .arg("WITHSCORES")
            .query_async(&mut self.inner)
            .await?;
        Ok(Register { reports: read_reports(&members), profiles })
    }

    /// Stores what is shown of an instance, and removes that of instances that departed long ago.
    pub async fn show(
        &mut self,
        instance: InstanceId,
        profile: &str,
        departed: &[Vec<u8>],
    ) -> Result<(), RedisError> {
        let profiles = key(self.partition, "profiles");
        if !departed.is_empty() {
            unless_refused(cmd("HDEL").arg(&profiles).arg(departed).exec_async(&mut self.inner).await)?;
        }
        let mut show = cmd("HSET");
        show.arg(profiles).arg(instance.to_string()).arg(profile);
        unless_refused(show.exec_async(&mut self.inner).await).map(|_| ())
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

    /// Reads the entries after a position, and waits for some if there are none.
    pub async fn wait_for_entries(&mut self, awaited: &Awaited) -> Result<Read, RedisError> {
        let events = key(self.partition, "events");
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(BATCH).arg("BLOCK").arg(awaited.timeout.as_millis().max(1));
        read.arg("STREAMS").arg(&events);
        match awaited.applied_by_all {
            Some(serial) => read
                .arg(key(self.partition, "acks"))
                .arg(awaited.after.to_string())
                .arg(format!("{}-{}", serial - 1, u64::MAX)),
            None => read.arg(awaited.after.to_string()),
        };
        let streams: Option<Vec<(String, Vec<RawEntry>)>> = read.query_async(&mut self.inner).await?;
        let mut answer = Read::default();
        for (stream, entries) in streams.into_iter().flatten() {
            if stream == events {
                answer.entries = read_all(entries)?;
            } else {
                answer.applied_by_all = entries.last().and_then(read_acks);
            }
        }
        Ok(answer)
    }

    /// Checks that the node responds.
    pub async fn ping(&mut self) -> Result<(), RedisError> {
        cmd("PING").exec_async(&mut self.inner).await
    }

    /// Removes an instance that stops from the membership.
    pub async fn leave(&mut self, instance: InstanceId, partitions: u16) -> Result<(), RedisError> {
        LEAVE
            .key(key(self.partition, "members"))
            .key(key(self.partition, "acks"))
            .key(key(self.partition, "profiles"))
            .arg(instance.to_string())
            .arg(partitions)
            .arg(Nonce::random().0)
            .invoke_async(&mut self.inner)
            .await
    }

    /// Adds a token to the list and publishes an event.
    pub async fn allow(&mut self, entry: &TokenRecord, now: UnixSeconds) -> Result<(), RedisError> {
        ALLOW
            .key(key(self.partition, "members"))
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
        revoke.key(key(self.partition, "members")).key(key(self.partition, "events"));
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

pub fn token_key(partition: Partition, token_id: TokenId) -> String {
    key(partition, &format!("token:{token_id}"))
}

/// Reads the text of a head, and the numbers after it.
fn read_head<'a>(numbers: &mut impl Iterator<Item = &'a str>) -> Option<Head> {
    let mut next = || numbers.next()?.parse::<i64>().ok();
    let (chain, serial) = (Nonce(next()?), next()?.cast_unsigned());
    Some(Head { chain, serial, nonce: Nonce(next()?), version: next()?.cast_unsigned() })
}

fn read_renewed(text: &str) -> Option<Renewed> {
    let mut numbers = text.split(' ');
    let head = read_head(&mut numbers)?;
    let mut next = || numbers.next()?.parse().ok();
    Some(Renewed { head, applied_by_all: next()?, beat: next()? })
}

/// `None` if Redis refuses a command on the profiles, on which nothing depends: it may be full, or the slot of the
/// keys is being migrated in a Redis Cluster.
fn unless_refused<T>(answer: Result<T, RedisError>) -> Result<Option<T>, RedisError> {
    match answer {
        Err(error)
            if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) && !is_final(&error) =>
        {
            Ok(None)
        }
        answer => answer.map(Some),
    }
}

fn unreadable_head() -> RedisError {
    (ErrorKind::Parse, "the head of the chain cannot be read").into()
}

/// Reads the elements of the register and their scores: see `scripts/register.lua`.
fn read_reports(elements: &[(Vec<u8>, f64)]) -> HashMap<Vec<u8>, Reported> {
    let mut applied: HashMap<&[u8], u64> = HashMap::new();
    let mut reports = HashMap::new();
    for (element, score) in elements.iter().filter(|(_, score)| score.is_finite()) {
        // Whole numbers below 2^53, in ascending order.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number")]
        let score = *score as u64;
        if score < FIRST_BEAT {
            applied.insert(element, score);
            continue;
        }
        let Some((instance, partitions)) = str::from_utf8(element).ok().and_then(|text| text.split_once(' '))
        else {
            continue;
        };
        let applied = applied.get(instance.as_bytes()).copied().unwrap_or_default();
        let partitions = partitions.parse().unwrap_or_default();
        reports.insert(instance.into(), Reported { applied, beat: score, partitions });
    }
    reports
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

fn read_acks((id, fields): &RawEntry) -> Option<AllApplied> {
    let chain = str::from_utf8(fields.get(1)?).ok()?.parse().ok()?;
    let (serial, version) = id.split_once('-')?;
    Some(AllApplied { chain: Nonce(chain), serial: serial.parse().ok()?, version: version.parse().ok()? })
}

fn read_all(entries: Vec<RawEntry>) -> Result<Vec<Entry>, RedisError> {
    entries.into_iter().map(read_entry).collect()
}

/// The value of a field in the response to `INFO`.
pub fn info_field<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default()
}
