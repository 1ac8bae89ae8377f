//! What there is to see of the servers, made of what one of them tells twice a second.

use leptos::prelude::*;

use super::labels::LeaseStatus;
use crate::api::types::{ClusterView, InstanceView, RecentRevocation};

/// How many of the last log-outs are kept.
pub const KEPT: usize = 40;

/// How many may be on their way at the same time. Of a flood, that many are enough to see.
const FLYING: usize = 8;

/// A log-out that is older, in seconds, is nothing to point at.
const RECENT: i64 = 3;

/// Everything that is drawn. The parts of the page that show it are keyed, so that they stay.
#[derive(Default)]
pub struct Scene {
    pub is_shared: bool,
    /// The clock of the server that tells.
    pub now: i64,
    /// By name; those that are about to be gone, too.
    pub nodes: Vec<Node>,
    /// The oldest first.
    pub past: Vec<Past>,
    /// Those of them that are being shown on their way.
    pub flights: Vec<Flight>,
    /// The last one that has arrived.
    pub arrived: Option<Past>,
}

/// A server in the picture.
#[derive(Clone, Default, PartialEq)]
pub struct Node {
    /// Its own for as long as the page is looked at.
    pub key: usize,
    pub instance: InstanceView,
    pub status: LeaseStatus,
    pub is_leaving: bool,
    /// Its index among those that stay, and how many those are.
    pub place: (usize, usize),
}

/// A log-out that has been answered.
#[derive(Clone, Default, PartialEq)]
pub struct Past {
    /// Counted by this page.
    pub serial: usize,
    pub asked_of: String,
    pub revocation: RecentRevocation,
}

/// A log-out on its way, once more, slowly.
#[derive(Clone, PartialEq)]
pub struct Flight {
    pub past: Past,
    /// How many set off just before it.
    pub after: usize,
    /// Those who are told, by their keys.
    pub told: Vec<usize>,
}

impl Scene {
    /// Takes in what a server has told. A replay is about what has happened meanwhile: it is shown as
    /// past.
    pub fn see(&mut self, mut view: ClusterView, is_replay: bool) {
        (self.is_shared, self.now) = (view.is_shared, view.now);
        let news = self.news(&mut view);
        self.place(view.instances);
        let told: Vec<usize> = self.told().map(|node| node.key).collect();
        let mut after = 0;
        for (asked_of, revocation) in news {
            let serial = self.past.last().map_or(0, |last| last.serial + 1);
            let past = Past { serial, asked_of, revocation };
            let is_fresh = self.now - past.revocation.at <= RECENT;
            if !is_replay && is_fresh && self.flights.len() < FLYING {
                self.flights.push(Flight { past: past.clone(), after, told: told.clone() });
                after += 1;
            } else if self.flights.is_empty() {
                self.arrived = Some(past.clone());
            }
            self.past.push(past);
        }
        let surplus = self.past.len().saturating_sub(KEPT);
        self.past.drain(..surplus);
    }

    /// The log-outs that were not known yet, the oldest first.
    fn news(&self, view: &mut ClusterView) -> Vec<(String, RecentRevocation)> {
        let mut news: Vec<(String, RecentRevocation)> = Vec::new();
        for instance in &mut view.instances {
            for revocation in std::mem::take(&mut instance.revocations).into_iter().rev() {
                let is_known = |past: &Past| past.asked_of == instance.name && past.revocation == revocation;
                if !self.past.iter().any(is_known) {
                    let later = news.iter().rposition(|(_, before)| before.at <= revocation.at);
                    news.insert(later.map_or(0, |index| index + 1), (instance.name.clone(), revocation));
                }
            }
        }
        news
    }

