//! The servers around what is between them, and each log-out on its way: once, slowly.
//!
//! Where things are is for the style sheet: it is told each server's direction, and how many there
//! are. So the same drawing is a ring where there is room and a list where there is not, and what
//! moves does so without a line of script.

use leptos::prelude::*;

use super::{
    scene::{Flight, Node, Past, Stage},
    words::{Standing, confirmed, millis},
};

/// Longer names are cut in the middle; the table has them whole.
const NAME: usize = 16;

#[component]
pub fn Picture(stage: Stage) -> impl IntoView {
    let count = Memo::new(move |_| stage.with(|scene| scene.count()));
    // How far up and down they reach, so that the drawing is no higher than they need.
    let reach = move |sign: isize| {
        move || {
            let count = count.get();
            let highest = (0..count).map(|index| sign * direction((index, count)).1).max();
            highest.unwrap_or_default().to_string()
        }
    };
    let is_shared = Memo::new(move |_| stage.with(|scene| scene.is_shared));
    let keys =
        move || stage.with(|scene| scene.nodes.iter().map(|node| node.key.clone()).collect::<Vec<_>>());
    let told = move || {
        let scene = stage.read();
        let tell = |node: Node| {
            let Node { instance, standing, .. } = node;
            format!("{}: {}, {}. ", instance.name, standing.lease(), standing.memory())
        };
        scene.present().into_iter().map(tell).collect::<String>()
    };
    view! {
        <svg
            class="picture"
            class:alone=move || !is_shared.get()
            role="img"
            aria-labelledby="picture-title picture-told"
            style:--n=move || count.get().to_string()
            style:--high=reach(-1)
            style:--low=reach(1)
        >
            <title id="picture-title">"The servers, and what they share"</title>
            <desc id="picture-told">{told}</desc>
            <g class="wires">
                <For each=keys key=String::clone children=move |key| wire(stage, key) />
            </g>
            <For
                each=move || stage.with(|scene| scene.flights.clone())
                key=|flight| flight.past.serial
                children=move |flight| fly(stage, flight)
            />
            <Show when=move || is_shared.get()>
                <Bus stage />
            </Show>
            <For each=keys key=String::clone children=move |key| server(stage, key) />
        </svg>
    }
}

/// What is between the servers, and what it has carried last.
#[component]
fn Bus(stage: Stage) -> impl IntoView {
    let arrived = Memo::new(move |_| stage.with(|scene| scene.arrived.clone()));
    let text = move |tell: fn(&Past) -> String| move || arrived.with(|past| past.as_ref().map(tell));
    view! {
        <g class="bus">
            <rect class="box" rx="14" />
            <text class="name" y="-14">"Redis"</text>
            <text class="figures" y="9">{text(|past| confirmed(&past.revocation))}</text>
            <text class="figures" y="28">{text(|past| format!("in {}", millis(past.revocation.elapsed_us)))}</text>
        </g>
    }
}

fn wire(stage: Stage, key: String) -> impl IntoView {
    let node = follow(stage, key);
    view! {
        <g class=move || node.with(|node| format!("place {} {}", node.standing.class(), leaving(node)))
            style:--x=at(node, |node| direction(node.place).0)
            style:--y=at(node, |node| direction(node.place).1)
            style:--i=at(node, |node| node.place.0.cast_signed())
        >
            <line class="wire" x2="1" y2="1" />
        </g>
    }
}

fn server(stage: Stage, key: String) -> impl IntoView {
    let node = follow(stage, key.clone());
    let name = node.with_untracked(|node| node.instance.name.clone());
    let standing = Memo::new(move |_| node.with(|node| node.standing));
    let second = move || match standing.get() {
        Standing::Leased => node.with(|node| format!("{} sessions", node.instance.sessions)),
        Standing::Lapsed | Standing::Unknown => standing.get().memory().to_owned(),
    };
    let gone = move |_| stage.update(|scene| scene.forget(&key));
    view! {
        <g
            class=move || node.with(|node| format!("place node {} {}", node.standing.class(), leaving(node)))
            on:animationend=gone
            style:--x=at(node, |node| direction(node.place).0)
            style:--y=at(node, |node| direction(node.place).1)
            style:--i=at(node, |node| node.place.0.cast_signed())
        >
            <rect class="box" rx="14" />
            <g class="words">
                <text class="name" y="26">{shorten(&name)}</text>
                <text class="you" y="26">{move || node.with(|node| node.instance.is_this).then_some("you")}</text>
                // A tick, an exclamation mark, a question mark: told apart without their colours, too.
                <circle class="sign" cx="7" cy="43" r="7" />
                <path class="mark" d=move || mark(standing.get()) />
                <text class="lease" x="20" y="47.5">{move || standing.get().lease()}</text>
                <text class="memory" y="67">{second}</text>
            </g>
        </g>
    }
}

