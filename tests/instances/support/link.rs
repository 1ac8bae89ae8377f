//! A TCP proxy between two processes that can disturb the connection.

use std::{
    io,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{self, Instant},
};

use crate::support::world::INSTANCES;

/// The connections of a link that a disturbance affects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Which {
    #[default]
    All,
    /// Connections on which a follower has sent `XREAD`.
    Followers,
    /// All other connections.
    Commands,
    /// All connections but those on which this instance has reported its name. Resets and freezes affect all
    /// connections.
    AllBut(usize),
}

/// Properties of a connection, derived from the bytes that went to the server.
#[derive(Default)]
struct Marks {
    is_follower: AtomicBool,
    is_frozen: AtomicBool,
    /// The number of the instance plus one; 0 if unknown.
    owner: AtomicUsize,
}

impl Which {
    fn includes(self, is_follower: bool, owner: usize) -> bool {
        match self {
            Self::All => true,
            Self::Followers => is_follower,
            Self::Commands => !is_follower,
            Self::AllBut(instance) => owner != instance + 1,
        }
    }
}

/// A `Sync` message of PostgreSQL alone: the ping by which SQLx tests a connection before it returns to its pool.
const SQLX_PING: &[u8] = b"S\0\0\0\x04";

/// The disturbances of a link.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Connections are reset, including new ones.
    pub cut: bool,
    /// Bytes to the server are held. They are not lost: as with a black hole on the way in TCP, they arrive
    /// when the link is healed, even if the sender has disconnected since.
    pub held_to_server: bool,
    /// Bytes from the server are held.
    pub held_to_client: bool,
    /// The connections that the three settings above affect.
    pub which: Which,
    /// Bytes from the server are held on connections on which these bytes have gone to the server.
    pub held_after: Option<&'static str>,
    /// A connection on which [`SQLX_PING`] goes to the server freezes, as by [`Link::freeze`].
    pub freezes_at_ping: bool,
    /// The additional latency in each direction.
    pub delay: Duration,
    /// The maximum of a random latency that is added, for each piece separately.
    pub jitter: Duration,
    /// The number of resets so far, of command connections and of followers. A connection that began before
    /// the last one has ended.
    resets: [u32; 2],
    /// The number of freezes so far, likewise. A connection that began before the last one delivers nothing
    /// any more.
    freezes: [u32; 2],
}

impl Weather {
    /// The age of a connection that begins now.
    fn age(&self) -> Age {
        Age { resets: self.resets, freezes: self.freezes }
    }
}

/// The numbers of resets and freezes before a connection began.
#[derive(Clone, Copy)]
struct Age {
    resets: [u32; 2],
    freezes: [u32; 2],
}

/// A link to a server on this machine. It ends with its connections when dropped.
pub struct Link {
    pub port: u16,
    target: Arc<AtomicU16>,
    traffic: Arc<Traffic>,
    weather: watch::Sender<Weather>,
    listening: JoinHandle<()>,
}

/// Counters of connections and bytes.
#[derive(Default)]
struct Traffic {
    accepted: AtomicU64,
    to_server: AtomicU64,
    held_after: AtomicU64,
    frozen_at_ping: AtomicU64,
}

impl Link {
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (weather, forecast) = watch::channel(Weather::default());
        let (target, traffic) = (Arc::new(AtomicU16::new(server)), Arc::new(Traffic::default()));
        let (server, counters) = (Arc::clone(&target), Arc::clone(&traffic));
        let listening = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                counters.accepted.fetch_add(1, Relaxed);
                tokio::spawn(connect(client, server.load(Relaxed), Arc::clone(&counters), forecast.clone()));
            }
        });
        Self { port, target, traffic, weather, listening }
    }

    pub fn set(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }

    /// Resets every connection. New connections are accepted at once.
    pub fn reset(&self) {
        self.reset_only(Which::All);
    }

    pub fn reset_only(&self, which: Which) {
        self.set(|weather| count(&mut weather.resets, which));
    }

    /// Freezes the existing connections: they deliver nothing in either direction and do not end, not even
    /// after [`Link::heal`]. New connections work. This simulates a server that has vanished without closing
    /// connections, and its successor at the same address.
    pub fn freeze(&self) {
        self.freeze_only(Which::All);
    }

    pub fn freeze_only(&self, which: Which) {
        self.set(|weather| count(&mut weather.freezes, which));
    }

    /// Sends new connections to another server, as a changed DNS record does. Existing ones stay.
    pub fn retarget(&self, server: u16) {
        self.target.store(server, Relaxed);
    }

    /// The number of accepted connections.
    pub fn accepted(&self) -> u64 {
        self.traffic.accepted.load(Relaxed)
    }

    /// The number of pieces read for the server.
    pub fn pieces_to_server(&self) -> u64 {
        self.traffic.to_server.load(Relaxed)
    }

    /// The number of connections on which `held_after` has matched.
    pub fn held_after(&self) -> u64 {
        self.traffic.held_after.load(Relaxed)
    }

    /// The number of connections that froze because of `freezes_at_ping`.
    pub fn frozen_at_ping(&self) -> u64 {
        self.traffic.frozen_at_ping.load(Relaxed)
    }

    pub fn heal(&self) {
        self.set(|weather| {
            let Weather { resets, freezes, .. } = *weather;
            *weather = Weather { resets, freezes, ..Weather::default() };
        });
    }
}