    /// Puts the servers where they belong; those that are gone stay until they have faded.
    fn place(&mut self, instances: Vec<InstanceView>) {
        let is_telling_known = instances.iter().any(|instance| instance.is_this && instance.is_leased);
        for node in &mut self.nodes {
            node.is_leaving = true;
        }
        let count = instances.len();
        for (index, instance) in instances.into_iter().enumerate() {
            let status = match instance.is_leased {
                true => LeaseStatus::Leased,
                false if instance.is_this || is_telling_known => LeaseStatus::Lapsed,
                false => LeaseStatus::Unknown,
            };
            let place = (index, count);
            // Two may have the same name, if their operator has not looked.
            let known =
                self.nodes.iter_mut().find(|node| node.is_leaving && node.instance.name == instance.name);
            match known {
                Some(node) => *node = Node { key: node.key, instance, status, is_leaving: false, place },
                None => {
                    let key = self.nodes.iter().map(|node| node.key + 1).max().unwrap_or_default();
                    self.nodes.push(Node { key, instance, status, is_leaving: false, place });
                }
            }
        }
    }

    /// Those that hear of log-outs.
    fn told(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| !node.is_leaving && node.status == LeaseStatus::Leased)
    }

    pub fn node(&self, key: usize) -> Option<&Node> {
        self.nodes.iter().find(|node| node.key == key)
    }

    /// Those that are there, by name.
    pub fn present(&self) -> Vec<Node> {
        let mut nodes: Vec<Node> = self.nodes.iter().filter(|node| !node.is_leaving).cloned().collect();
        nodes.sort_by_key(|node| node.place.0);
        nodes
    }

    /// How many are there.
    pub fn count(&self) -> usize {
        self.nodes.iter().filter(|node| !node.is_leaving).count()
    }

    pub fn past(&self, serial: usize) -> Option<&Past> {
        self.past.iter().find(|past| past.serial == serial)
    }

    pub fn flight(&self, serial: usize) -> Option<&Flight> {
        self.flights.iter().find(|flight| flight.past.serial == serial)
    }

    /// The log-out has reached everyone.
    pub fn arrive(&mut self, serial: usize) {
        if let Some(flight) = self.flight(serial) {
            self.arrived = Some(flight.past.clone());
        }
    }

    /// There is no more to see of it.
    pub fn land(&mut self, serial: usize) {
        self.flights.retain(|flight| flight.past.serial != serial);
    }

    /// A server that is gone has faded.
    pub fn forget(&mut self, key: usize) {
        self.nodes.retain(|node| !node.is_leaving || node.key != key);
    }

    /// How things are, in a sentence.
    pub fn words(&self) -> String {
        if self.nodes.is_empty() {
            return "Asking the servers…".to_owned();
        }
        if !self.is_shared {
            return "One server, alone: there is nobody to be told.".to_owned();
        }
        let mut lapsed = String::new();
        for node in self.present().iter().filter(|node| node.status == LeaseStatus::Lapsed) {
            let name = &node.instance.name;
            if node.instance.is_this {
                return format!(
                    "{name}, which answers you, hears of nobody: it asks the database at each request."
                );
            }
            if !lapsed.is_empty() {
                lapsed.push_str(", ");
            }
            lapsed.push_str(name);
        }
        match lapsed.is_empty() {
            true => "Every server is in lease: it trusts its memory, and asks nobody.".to_owned(),
            false => {
                format!("Without a lease: {lapsed}. Until it has all the news again it asks the database.")
            }
        }
    }
}

/// The scene, as the parts of the page share it.
pub type Stage = RwSignal<Scene>;

// The page has many small parts that change. All of them are made by these four, so that the browser
// loads the code that keeps them up to date once, and not once for each.

/// Something about the scene, written or counted.
pub fn say(stage: Stage, tell: fn(&Scene) -> String) -> Memo<String> {
    Memo::new(move |_| stage.with(tell))
}

/// Something about a server.
pub fn say_of(node: Memo<Node>, tell: fn(&Node) -> String) -> Memo<String> {
    Memo::new(move |_| node.with(tell))
}

/// A server as it is now; as it was last, while it is being taken away.
pub fn follow(stage: Stage, key: usize) -> Memo<Node> {
    Memo::new(move |before: Option<&Node>| {
        let now = stage.with(|scene| scene.node(key).cloned());
        now.or_else(|| before.cloned()).unwrap_or_default()
    })
}