/// From the one that was asked to what is between them, and from there to everyone.
fn fly(stage: Stage, flight: Flight) -> impl IntoView {
    let serial = flight.past.serial;
    let legs = stage.with_untracked(|scene| {
        let asker = scene.nodes.iter().find(|node| node.instance.name == flight.past.asked_of);
        let asking = asker.map(|node| (node.place, "place ask"));
        let told =
            flight.told.iter().filter_map(|key| scene.node(key)).map(|node| (node.place, "place tell"));
        asking.into_iter().chain(told).collect::<Vec<_>>()
    });
    let leg = |(place, class): ((usize, usize), &'static str)| {
        let (x, y) = direction(place);
        view! {
            <g class=class style:--x=x.to_string() style:--y=y.to_string() style:--i=place.0.to_string()>
                <line class="trace" x2="1" y2="1" />
                <circle class="pulse" r="6" />
                <rect class="echo" rx="18" />
            </g>
        }
    };
    view! {
        <g class="flight" style:--after=flight.after.to_string()>
            {legs.into_iter().map(leg).collect_view()}
            // The last to move: with it the flight ends.
            <rect
                class="landing"
                rx="18"
                on:animationstart=move |_| stage.update(|scene| scene.arrive(serial))
                on:animationend=move |_| stage.update(|scene| scene.land(serial))
            />
        </g>
    }
}

/// The node as it is now; as it was last, while it is being taken away.
fn follow(stage: Stage, key: String) -> Memo<Node> {
    let first = stage.with_untracked(|scene| scene.node(&key).cloned());
    Memo::new(move |before: Option<&Node>| {
        let now = stage.with(|scene| scene.node(&key).cloned());
        now.or_else(|| before.cloned()).or_else(|| first.clone()).unwrap_or_default()
    })
}

/// A number of the node's, for the style sheet.
fn at(node: Memo<Node>, number: fn(&Node) -> isize) -> impl Fn() -> String + Clone {
    move || node.with(number).to_string()
}

fn leaving(node: &Node) -> &'static str {
    if node.is_leaving { "leaving" } else { "" }
}

fn shorten(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= NAME {
        return name.to_owned();
    }
    let (head, tail) = (&letters[..NAME / 2 - 1], &letters[letters.len() - NAME / 2..]);
    head.iter().chain(&['…']).chain(tail).collect()
}

fn mark(standing: Standing) -> &'static str {
    match standing {
        Standing::Leased => "m3.8 43.2 2.3 2.3 4.2-4.6",
        Standing::Lapsed => "M7 39v4.6M7 46.6v.4",
        Standing::Unknown => "M5 41.2a2 2 0 1 1 3 1.8q-1 .6-1 1.4M7 46.8v.3",
    }
}

/// Where a server is, seen from the middle: to the right and downwards, of a thousand.
fn direction((index, count): (usize, usize)) -> (isize, isize) {
    // Two are side by side; else the first is on top.
    let start = if count == 2 { 180 } else { 270 };
    let angle = start + (index * 360 / count.max(1)).cast_signed();
    (sine(angle + 90), sine(angle))
}

/// Of whole degrees, in thousandths: Bhaskara's, within two of them.
fn sine(degrees: isize) -> isize {
    let angle = degrees.rem_euclid(360);
    let half = angle % 180;
    let product = half * (180 - half);
    let value = 4000 * product / (40_500 - product);
    if angle < 180 { value } else { -value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sine_is_one() {
        for degrees in -720..720 {
            let right = (degrees as f64).to_radians().sin() * 1000.0;
            assert!((sine(degrees) as f64 - right).abs() < 3.0, "{degrees}: {}", sine(degrees));
        }
    }

    #[test]
    fn long_names_keep_both_of_their_ends() {
        assert_eq!(shorten("hallpass-0"), "hallpass-0");
        assert_eq!(shorten("ip-10-0-1-23.eu-west-1.internal:3000"), "ip-10-0…nal:3000");
    }
}
