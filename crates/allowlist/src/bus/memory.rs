//! A bus in memory. Its servers behave like Redis, as far as the protocol can tell, and a [`Network`] between them
//! and an instance can delay and lose what crosses it: the simulation runs the protocol over that.

use std::{
    collections::{BTreeMap, HashMap},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Either, select},
};
use tokio::{
    sync::Notify,
    time::{self, Instant},
};

use super::{
    error::{BusError, BusErrorKind},
    event::{Event, Link, Nonce, Position},
    stream::{
        ANSWER_TIMEOUT, AllApplied, Awaited, BATCH, Entry, Head, Partition, Read, Register, Renewed, Report,
        Reported,
    },
};
use crate::{
    clock::UnixSeconds,
    id::{BusId, InstanceId, SessionId, TokenId},
    record::TokenRecord,
};

/// The number of entries that a server keeps.
const MAX_ENTRIES: usize = 100_000;

/// The way from one instance to the servers.
pub trait Network: Send + Sync + 'static {
    /// The server to which a new connection leads.
    ///
    /// # Errors
    /// None can be reached.
    fn server(&self) -> Result<MemoryServer, BusError>;

    /// Resolves when a message has crossed from the instance to this server, or back.
    ///
    /// # Errors
    /// The connection is closed.
    fn cross(&self, server: &MemoryServer) -> BoxFuture<'static, Result<(), BusError>>;

    /// Resolves when the instance notices that this time has passed. A process that is stopped does so when it goes
    /// on, and may find that the answer has arrived meanwhile.
    fn elapsed(&self, time: Duration) -> BoxFuture<'static, ()> {
        time::sleep(time).boxed()
    }
}

/// A network that neither delays nor loses anything.
struct Direct(MemoryServer);

impl Network for Direct {
    fn server(&self) -> Result<MemoryServer, BusError> {
        Ok(self.0.clone())
    }

    fn cross(&self, _: &MemoryServer) -> BoxFuture<'static, Result<(), BusError>> {
        std::future::ready(Ok(())).boxed()
    }
}

/// The bus as one instance reaches it.
#[derive(Clone)]
pub struct MemoryBus {
    network: Arc<dyn Network>,
    partitions: u16,
    nodes: usize,
}

impl MemoryBus {
    /// A bus with one partition, on this server.
    pub fn new(server: &MemoryServer) -> Self {
        Self::through(Arc::new(Direct(server.clone())), 1, 1)
    }

    /// A bus with this many partitions and nodes, through a network.
    pub fn through(network: Arc<dyn Network>, partitions: u16, nodes: usize) -> Self {
        Self { network, partitions, nodes }
    }

    pub(super) fn partitions(&self) -> u16 {
        self.partitions
    }

    pub(super) fn nodes(&self) -> usize {
        self.nodes
    }

    pub(super) async fn connect(&self, partition: Partition) -> Result<Connection, BusError> {
        let connection =
            Connection { network: Arc::clone(&self.network), server: self.network.server()?, partition };
        connection.call(|_| ()).await?;
        Ok(connection)
    }
}

/// A server in memory. Clones are the same server.
#[derive(Clone, Default)]
pub struct MemoryServer(Arc<Server>);

struct Server {
    /// The id of the process, as it were: a copy of the data elsewhere has another.
    run_id: String,
    partitions: Mutex<BTreeMap<Partition, Data>>,
    /// Whether a majority of replicas confirms what is written here.
    is_confirmed: AtomicBool,
    /// Wakes those who wait, in order.
    written: Notify,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            run_id: BusId::random().to_string(),
            partitions: Mutex::default(),
            is_confirmed: AtomicBool::new(true),
            written: Notify::new(),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Data {
    identity: Option<String>,
    head: Option<Head>,
    reports: BTreeMap<Vec<u8>, Reported>,
    profiles: BTreeMap<Vec<u8>, Vec<u8>>,
    entries: BTreeMap<Position, Link>,
    newest: Position,
    /// What has woken those who wait until all members have reported an event: the newest only.
    acks: Option<AllApplied>,
    tokens: HashMap<TokenId, SessionId>,
}

impl Data {
    /// The lowest serial number that a member has reported.
    fn applied_by_all(&self) -> Option<u64> {
        self.reports.values().map(|report| report.applied).min()
    }

    /// Wakes those who wait until all members have reported this serial number or a lower one. What an earlier chain
    /// has left stays until then, and is replaced whatever its numbers, as in `scripts/register.lua`.
    fn wake(&mut self, head: Head, serial: u64) {
        let all = AllApplied { chain: head.chain, serial, version: head.version };
        let is_newer = |old: AllApplied| (all.serial, all.version) > (old.serial, old.version);
        if serial > 0 && self.acks.is_none_or(|old| is_newer(old) || old.chain != all.chain) {
            self.acks = Some(all);
        }
    }

    fn after(&self, position: Position) -> Vec<Entry> {
        let after = Position { sequence: position.sequence + 1, ..position };
        self.entries.range(after..).take(BATCH).map(|(_, link)| Entry::Link(link.clone())).collect()
    }

