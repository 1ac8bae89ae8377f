//! The open streams of events, and their limits. Each stream occupies a connection for as long as its client
//! wants.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use futures::FutureExt;
use ipnet::IpNet;
use tokio::sync::oneshot;

use crate::{api::error::ApiError, server::ids::SessionId};

/// The maximum number of streams of a session: more than a user has windows. One more ends the oldest, whose
/// client may be gone.
const PER_SESSION: usize = 16;

/// The upper bound of the streams from one address: a large office has many visible pages.
const MOST_PER_ADDRESS: usize = 1024;

/// The seconds after which a client may try again whose address has too many streams.
const RETRY_AFTER: u64 = 60;

/// The open streams, and the limits on their number.
pub struct Streams {
    open: Mutex<Open>,
    per_address: usize,
    in_all: usize,
}

#[derive(Default)]
struct Open {
    sessions: HashMap<SessionId, VecDeque<Stream>>,
    addresses: HashMap<IpNet, usize>,
    count: usize,
    last_number: u64,
}

struct Stream {
    number: u64,
    address: IpNet,
    /// Dropping this ends the stream.
    _end: oneshot::Sender<()>,
}

/// The place of an open stream. Dropping it frees the place.
pub struct Place {
    streams: Arc<Streams>,
    session_id: SessionId,
    number: u64,
}

impl Streams {
    /// The limits for a process that may have `open_files` files open: half of them are left for other
    /// requests, and one address gets at most half of the others.
    pub fn new(open_files: usize) -> Self {
        let in_all = open_files / 2;
        let per_address = (in_all / 2).clamp(PER_SESSION, MOST_PER_ADDRESS);
        Self { open: Mutex::default(), per_address, in_all }
    }

    /// Opens a stream of the session. Returns its place, and a future that resolves when the stream has to
    /// end.
    ///
    /// # Errors
    /// [`ApiError::TooManyRequests`] if the address has too many streams, [`ApiError::Unavailable`] if the
    /// process has.
    pub fn open(
        self: &Arc<Self>,
        session_id: SessionId,
        address: IpNet,
    ) -> Result<(Place, impl Future<Output = ()> + Send + use<>), ApiError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.sessions.get(&session_id).is_some_and(|streams| streams.len() >= PER_SESSION) {
            open.close(session_id, |_| true);
        }
        if open.addresses.get(&address).is_some_and(|count| *count >= self.per_address) {
            return Err(ApiError::TooManyRequests(RETRY_AFTER));
        }
        if open.count >= self.in_all {
            return Err(ApiError::Unavailable);
        }
        let (end, ended) = oneshot::channel();
        open.last_number += 1;
        open.count += 1;
        let number = open.last_number;
        *open.addresses.entry(address).or_default() += 1;
        open.sessions.entry(session_id).or_default().push_back(Stream { number, address, _end: end });
        Ok((Place { streams: Arc::clone(self), session_id, number }, ended.map(drop)))
    }
}

impl Open {
    /// Ends the first stream of the session for which `is_meant` holds.
    fn close(&mut self, session_id: SessionId, is_meant: impl Fn(&Stream) -> bool) {
        let Some(streams) = self.sessions.get_mut(&session_id) else { return };
        let Some(place) = streams.iter().position(is_meant) else { return };
        let closed = streams.remove(place);
        if streams.is_empty() {
            self.sessions.remove(&session_id);
        }
        self.count -= 1;
        if let Some(Stream { address, .. }) = closed
            && let Some(count) = self.addresses.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&address);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.close(self.session_id, |stream| stream.number == self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpNet {
        format!("192.0.2.{last}/32").parse().unwrap()
    }

    fn is_empty(streams: &Streams) -> bool {
        let open = streams.open.lock().unwrap();
        open.sessions.is_empty() && open.addresses.is_empty() && open.count == 0
    }

    #[test]
    fn oldest_stream_of_a_session_gives_way() {
        let streams = Arc::new(Streams::new(1024));
        let session_id = SessionId::random();
        let (_other, other_end) = streams.open(SessionId::random(), address(1)).unwrap();
        let mut all: VecDeque<_> = (0..PER_SESSION)
            .map(|_| streams.open(session_id, address(1)).unwrap())
            .map(|(place, end)| (place, Box::pin(end)))
            .collect();
        for _ in 0..100 {
            assert!(all.iter_mut().all(|(_, end)| end.now_or_never().is_none()));
            let (place, end) = streams.open(session_id, address(2)).unwrap();
            all.push_back((place, Box::pin(end)));
            let (oldest, mut end) = all.pop_front().unwrap();
            assert!((&mut end).now_or_never().is_some());
            // Its place is free already, and is not freed twice.
            drop(oldest);
        }
        assert_eq!(streams.open.lock().unwrap().count, PER_SESSION + 1);
        assert!(other_end.now_or_never().is_none());
    }

    #[test]
    fn streams_of_an_address_and_of_all_are_bounded() {
        let streams = Arc::new(Streams::new(1024));
        let mut places = Vec::new();
        let mut fill = |last| {
            let mut count = 0;
            loop {
                match streams.open(SessionId::random(), address(last)) {
                    Ok((place, _)) => places.push(place),
                    Err(error) => return (count, error),
                }
                count += 1;
            }
        };
        assert_eq!(fill(1), (256, ApiError::TooManyRequests(RETRY_AFTER)));
        assert_eq!(fill(2), (256, ApiError::TooManyRequests(RETRY_AFTER)));
        assert_eq!(fill(3), (0, ApiError::Unavailable));
        places.pop();
        let last = streams.open(SessionId::random(), address(3)).unwrap();
        assert!(streams.open(SessionId::random(), address(3)).is_err());
        drop(last);
        places.clear();
        assert!(is_empty(&streams));
    }

    #[test]
    fn office_has_many_streams_where_there_may_be_many() {
        assert_eq!(Streams::new(1_000_000).per_address, MOST_PER_ADDRESS);
    }
}
