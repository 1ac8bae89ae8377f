//! A bus in memory whose messages have the sizes that Redis and its clients give them, for what the exchange costs with
//! more instances than one machine can run. The commands to begin and to end an epoch are not metered.

use std::{fmt, ops::Deref, sync::Arc};

use futures::future::BoxFuture;

use super::connection::{FIRST_BEAT, key, token_key};
use crate::{
    bus::{
        error::BusError,
        event::{Event, Nonce},
        memory::{self, MemoryBus, MemoryServer},
        stream::{Awaited, BATCH, Entry, Partition, Read, Register, Renewed, Report, Reported},
    },
    clock::UnixSeconds,
    id::{InstanceId, SessionId, TokenId},
    record::{RETENTION, TokenRecord},
};

/// The way between the instances and the servers.
pub trait Meter: Send + Sync + 'static {
    /// Resolves when a message has arrived, and been received or sent by its server.
    fn cross(&self, message: Message) -> BoxFuture<'static, ()>;
}

/// A command, or the answer to one.
#[derive(Debug, Clone, Copy)]
pub struct Message {
    /// The partition: each is on a server of its own.
    pub partition: usize,
    /// The name of the command, or of its script.
    pub command: &'static str,
    /// Whether it is the answer.
    pub is_answer: bool,
    /// Its size, in the Redis protocol (RESP2).
    pub bytes: usize,
    /// The number of events in it.
    pub events: usize,
}

/// A bus in memory with a server for each partition. Clones share them.
#[derive(Clone)]
pub struct MeteredBus {
    servers: Arc<[MemoryServer]>,
    meter: Arc<dyn Meter>,
}

impl MeteredBus {
    /// A bus with this many partitions.
    pub fn new(partitions: u16, meter: Arc<dyn Meter>) -> Self {
        Self { servers: (0..partitions).map(|_| MemoryServer::default()).collect(), meter }
    }

    pub(crate) fn partitions(&self) -> u16 {
        self.servers.len().try_into().unwrap_or(u16::MAX)
    }

    pub(crate) async fn connect(&self, partition: Partition) -> Result<Connection, BusError> {
        let inner = MemoryBus::new(&self.servers[partition.index()]).connect(partition).await?;
        Ok(Connection { inner, meter: Arc::clone(&self.meter), partition })
    }
}

/// A connection to the server of one partition. What is not metered is that of the bus in memory.
#[derive(Clone)]
pub(crate) struct Connection {
    inner: memory::Connection,
    meter: Arc<dyn Meter>,
    partition: Partition,
}

impl Deref for Connection {
    type Target = memory::Connection;

    fn deref(&self) -> &memory::Connection {
        &self.inner
    }
}

/// The SHA-1 of a script, by which it is called.
const SHA: &str = "0000000000000000000000000000000000000000";

/// An id of an entry as Redis makes them, by its clock. Those of the bus in memory are shorter.
const POSITION: &str = "1800000000000-0";

/// The size of `nil`.
const NIL: usize = 5;

/// The size of the integer that `HSET` and `HDEL` answer.
const INTEGER: usize = 4;

impl Connection {
    /// Runs a command between the crossings of its two messages.
    async fn call<T>(
        &self,
        command: &'static str,
        arguments: &[&(dyn fmt::Display + Sync)],
        running: impl Future<Output = Result<T, BusError>>,
        answer_size: impl FnOnce(&T) -> usize,
        events: impl FnOnce(&T) -> usize,
    ) -> Result<T, BusError> {
        let bytes = array(arguments.iter().map(text));
        let message =
            Message { partition: self.partition.index(), command, is_answer: false, bytes, events: 0 };
        self.meter.cross(message).await;
        let answer = running.await?;
        let (bytes, events) = (answer_size(&answer), events(&answer));
        self.meter.cross(Message { is_answer: true, bytes, events, ..message }).await;
        Ok(answer)
    }

    fn key(&self, name: &str) -> String {
        key(self.partition, name)
    }