    fn append(&mut self, nonce: Nonce, event: Event) {
        self.newest.milliseconds += 1;
        let before = self.head.map(|head| head.nonce);
        self.entries.insert(self.newest, Link { position: self.newest, nonce, before, event });
        let head = self.head.unwrap_or(Head::first(nonce));
        self.head = Some(Head { serial: head.serial + 1, nonce, ..head });
        if self.entries.len() > MAX_ENTRIES {
            self.entries.pop_first();
        }
    }
}

impl MemoryServer {
    /// Another server with a copy of what this one holds now, like a replica that takes over.
    pub fn copy(&self) -> Self {
        let copy = Self::default();
        *copy.partitions() = self.partitions().clone();
        copy
    }

    /// Loses everything, as `FLUSHALL` does.
    pub fn flush(&self) {
        self.partitions().clear();
    }

    /// Loses all events, as a stream that is trimmed to nothing.
    pub fn trim(&self) {
        self.partitions().values_mut().for_each(|data| data.entries.clear());
    }

    /// Loses the registers, as a Redis that evicts keys does.
    pub fn evict(&self) {
        for data in self.partitions().values_mut() {
            (data.head, data.reports) = (None, BTreeMap::new());
        }
    }

    /// Sets whether enough replicas confirm what is written here: not on a primary that is cut off from them.
    pub fn set_confirmed(&self, is_confirmed: bool) {
        self.0.is_confirmed.store(is_confirmed, Ordering::Relaxed);
    }

    /// Whether both are the same server.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn partitions(&self) -> MutexGuard<'_, BTreeMap<Partition, Data>> {
        self.0.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, partition: Partition, work: impl FnOnce(&mut Data) -> T) -> T {
        work(self.partitions().entry(partition).or_default())
    }
}

/// A connection to one server. It never reconnects.
#[derive(Clone)]
pub(crate) struct Connection {
    network: Arc<dyn Network>,
    server: MemoryServer,
    partition: Partition,
}

