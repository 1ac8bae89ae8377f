//! The state that the cluster page shows, built from the views that one instance sends twice a second.

use leptos::prelude::*;

use super::labels::LeaseStatus;
use crate::api::types::{ClusterView, InstanceView, RecentRevocation};

/// The number of past revocations that are kept.
pub const KEPT: usize = 40;

/// The number of revocations that may be animated at the same time. In a burst, more would add nothing.
const FLYING: usize = 8;

/// The age, in seconds, above which a revocation is not animated.
const RECENT: i64 = 3;

/// The data that the page draws. The parts of the page that show it are keyed, so that they stay.
#[derive(Default)]
pub struct Scene {
    pub is_shared: bool,
    /// The clock of the instance that sends the views, in Unix seconds.
    pub now: i64,
    /// The instances, including those that are fading out, in order of appearance.
    pub nodes: Vec<Node>,
    /// The past revocations, oldest first.
    pub past: Vec<Past>,
    /// The revocations whose animation is running.
    pub flights: Vec<Flight>,
    /// The last revocation that has arrived everywhere.
    pub arrived: Option<Past>,
}

/// An instance in the diagram.
#[derive(Clone, Default, PartialEq)]
pub struct Node {
    /// The identity of the node, unique among the nodes that are shown.
    pub key: usize,
    pub instance: InstanceView,
    pub status: LeaseStatus,
    pub is_leaving: bool,
    /// The index of the node among those that stay, and their number.
    pub place: (usize, usize),
}

/// A revocation that has been answered.
#[derive(Clone, Default, PartialEq)]
pub struct Past {
    /// The number of the revocation, counted by this page.
    pub serial: usize,
    pub asked_of: String,
    pub revocation: RecentRevocation,
}

/// The animation of a revocation, in slow motion.
#[derive(Clone, PartialEq)]
pub struct Flight {
    pub past: Past,
    /// The number of animations that started just before this one.
    pub after: usize,
    /// The keys of the nodes that receive the revocation.
    pub told: Vec<usize>,
}

impl Scene {
    /// Updates the scene with a view. The revocations of a replay happened while nothing was shown: they are
    /// added as past, without an animation.
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

    /// The revocations that are not known yet, oldest first.
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

    /// Assigns each instance to its node and place. Nodes of departed instances stay until they have faded
    /// out.
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
            // Two instances may have been given the same name.
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

    /// The nodes that receive revocations.
    fn told(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| !node.is_leaving && node.status == LeaseStatus::Leased)
    }

    pub fn node(&self, key: usize) -> Option<&Node> {
        self.nodes.iter().find(|node| node.key == key)
    }

    /// The nodes of the running instances, by name.
    pub fn present(&self) -> Vec<Node> {
        let mut nodes: Vec<Node> = self.nodes.iter().filter(|node| !node.is_leaving).cloned().collect();
        nodes.sort_by_key(|node| node.place.0);
        nodes
    }

    /// The number of nodes of running instances.
    pub fn count(&self) -> usize {
        self.nodes.iter().filter(|node| !node.is_leaving).count()
    }

    pub fn past(&self, serial: usize) -> Option<&Past> {
        self.past.iter().find(|past| past.serial == serial)
    }

    pub fn flight(&self, serial: usize) -> Option<&Flight> {
        self.flights.iter().find(|flight| flight.past.serial == serial)
    }

    /// Records that a revocation has arrived at all instances.
    pub fn arrive(&mut self, serial: usize) {
        if let Some(flight) = self.flight(serial) {
            self.arrived = Some(flight.past.clone());
        }
    }

    /// Removes the finished animation of a revocation.
    pub fn land(&mut self, serial: usize) {
        self.flights.retain(|flight| flight.past.serial != serial);
    }

    /// Removes the node of a departed instance that has faded out.
    pub fn forget(&mut self, key: usize) {
        self.nodes.retain(|node| !node.is_leaving || node.key != key);
    }

    /// A summary of the state of the cluster.
    pub fn words(&self) -> String {
        if self.nodes.is_empty() {
            return "Loading…".to_owned();
        }
        if !self.is_shared {
            return "Only one server is running. It checks every token in its own memory.".to_owned();
        }
        let mut lapsed = String::new();
        for node in self.present().iter().filter(|node| node.status == LeaseStatus::Lapsed) {
            let name = &node.instance.name;
            if node.instance.is_this {
                return format!(
                    "Server {name}, which serves this page, has no lease. Until it has one, it asks the database."
                );
            }
            if !lapsed.is_empty() {
                lapsed.push_str(", ");
            }
            lapsed.push_str(name);
        }
        match lapsed.is_empty() {
            true => "Every server holds a lease and checks tokens in its memory.".to_owned(),
            false if lapsed.contains(',') => {
                format!("Servers {lapsed} have no lease. Until they have one, they ask the database.")
            }
            false => format!("Server {lapsed} has no lease. Until it has one, it asks the database."),
        }
    }
}

/// The scene, shared by the parts of the page.
pub type Stage = RwSignal<Scene>;

// The page has many small parts that change. All of them are made by these four functions, so that the wasm
// contains the code that updates them once, and not once for each.

/// A text about the scene, updated with it.
pub fn say(stage: Stage, tell: fn(&Scene) -> String) -> Memo<String> {
    Memo::new(move |_| stage.with(tell))
}

/// A text about a node, updated with it.
pub fn say_of(node: Memo<Node>, tell: fn(&Node) -> String) -> Memo<String> {
    Memo::new(move |_| node.with(tell))
}

/// A node in its current state, or in its last one while it is being removed.
pub fn follow(stage: Stage, key: usize) -> Memo<Node> {
    Memo::new(move |before: Option<&Node>| {
        let now = stage.with(|scene| scene.node(key).cloned());
        now.or_else(|| before.cloned()).unwrap_or_default()
    })
}

/// One view for each key, which stays as long as its key.
pub fn each(stage: Stage, keys: fn(&Scene) -> Vec<usize>, draw: fn(Stage, usize) -> AnyView) -> AnyView {
    let keys = Memo::new(move |_| stage.with(keys));
    view! { <For each=move || keys.get() key=|key| *key children=move |key| draw(stage, key) /> }.into_any()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::MemberKind;

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
            kind: MemberKind::Instance,
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
