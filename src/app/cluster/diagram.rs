//! A diagram of the instances around Redis, with each revocation animated once, in slow motion.
//!
//! The style sheet computes all positions, from the direction of each instance and their number. So the same
//! drawing is a ring where there is room and a list where there is not, and animations need no script.

use leptos::prelude::*;

use super::{
    labels::{LeaseStatus, confirmed, millis, role},
    state::{Node, Scene, Stage, each, follow, say, say_of},
};
use crate::api::types::{MemberKind, RecentRevocation};

/// The longest name in the diagram. Longer names are cut in the middle; the table has them whole.
const NAME: usize = 16;

/// The longest name next to which there is room for "you" or "guard".
const NAME_BESIDE_A_ROLE: usize = 12;

#[component]
pub fn Picture(stage: Stage) -> impl IntoView {
    view! {
        <svg
            class=say(stage, |scene| if scene.is_shared { "picture" } else { "picture alone" }.to_owned())
            role="img"
            aria-labelledby="picture-title picture-told"
            style:--n=say(stage, |scene| scene.count().to_string())
            style:--high=say(stage, |scene| reach(scene.count(), -1))
            style:--low=say(stage, |scene| reach(scene.count(), 1))
        >
            <title id="picture-title">"The servers and their leases"</title>
            <desc id="picture-told">{say(stage, tell)}</desc>
            <g class="wires">{each(stage, keys, wire)}</g>
            {each(stage, |scene| scene.flights.iter().map(|flight| flight.past.serial).collect(), fly)}
            // Redis, with the figures of the last revocation.
            <g class="bus">
                <rect class="box" rx="14" />
                <text class="name" y="-14">"Redis"</text>
                <text class="figures" y="9">{say(stage, |scene| arrived(scene, confirmed))}</text>
                <text class="figures" y="28">
                    {say(stage, |scene| arrived(scene, |one| format!("in {}", millis(one.elapsed_us))))}
                </text>
            </g>
            {each(stage, keys, server)}
        </svg>
    }
    .into_any()
}

fn keys(scene: &Scene) -> Vec<usize> {
    scene.nodes.iter().map(|node| node.key).collect()
}

fn tell(scene: &Scene) -> String {
    let mut told = String::new();
    for Node { instance, status, .. } in scene.present() {
        let kind = match instance.kind {
            MemberKind::Instance => "",
            MemberKind::Gate => ", a gate",
            MemberKind::Guard => ", a guard",
        };
        told += &format!("{}{kind}: {}, {}. ", instance.name, status.lease(), status.memory(instance.kind));
    }
    told
}

fn arrived(scene: &Scene, tell: fn(&RecentRevocation) -> String) -> String {
    scene.arrived.as_ref().map(|past| tell(&past.revocation)).unwrap_or_default()
}

fn wire(stage: Stage, key: usize) -> AnyView {
    let node = follow(stage, key);
    view! {
        <g
            class=say_of(node, |node| class("place", node))
            style:--x=say_of(node, |node| direction(node.place).0.to_string())
            style:--y=say_of(node, |node| direction(node.place).1.to_string())
            style:--i=say_of(node, |node| node.place.0.to_string())
        >
            <line class="wire" x2="1" y2="1" />
        </g>
    }
    .into_any()
}

fn server(stage: Stage, key: usize) -> AnyView {
    let node = follow(stage, key);
    view! {
        <g
            class=say_of(node, |node| class("place node", node))
            style:--x=say_of(node, |node| direction(node.place).0.to_string())
            style:--y=say_of(node, |node| direction(node.place).1.to_string())
            style:--i=say_of(node, |node| node.place.0.to_string())
            on:animationend=move |_| stage.update(|scene| scene.forget(key))
        >
            <rect class="box" rx="14" />
            <g class="words">
                <text class="name" y="26">{say_of(node, name)}</text>
                <text class="you" y="26">
                    {say_of(node, |node| role(&node.instance).to_owned())}
                </text>
                // A check, an exclamation or a question mark, so that the states can be distinguished without
                // color.
                <circle class="sign" cx="7" cy="43" r="7" />
                <path class="mark" d=say_of(node, |node| mark(node.status).to_owned()) />
                <text class="lease" x="20" y="47.5">{say_of(node, |node| node.status.lease().to_owned())}</text>
                <text class="memory" y="67">{say_of(node, memory)}</text>
            </g>
        </g>
    }
    .into_any()
}