    pub async fn renew(&self, report: &Report) -> Result<Option<Renewed>, BusError> {
        let (members, acks) = (self.key("members"), self.key("acks"));
        let (chain, reported) = (report.chain.0, report.reported.map_or(-1, u64::cast_signed));
        let bound = report.lapsed_below.map(|beat| FIRST_BEAT + beat);
        let mut arguments: Vec<&(dyn fmt::Display + Sync)> = vec![
            &"EVALSHA",
            &SHA,
            &2,
            &members,
            &acks,
            &report.instance,
            &report.partitions,
            &chain,
            &report.applied,
            &reported,
        ];
        arguments.extend(bound.iter().map(|bound| bound as &(dyn fmt::Display + Sync)));
        let size = |renewed: &Option<Renewed>| {
            renewed.as_ref().map_or(NIL, |Renewed { head, applied_by_all, beat }| {
                bulk(text(&format_args!(
                    "{} {} {} {} {applied_by_all} {}",
                    head.chain.0,
                    head.serial,
                    head.nonce.0,
                    head.version,
                    FIRST_BEAT + beat
                )))
            })
        };
        self.call("renew", &arguments, self.inner.renew(report), size, |_| 0).await
    }

    pub async fn register(&self) -> Result<Register, BusError> {
        let (profiles, members) = (self.key("profiles"), self.key("members"));
        let hgetall: [&(dyn fmt::Display + Sync); 2] = [&"HGETALL", &profiles];
        self.call("profiles", &hgetall, self.inner.register(), profiles_size, |_| 0).await?;
        let zrange: [&(dyn fmt::Display + Sync); 5] = [&"ZRANGE", &members, &0, &-1, &"WITHSCORES"];
        self.call("members", &zrange, self.inner.register(), reports_size, |_| 0).await
    }

    pub async fn show(
        &self,
        instance: InstanceId,
        profile: &str,
        departed: &[Vec<u8>],
    ) -> Result<(), BusError> {
        let hset: [&(dyn fmt::Display + Sync); 4] = [&"HSET", &self.key("profiles"), &instance, &profile];
        self.call("show", &hset, self.inner.show(instance, profile, departed), |()| INTEGER, |()| 0).await
    }

    pub async fn wait_for_entries(&self, awaited: &Awaited) -> Result<Read, BusError> {
        let (events, acks, timeout) =
            (self.key("events"), self.key("acks"), awaited.timeout.as_millis().max(1));
        let mut arguments: Vec<&(dyn fmt::Display + Sync)> =
            vec![&"XREAD", &"COUNT", &BATCH, &"BLOCK", &timeout, &"STREAMS", &events];
        let above = awaited.applied_by_all.map(|serial| format!("{}-{}", serial - 1, u64::MAX));
        if above.is_some() {
            arguments.push(&acks);
        }
        arguments.push(&POSITION);
        arguments.extend(above.iter().map(|above| above as &(dyn fmt::Display + Sync)));
        let size = |read: &Read| {
            let of_events = (!read.entries.is_empty())
                .then(|| stream(&events, read.entries.len(), read.entries.iter().map(entry_size).sum()));
            let of_acks = read.applied_by_all.map(|all| {
                let id = text(&format_args!("{}-{}", all.serial, all.version));
                stream(&acks, 1, header(2) + bulk(id) + array([1, text(&all.chain.0)]))
            });
            let streams: Vec<usize> = of_events.into_iter().chain(of_acks).collect();
            if streams.is_empty() { NIL } else { header(streams.len()) + streams.iter().sum::<usize>() }
        };
        let running = self.inner.wait_for_entries(awaited);
        self.call("read", &arguments, running, size, |read| read.entries.len()).await
    }