/// One drawing for each key, which stays for as long as there is the key.
pub fn each(stage: Stage, keys: fn(&Scene) -> Vec<usize>, draw: fn(Stage, usize) -> AnyView) -> AnyView {
    let keys = Memo::new(move |_| stage.with(keys));
    view! { <For each=move || keys.get() key=|key| *key children=move |key| draw(stage, key) /> }.into_any()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str, is_leased: bool, numbers: &[u64]) -> InstanceView {
        let revocations = numbers.iter().rev().map(|number| RecentRevocation {
            number: *number,
            at: 100,
            instances: 2,
            acknowledged: 2,
            elapsed_us: 1234,
        });
        InstanceView {
            name: name.to_owned(),
            is_this: name == "a",
            is_leased,
            renewed_ms: 0,
            positions: Vec::new(),
            sessions: 0,
            revocations: revocations.collect(),
        }
    }

    fn see(scene: &mut Scene, instances: Vec<InstanceView>, is_replay: bool) {
        scene.see(ClusterView { is_shared: true, now: 101, instances }, is_replay);
    }

    fn flying(scene: &Scene) -> Vec<(&str, u64)> {
        let flights = scene.flights.iter();
        flights.map(|flight| (flight.past.asked_of.as_str(), flight.past.revocation.number)).collect()
    }

    fn named<'a>(scene: &'a Scene, name: &str) -> Option<&'a Node> {
        scene.nodes.iter().find(|node| node.instance.name == name)
    }

    #[test]
    fn only_what_happens_while_one_looks_is_shown_on_its_way() {
        let mut scene = Scene::default();
        see(&mut scene, vec![instance("a", true, &[1, 2]), instance("b", true, &[1])], true);
        assert_eq!((flying(&scene), scene.past.len()), (vec![], 3));
        assert!(scene.arrived.is_some());
        see(&mut scene, vec![instance("a", true, &[1, 2, 3, 4]), instance("b", true, &[1, 2])], false);
        assert_eq!(flying(&scene), [("a", 3), ("a", 4), ("b", 2)], "several in a second");
        see(&mut scene, vec![instance("a", true, &[1, 2, 3, 4]), instance("b", true, &[1, 2])], false);
        assert_eq!(flying(&scene).len(), 3, "each once");
        see(&mut scene, vec![instance("a", true, &[4, 5])], true);
        assert_eq!((flying(&scene).len(), scene.past.len()), (3, 7), "the first view of a new connection");
    }

    #[test]
    fn a_flood_is_kept_within_bounds() {
        let mut scene = Scene::default();
        for number in 0..100 {
            see(&mut scene, vec![instance("a", true, &[number])], false);
        }
        assert_eq!((scene.past.len(), scene.flights.len()), (KEPT, FLYING));
        assert_eq!(scene.past.last().map(|past| past.serial), Some(99));
    }

    #[test]
    fn a_server_keeps_its_node_and_fades_when_it_is_gone() {
        let mut scene = Scene::default();
        see(&mut scene, vec![instance("a", true, &[]), instance("b", true, &[])], true);
        see(&mut scene, vec![instance("b", true, &[])], false);
        assert!(named(&scene, "a").is_some_and(|node| node.is_leaving));
        assert_eq!(named(&scene, "b").map(|node| node.place), Some((0, 1)));
        scene.forget(1);
        scene.forget(0);
        assert!(named(&scene, "a").is_none() && named(&scene, "b").is_some());
    }

    #[test]
    fn namesakes_are_two() {
        let mut scene = Scene::default();
        for _ in 0..2 {
            see(&mut scene, vec![instance("b", true, &[]), instance("b", false, &[])], false);
        }
        assert_eq!(scene.nodes.len(), 2);
    }

    #[test]
    fn who_hears_of_nobody_cannot_tell_of_the_others() {
        let mut scene = Scene::default();
        see(&mut scene, vec![instance("a", true, &[]), instance("b", false, &[])], false);
        assert!(named(&scene, "b").is_some_and(|node| node.status == LeaseStatus::Lapsed));
        see(&mut scene, vec![instance("a", false, &[]), instance("b", false, &[])], false);
        assert!(named(&scene, "a").is_some_and(|node| node.status == LeaseStatus::Lapsed));
        assert!(named(&scene, "b").is_some_and(|node| node.status == LeaseStatus::Unknown));
    }
}