fn class(kind: &str, node: &Node) -> String {
    format!("{kind} {}{}", node.status.class(), if node.is_leaving { " leaving" } else { "" })
}

fn name(Node { instance, .. }: &Node) -> String {
    shorten(&instance.name, if role(instance).is_empty() { NAME } else { NAME_BESIDE_A_ROLE })
}

fn memory(node: &Node) -> String {
    match node.status {
        LeaseStatus::Leased if node.instance.sessions == 1 => "1 session".to_owned(),
        LeaseStatus::Leased => format!("{} sessions", node.instance.sessions),
        status => status.memory(node.instance.kind).to_owned(),
    }
}

/// The animation of a revocation: from the instance that was asked to Redis, and from there to all instances.
fn fly(stage: Stage, serial: usize) -> AnyView {
    let mut legs = Vec::new();
    let mut after = 0;
    stage.with_untracked(|scene| {
        let Some(flight) = scene.flight(serial) else { return };
        after = flight.after;
        let asker = scene.nodes.iter().find(|node| node.instance.name == flight.past.asked_of);
        legs.extend(asker.map(|node| leg("place ask", node.place)));
        for key in &flight.told {
            legs.extend(scene.node(*key).map(|node| leg("place tell", node.place)));
        }
    });
    view! {
        <g class="flight" style:--after=after.to_string()>
            {legs}
            // The last element to move, which ends the animation.
            <rect
                class="landing"
                rx="18"
                on:animationstart=move |_| stage.update(|scene| scene.arrive(serial))
                on:animationend=move |_| stage.update(|scene| scene.land(serial))
            />
        </g>
    }
    .into_any()
}

fn leg(class: &'static str, place: (usize, usize)) -> AnyView {
    let (x, y) = direction(place);
    view! {
        <g class=class style:--x=x.to_string() style:--y=y.to_string() style:--i=place.0.to_string()>
            <line class="trace" x2="1" y2="1" />
            <circle class="pulse" r="6" />
            <rect class="echo" rx="18" />
        </g>
    }
    .into_any()
}

fn shorten(name: &str, longest: usize) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= longest {
        return name.to_owned();
    }
    let (head, tail) = (&letters[..longest / 2 - 1], &letters[letters.len() - longest / 2..]);
    head.iter().chain(&['…']).chain(tail).collect()
}

fn mark(status: LeaseStatus) -> &'static str {
    match status {
        LeaseStatus::Leased => "m3.8 43.2 2.3 2.3 4.2-4.6",
        LeaseStatus::Lapsed => "M7 39v4.6M7 46.6v.4",
        LeaseStatus::Unknown => "M5 41.2a2 2 0 1 1 3 1.8q-1 .6-1 1.4M7 46.8v.3",
    }
}

/// The direction of an instance from the center: to the right and downwards, in thousandths.
fn direction((index, count): (usize, usize)) -> (isize, isize) {
    // Two are side by side; otherwise the first is on top.
    let start = if count == 2 { 180 } else { 270 };
    let angle = start + (index * 360 / count.max(1)).cast_signed();
    (sine(angle + 90), sine(angle))
}

/// How far up or down the instances reach, so that the drawing is no higher than necessary.
fn reach(count: usize, sign: isize) -> String {
    let furthest = (0..count).map(|index| sign * direction((index, count)).1).max();
    furthest.unwrap_or_default().to_string()
}

/// The sine of whole degrees, in thousandths: Bhaskara's approximation, accurate to three of them.
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
        assert_eq!(shorten("hallpass-0", NAME), "hallpass-0");
        let long = "ip-10-0-1-23.eu-west-1.internal:3000";
        assert_eq!(shorten(long, NAME), "ip-10-0…nal:3000");
        assert_eq!(shorten(long, NAME_BESIDE_A_ROLE), "ip-10…l:3000");
    }
}