    pub async fn allow(&self, entry: &TokenRecord, now: UnixSeconds) -> Result<(), BusError> {
        let allow: [&(dyn fmt::Display + Sync); 11] = [
            &"EVALSHA",
            &SHA,
            &3,
            &self.key("members"),
            &self.key("events"),
            &token_key(self.partition, entry.token_id),
            &i64::MAX,
            &Event::Issued(*entry),
            &RETENTION.as_millis(),
            &entry.session_id,
            &(entry.expires_at - now).max(1),
        ];
        self.call("allow", &allow, self.inner.allow(entry, now), |()| NIL, |()| 0).await
    }

    pub async fn revoke(
        &self,
        nonce: Nonce,
        sessions: &[SessionId],
        tokens: &[TokenId],
    ) -> Result<(), BusError> {
        let (members, events) = (self.key("members"), self.key("events"));
        let keys: Vec<String> = tokens.iter().map(|token_id| token_key(self.partition, *token_id)).collect();
        let (count, event, reach) =
            (keys.len() + 2, Event::Revoked(sessions.to_vec()), RETENTION.as_millis());
        let mut arguments: Vec<&(dyn fmt::Display + Sync)> =
            vec![&"EVALSHA", &SHA, &count, &members, &events];
        arguments.extend(keys.iter().map(|key| key as &(dyn fmt::Display + Sync)));
        arguments.extend([&nonce.0 as &(dyn fmt::Display + Sync), &event, &reach]);
        let running = self.inner.revoke(nonce, sessions, tokens);
        self.call("revoke", &arguments, running, |()| NIL, |()| 0).await
    }

    pub async fn contains(&self, entry: &TokenRecord) -> Result<bool, BusError> {
        let get: [&(dyn fmt::Display + Sync); 2] = [&"GET", &token_key(self.partition, entry.token_id)];
        let size = |is_listed: &bool| if *is_listed { bulk(text(&entry.session_id)) } else { NIL };
        self.call("look up", &get, self.inner.contains(entry), size, |_| 0).await
    }
}

/// The number of bytes of a text.
fn text(value: &(impl fmt::Display + ?Sized)) -> usize {
    struct Length(usize);
    impl fmt::Write for Length {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 += text.len();
            Ok(())
        }
    }
    let mut length = Length(0);
    // `Length` accepts everything.
    let _ = fmt::write(&mut length, format_args!("{value}"));
    length.0
}

/// `*3\r\n`, or `$3\r\n`.
fn header(count: usize) -> usize {
    text(&count) + 3
}

/// The size of a text of this length.
fn bulk(length: usize) -> usize {
    header(length) + length + 2
}

/// The size of an array of texts of these lengths.
fn array(lengths: impl IntoIterator<Item = usize, IntoIter: ExactSizeIterator>) -> usize {
    let lengths = lengths.into_iter();
    header(lengths.len()) + lengths.map(bulk).sum::<usize>()
}

/// The size of a stream with entries of this size in total.
fn stream(key: &str, entries: usize, size: usize) -> usize {
    header(2) + bulk(key.len()) + header(entries) + size
}

fn entry_size(entry: &Entry) -> usize {
    let Entry::Link(link) = entry else { return 0 };
    let before = link.before.map_or(0, |before| text(&before.0));
    let fields = [1, text(&link.nonce.0), 1, before, 1, text(&link.event)];
    header(2) + bulk(POSITION.len()) + array(fields)
}

fn profiles_size(register: &Register) -> usize {
    let profiles = &register.profiles;
    let size = |(instance, profile): (&Vec<u8>, &Vec<u8>)| bulk(instance.len()) + bulk(profile.len());
    header(2 * profiles.len()) + profiles.iter().map(size).sum::<usize>()
}

fn reports_size(register: &Register) -> usize {
    let reports = &register.reports;
    let size = |(instance, report): (&Vec<u8>, &Reported)| {
        let partitions = text(&report.partitions);
        bulk(instance.len())
            + bulk(text(&report.applied))
            + bulk(instance.len() + 1 + partitions)
            + bulk(text(&FIRST_BEAT))
    };
    // The head of the chain, and "inf".
    let head = bulk(48) + bulk(3);
    header(4 * reports.len() + 2) + reports.iter().map(size).sum::<usize>() + head
}