impl Connection {
    /// Runs a command on the server, as one step. A command that was sent runs even if its caller has gone, as in
    /// Redis.
    async fn call<T: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Data) -> T + Send + 'static,
    ) -> Result<T, BusError> {
        let connection = self.clone();
        let calling = tokio::spawn(async move {
            connection.network.cross(&connection.server).await?;
            let (answer, has_written) = connection.server.with(connection.partition, |data| {
                let before = (data.newest, data.acks);
                let answer = command(data);
                (answer, (data.newest, data.acks) != before)
            });
            if has_written {
                connection.server.0.written.notify_waiters();
            }
            connection.network.cross(&connection.server).await?;
            Ok(answer)
        });
        match select(calling, self.network.elapsed(ANSWER_TIMEOUT)).await {
            Either::Left((Ok(answer), _)) => answer,
            Either::Left((Err(_), _)) | Either::Right(_) => Err(BusError::timed_out()),
        }
    }

    pub async fn join(&self) -> Result<(Position, Head, String), BusError> {
        let run_id = self.server.0.run_id.clone();
        self.call(move |data| {
            let head = *data.head.get_or_insert_with(|| Head::first(Nonce::random()));
            let identity = data.identity.get_or_insert_with(|| BusId::random().to_string());
            let identity = format!("{identity}/{run_id}");
            let newest = data.entries.last_key_value().map_or_else(Position::default, |(newest, _)| *newest);
            (newest, head, identity)
        })
        .await
    }

    pub async fn renew(&self, report: &Report) -> Result<Option<Renewed>, BusError> {
        let report = report.clone();
        self.call(move |data| {
            let head = data.head.filter(|head| head.chain == report.chain)?;
            let beat = data.reports.values().map(|reported| reported.beat).max().unwrap_or_default() + 1;
            let before = data.reports.len();
            let lapsed_below = report.lapsed_below.unwrap_or_default();
            data.reports.retain(|_, other| other.beat >= lapsed_below);
            let has_lapsed = data.reports.len() < before;
            let instance = report.instance.to_string().into_bytes();
            let reported = Reported { applied: report.applied, beat, partitions: report.partitions };
            let is_new = data.reports.insert(instance, reported).is_none();
            let head = Head { version: head.version + u64::from(is_new || has_lapsed), ..head };
            data.head = Some(head);
            let applied_by_all = data.applied_by_all()?;
            if has_lapsed || report.reported.is_none_or(|before| applied_by_all > before) {
                data.wake(head, applied_by_all);
            }
            Some(Renewed { head, applied_by_all, beat })
        })
        .await
    }

    pub async fn register(&self) -> Result<Register, BusError> {
        self.call(|data| Register {
            reports: data.reports.clone().into_iter().collect(),
            profiles: data.profiles.clone().into_iter().collect(),
        })
        .await
    }

    pub async fn show(
        &self,
        instance: InstanceId,
        profile: &str,
        departed: &[Vec<u8>],
    ) -> Result<(), BusError> {
        let (instance, profile) = (instance.to_string().into_bytes(), profile.as_bytes().to_vec());
        let departed = departed.to_vec();
        self.call(move |data| {
            departed.iter().for_each(|departed| drop(data.profiles.remove(departed)));
            data.profiles.insert(instance, profile);
        })
        .await
    }

    pub async fn wait_for_replicas(&self, _: usize) -> Result<(), BusError> {
        let server = Arc::clone(&self.server.0);
        if self.call(move |_| server.is_confirmed.load(Ordering::Relaxed)).await? {
            Ok(())
        } else {
            Err(BusError::new(BusErrorKind::Rejected, "too few replicas confirm what is written"))
        }
    }

    pub async fn wait_for_entries(&self, awaited: &Awaited) -> Result<Read, BusError> {
        let deadline = Instant::now() + awaited.timeout;
        let Awaited { after, applied_by_all, .. } = *awaited;
        loop {
            let mut written = pin!(self.server.0.written.notified());
            written.as_mut().enable();
            let read = self
                .call(move |data| {
                    let reached =
                        data.acks.filter(|all| applied_by_all.is_some_and(|serial| all.serial >= serial));
                    Read { entries: data.after(after), applied_by_all: reached }
                })
                .await?;
            let has_come = read.applied_by_all.is_some() || !read.entries.is_empty();
            if has_come || time::timeout_at(deadline, written).await.is_err() {
                return Ok(read);
            }
        }
    }

    pub async fn ping(&self) -> Result<(), BusError> {
        self.call(|_| ()).await
    }

    pub async fn leave(&self, instance: InstanceId, _: u16) -> Result<(), BusError> {
        let instance = instance.to_string().into_bytes();
        self.call(move |data| {
            data.profiles.remove(&instance);
            if data.reports.remove(&instance).is_some()
                && let Some(head) = &mut data.head
            {
                head.version += 1;
                let head = *head;
                match data.applied_by_all() {
                    Some(lowest) => data.wake(head, lowest),
                    // Beats begin again.
                    None => data.head = Some(Head::first(Nonce::random())),
                }
            }
        })
        .await
    }

    pub async fn allow(&self, entry: &TokenRecord, _: UnixSeconds) -> Result<(), BusError> {
        let entry = *entry;
        self.call(move |data| {
            data.tokens.insert(entry.token_id, entry.session_id);
            data.append(Nonce::random(), Event::Issued(entry));
        })
        .await
    }

    pub async fn revoke(
        &self,
        nonce: Nonce,
        sessions: &[SessionId],
        tokens: &[TokenId],
    ) -> Result<(), BusError> {
        let (sessions, tokens) = (sessions.to_vec(), tokens.to_vec());
        self.call(move |data| {
            for token_id in &tokens {
                data.tokens.remove(token_id);
            }
            data.append(nonce, Event::Revoked(sessions));
        })
        .await
    }

    pub async fn config_warnings(&self, _: usize) -> Result<Vec<String>, BusError> {
        Ok(Vec::new())
    }

    pub async fn contains(&self, entry: &TokenRecord) -> Result<bool, BusError> {
        let entry = *entry;
        self.call(move |data| data.tokens.get(&entry.token_id) == Some(&entry.session_id)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn report(connection: &Connection, instance: InstanceId, applied: u64) {
        let (_, Head { chain, .. }, _) = connection.join().await.unwrap();
        let report = Report { instance, partitions: 1, chain, applied, reported: None, lapsed_below: None };
        connection.renew(&report).await.unwrap().unwrap();
    }

    async fn woken(connection: &Connection, serial: u64) -> Option<(Nonce, u64)> {
        let awaited =
            Awaited { after: Position::default(), applied_by_all: Some(serial), timeout: Duration::ZERO };
        let read = connection.wait_for_entries(&awaited).await.unwrap();
        read.applied_by_all.map(|all| (all.chain, all.serial))
    }

    #[tokio::test]
    async fn members_are_woken_by_what_an_earlier_chain_has_left_until_they_report() {
        let partition = Partition::all(1).next().unwrap();
        let connection = MemoryBus::new(&MemoryServer::default()).connect(partition).await.unwrap();
        let (first, other) = (InstanceId::random(), InstanceId::random());
        let (_, Head { chain: earlier, .. }, _) = connection.join().await.unwrap();
        report(&connection, first, 5).await;
        report(&connection, other, 7).await;
        assert_eq!((woken(&connection, 5).await, woken(&connection, 6).await), (Some((earlier, 5)), None));
        connection.leave(first, 1).await.unwrap();
        assert_eq!(woken(&connection, 6).await, Some((earlier, 7)), "the last one has reported more");
        connection.leave(other, 1).await.unwrap();
        report(&connection, first, 0).await;
        assert_eq!(woken(&connection, 1).await, Some((earlier, 7)));
        report(&connection, first, 1).await;
        let (_, Head { chain, .. }, _) = connection.join().await.unwrap();
        assert_ne!(chain, earlier);
        assert_eq!((woken(&connection, 1).await, woken(&connection, 2).await), (Some((chain, 1)), None));
    }
}