fn count(counts: &mut [u32; 2], which: Which) {
    for (class, count) in counts.iter_mut().enumerate() {
        *count += u32::from(which.includes(class == 1, 0));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.listening.abort();
        self.set(|weather| {
            weather.cut = true;
            weather.which = Which::All;
        });
    }
}

/// One connection, shared by the tasks of its two directions.
#[derive(Clone)]
struct Passage {
    age: Age,
    traffic: Arc<Traffic>,
    marks: Arc<Marks>,
    /// Whether the bytes of `held_after` have gone to the server.
    has_asked: Arc<AtomicBool>,
}

impl Passage {
    fn class(&self) -> usize {
        usize::from(self.marks.is_follower.load(Relaxed))
    }

    fn is_meant(&self, weather: &Weather) -> bool {
        weather.which.includes(self.marks.is_follower.load(Relaxed), self.marks.owner.load(Relaxed))
    }

    fn is_reset(&self, weather: &Weather) -> bool {
        let class = self.class();
        weather.cut && self.is_meant(weather) || weather.resets[class] != self.age.resets[class]
    }

    fn is_frozen(&self, weather: &Weather) -> bool {
        let class = self.class();
        weather.freezes[class] != self.age.freezes[class] || self.marks.is_frozen.load(Relaxed)
    }

    fn is_held_to_server(&self, weather: &Weather) -> bool {
        self.is_frozen(weather) || weather.held_to_server && self.is_meant(weather)
    }

    fn is_held_to_client(&self, weather: &Weather) -> bool {
        let answer_is_held = weather.held_after.is_some() && self.has_asked.load(Relaxed);
        self.is_frozen(weather) || answer_is_held || weather.held_to_client && self.is_meant(weather)
    }

    /// Inspects the bytes that go to the server.
    fn look_at(&self, bytes: &[u8], weather: &Weather) {
        self.traffic.to_server.fetch_add(1, Relaxed);
        if contains(bytes, "XREAD") {
            self.marks.is_follower.store(true, Relaxed);
        }
        if let Some(owner) = (0..INSTANCES).find(|owner| contains(bytes, &format!("\"instance-{owner}\""))) {
            self.marks.owner.store(owner + 1, Relaxed);
        }
        if weather.freezes_at_ping && bytes == SQLX_PING && !self.marks.is_frozen.swap(true, Relaxed) {
            self.traffic.frozen_at_ping.fetch_add(1, Relaxed);
        }
        match weather.held_after {
            Some(text) if contains(bytes, text) => {
                self.has_asked.store(true, Relaxed);
                self.traffic.held_after.fetch_add(1, Relaxed);
            }
            Some(_) => {}
            None => self.has_asked.store(false, Relaxed),
        }
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

async fn connect(
    mut client: TcpStream,
    server: u16,
    traffic: Arc<Traffic>,
    mut forecast: watch::Receiver<Weather>,
) {
    let age = forecast.borrow().age();
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else {
        return drop(client.set_zero_linger());
    };
    for end in [&client, &server] {
        // Bytes that were held must not be delayed further by Nagle's algorithm.
        end.set_nodelay(true).unwrap();
    }
    let passage = Passage { age, traffic, marks: Arc::default(), has_asked: Arc::default() };
    let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
    let (there, back) = (passage.clone(), passage.clone());
    let to_server = carry(
        from_client,
        to_server,
        forecast.clone(),
        |bytes, weather| passage.look_at(bytes, weather),
        move |weather| there.is_held_to_server(weather),
    );
    let to_client = carry(
        from_server,
        to_client,
        forecast.clone(),
        |_, _| {},
        move |weather| back.is_held_to_client(weather),
    );
    let hung_up = tokio::select! {
        biased;
        _ = forecast.wait_for(|weather| passage.is_reset(weather)) => false,
        ended = async { tokio::try_join!(to_server, to_client) } => ended.is_ok(),
    };
    if !hung_up {
        for end in [&client, &server] {
            let _ = end.set_zero_linger();
        }
    }
}

/// Copies bytes from one end to the other, and finally the end of the stream.
async fn carry(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut forecast: watch::Receiver<Weather>,
    look_at: impl Fn(&[u8], &Weather),
    is_held: impl Fn(&Weather) -> bool,
) -> io::Result<()> {
    let (sender, mut under_way) = mpsc::channel(64);
    let weather = forecast.clone();
    let take = async move {
        let mut bytes = vec![0; 16_384];
        loop {
            let count = from.read(&mut bytes).await?;
            let now = *weather.borrow();
            look_at(&bytes[..count], &now);
            let due = Instant::now() + now.delay + now.jitter.mul_f64(fastrand::f64());
            if sender.send((due, bytes[..count].to_vec())).await.is_err() || count == 0 {
                return Ok(());
            }
        }
    };
    let hand_over = async move {
        while let Some((due, bytes)) = under_way.recv().await {
            time::sleep_until(due).await;
            let _ = forecast.wait_for(|weather| !is_held(weather)).await;
            if bytes.is_empty() {
                return to.shutdown().await;
            }
            to.write_all(&bytes).await?;
        }
        Ok(())
    };
    tokio::try_join!(take, hand_over).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn linked() -> (Link, TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let link = Link::to(listener.local_addr().unwrap().port()).await;
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port)).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (link, client, server)
    }

