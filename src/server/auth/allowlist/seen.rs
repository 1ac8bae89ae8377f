//! The instances as there is to see of them: those in the register, and for a while those who have
//! dropped out of it without a word. Only looked at: who is waited for is for [`super::register`].

use std::{collections::HashMap, time::Duration};

use super::{
    lease::Uptime,
    register::{Peer, Peers},
};

/// How long one that has fallen silent is shown.
const REMEMBERED: Duration = Duration::from_secs(30);

/// Who leaves by itself has reported a moment before; who is dropped has been silent for a lease, by
/// the clock of whoever drops it.
const SILENT: Duration = Duration::from_millis(500);

#[derive(Default)]
pub struct Seen {
    peers: Peers,
    silent: HashMap<Vec<u8>, Peer>,
}

impl Seen {
    /// Takes over the register as it came in at `now`.
    pub fn observe(&mut self, peers: &Peers, now: Uptime) {
        for (id, peer) in self.peers.all() {
            if !peers.has(id) && peer.silence(now) >= SILENT {
                self.silent.insert(id.to_vec(), peer.clone());
            }
        }
        // One that was started again is another, of the same name.
        let is_back = |id: &[u8], gone: &Peer| {
            peers.has(id) || peers.all().any(|(_, peer)| peer.name().is_some() && peer.name() == gone.name())
        };
        self.silent.retain(|id, peer| !is_back(id, peer) && peer.silence(now) < REMEMBERED);
        self.peers.clone_from(peers);
    }

    /// Those in the register, as it came in last.
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// All that there is to see, by their ids.
    pub fn all(&self) -> impl Iterator<Item = (&[u8], &Peer)> {
        self.peers.all().chain(self.silent.iter().map(|(id, peer)| (id.as_slice(), peer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::auth::allowlist::{lease::LEASE, register::Report};

    fn peers(names: &[(&str, &str)], now: Uptime) -> Peers {
        let report = |name: &str| Report {
            name: name.to_owned(),
            position: "1-0".to_owned(),
            count: 1,
            partitions: 1,
            sessions: 0,
            revocations: Vec::new(),
        };
        let mut peers = Peers::default();
        let texts = names.iter().map(|(id, name)| {
            (id.as_bytes().to_vec(), serde_json::to_vec(&report(name)).unwrap_or_default())
        });
        peers.observe(texts.collect(), now);
        peers
    }

    fn seen(seen: &Seen) -> Vec<&str> {
        let mut ids: Vec<_> = seen.all().filter_map(|(id, _)| std::str::from_utf8(id).ok()).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn who_falls_silent_is_shown_for_a_while() {
        let (mut all, start) = (Seen::default(), Uptime::now());
        all.observe(&peers(&[("1", "a"), ("2", "b")], start), start);
        let dropped = start.plus(LEASE);
        all.observe(&peers(&[("1", "a")], dropped), dropped);
        assert_eq!(seen(&all), ["1", "2"]);
        let later = start.plus(REMEMBERED);
        all.observe(&peers(&[("1", "a")], later), later);
        assert_eq!(seen(&all), ["1"]);
    }

    #[test]
    fn who_comes_back_is_shown_once() {
        for (id, what) in [("2", "it went on"), ("3", "it was started again")] {
            let (mut all, start) = (Seen::default(), Uptime::now());
            all.observe(&peers(&[("1", "a"), ("2", "b")], start), start);
            let dropped = start.plus(LEASE);
            all.observe(&peers(&[("1", "a")], dropped), dropped);
            all.observe(&peers(&[("1", "a"), (id, "b")], dropped), dropped);
            assert_eq!(seen(&all), ["1", id], "{what}");
        }
    }

    #[test]
    fn who_leaves_is_gone_at_once() {
        let (mut all, start) = (Seen::default(), Uptime::now());
        all.observe(&peers(&[("1", "a"), ("2", "b")], start), start);
        let left = start.plus(LEASE / 5);
        all.observe(&peers(&[("1", "a")], left), left);
        assert_eq!(seen(&all), ["1"]);
    }
}
