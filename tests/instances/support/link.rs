//! A link between two processes that can be disturbed: a TCP proxy.

use std::{io, net::Ipv4Addr, time::Duration};

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

/// What a link does to the bytes that want to pass.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Connections are reset, new ones as well.
    pub cut: bool,
    /// Nothing gets to the server. It is not lost but held, as TCP does with a black hole on the
    /// way: when the hole closes it arrives, even if its sender has hung up since.
    pub held_to_server: bool,
    /// Nothing gets back from the server.
    pub held_to_client: bool,
    /// How much longer a byte is under way, in each direction.
    pub delay: Duration,
    /// How much longer still, at most: as it comes, for each connection by itself.
    pub jitter: Duration,
    /// A connection older than the last reset has ended.
    resets: u32,
}

/// A way to a server on this machine. Ends with its connections when dropped.
pub struct Link {
    pub port: u16,
    weather: watch::Sender<Weather>,
    listening: JoinHandle<()>,
}

impl Link {
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (weather, forecast) = watch::channel(Weather::default());
        let listening = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(connect(client, server, forecast.clone()));
            }
        });
        Self { port, weather, listening }
    }

    pub fn set(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }

    /// Resets every connection; new ones may come at once.
    pub fn reset(&self) {
        self.set(|weather| weather.resets += 1);
    }

    pub fn heal(&self) {
        self.set(|weather| *weather = Weather { resets: weather.resets, ..Weather::default() });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.listening.abort();
        self.set(|weather| weather.cut = true);
    }
}

async fn connect(mut client: TcpStream, server: u16, mut forecast: watch::Receiver<Weather>) {
    let resets = forecast.borrow().resets;
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else {
        return drop(client.set_zero_linger());
    };
    for end in [&client, &server] {
        // What has waited to be sent is not to wait for more.
        end.set_nodelay(true).unwrap();
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
    let to_server = carry(from_client, to_server, forecast.clone(), |weather| weather.held_to_server);
    let to_client = carry(from_server, to_client, forecast.clone(), |weather| weather.held_to_client);
    let hung_up = tokio::select! {
        biased;
        _ = forecast.wait_for(|weather| weather.cut || weather.resets != resets) => false,
        ended = async { tokio::try_join!(to_server, to_client) } => ended.is_ok(),
    };
    if !hung_up {
        for end in [&client, &server] {
            let _ = end.set_zero_linger();
        }
    }
}

/// Takes bytes from one end to the other, and at last the news that there will be no more.
async fn carry(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut forecast: watch::Receiver<Weather>,
    is_held: fn(&Weather) -> bool,
) -> io::Result<()> {
    let (sender, mut under_way) = mpsc::channel(64);
    let weather = forecast.clone();
    let take = async move {
        let mut bytes = vec![0; 16_384];
        loop {
            let count = from.read(&mut bytes).await?;
            let Weather { delay, jitter, .. } = *weather.borrow();
            let due = Instant::now() + delay + jitter.mul_f64(fastrand::f64());
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
    async fn what_a_black_hole_holds_arrives_when_it_closes_though_its_sender_is_gone() {
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
    async fn a_cut_link_resets_its_connections() {
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
    async fn a_delay_is_the_time_under_way() {
        let (link, mut client, mut server) = linked().await;
        let delay = Duration::from_millis(100);
        link.set(|weather| weather.delay = delay);
        let sent = Instant::now();
        client.write_all(b"ping").await.unwrap();
        assert_eq!(read(&mut server).await.unwrap(), "ping");
        assert!(sent.elapsed() >= delay);
    }
}