    async fn read(end: &mut TcpStream) -> io::Result<String> {
        let mut bytes = [0; 16];
        let count = end.read(&mut bytes).await?;
        Ok(String::from_utf8_lossy(&bytes[..count]).into_owned())
    }

    #[tokio::test]
    async fn held_bytes_arrive_when_healed_even_if_the_sender_has_disconnected() {
        let (link, mut client, mut server) = linked().await;
        link.set(|weather| weather.held_to_server = true);
        client.write_all(b"ping").await.unwrap();
        server.write_all(b"pong").await.unwrap();
        assert_eq!(read(&mut client).await.unwrap(), "pong", "the way back is open");
        drop(client);
        let moment = Duration::from_millis(50);
        assert!(time::timeout(moment, read(&mut server)).await.is_err(), "the way there is not");
        link.heal();
        assert_eq!(read(&mut server).await.unwrap(), "ping");
        assert_eq!(read(&mut server).await.unwrap(), "", "it has hung up");
    }

    #[tokio::test]
    async fn cut_link_resets_its_connections() {
        let (link, mut client, mut server) = linked().await;
        link.set(|weather| weather.cut = true);
        for end in [&mut client, &mut server] {
            assert_eq!(read(end).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
        let mut other = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port)).await.unwrap();
        assert_eq!(read(&mut other).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        link.heal();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, link.port)).await.is_ok());
    }

    #[tokio::test]
    async fn frozen_connection_delivers_nothing_while_new_ones_work() {
        let (link, mut client, mut server) = linked().await;
        client.write_all(b"ping").await.unwrap();
        assert_eq!(read(&mut server).await.unwrap(), "ping");
        link.freeze();
        link.heal();
        server.write_all(b"pong").await.unwrap();
        let moment = Duration::from_millis(50);
        assert!(time::timeout(moment, read(&mut client)).await.is_err());
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        link.retarget(other.local_addr().unwrap().port());
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port)).await.unwrap();
        let (mut server, _) = other.accept().await.unwrap();
        server.write_all(b"pong").await.unwrap();
        assert_eq!(read(&mut client).await.unwrap(), "pong");
    }

    #[tokio::test]
    async fn reset_of_followers_spares_command_connections() {
        let (link, mut client, mut server) = linked().await;
        client.write_all(b"GET").await.unwrap();
        assert_eq!(read(&mut server).await.unwrap(), "GET");
        link.reset_only(Which::Followers);
        server.write_all(b"1").await.unwrap();
        assert_eq!(read(&mut client).await.unwrap(), "1");
        client.write_all(b"XREAD").await.unwrap();
        assert_eq!(read(&mut server).await.unwrap(), "XREAD");
        link.reset_only(Which::Followers);
        assert_eq!(read(&mut client).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn response_is_held_after_the_matching_request() {
        let (link, mut client, mut server) = linked().await;
        link.set(|weather| weather.held_after = Some("BEGIN"));
        client.write_all(b"BEGIN").await.unwrap();
        assert_eq!(read(&mut server).await.unwrap(), "BEGIN");
        assert_eq!(link.held_after(), 1);
        server.write_all(b"ok").await.unwrap();
        let moment = Duration::from_millis(50);
        assert!(time::timeout(moment, read(&mut client)).await.is_err());
        link.heal();
        assert_eq!(read(&mut client).await.unwrap(), "ok");
    }

    #[tokio::test]
    async fn delay_is_added_to_the_latency() {
        let (link, mut client, mut server) = linked().await;
        let delay = Duration::from_millis(100);
        link.set(|weather| weather.delay = delay);
        let sent = Instant::now();
        client.write_all(b"ping").await.unwrap();
        assert_eq!(read(&mut server).await.unwrap(), "ping");
        assert!(sent.elapsed() >= delay);
    }
}
