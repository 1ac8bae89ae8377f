//! A chart of how long the last revocations took. The scale is logarithmic and fixed, so that nothing jumps
//! when a slow one is added.

use leptos::prelude::*;

use super::{
    labels::millis,
    state::{KEPT, Past, Scene, Stage, each, say},
};

/// The labels of the scale, with their height above its base in pixels.
const LABELS: [(i32, &str); 5] = [(30, "1 ms"), (60, "10 ms"), (90, "100 ms"), (120, "1 s"), (150, "10 s")];
const TOP: i32 = 160;

#[component]
pub fn Chart(stage: Stage) -> impl IntoView {
    let figure = |name: &'static str, tell: fn(&Scene) -> String| {
        view! { <div><dt>{name}</dt><dd>{say(stage, tell)}</dd></div> }.into_any()
    };
    view! {
        <figure class="chart">
            <figcaption>"How long recent revocations took"</figcaption>
            <svg role="img" aria-labelledby="chart-title chart-told">
                <title id="chart-title">"How long recent revocations took, the newest on the right"</title>
                <desc id="chart-told">{say(stage, |scene| Figures::of(&scene.past).words())}</desc>
                {LABELS.map(label).into_iter().collect_view()}
                <line class="ground" x1="58" x2="100%" y1="160" y2="160" />
                <svg class="bars" x="60">
                    <g class="run" style:--count=say(stage, count)>
                        {each(stage, |scene| scene.past.iter().map(|past| past.serial).collect(), bar)}
                    </g>
                </svg>
            </svg>
            <dl class="figures-of">
                {figure("Median", |scene| or_none(Figures::of(&scene.past).median))}
                {figure("Slowest", |scene| or_none(Figures::of(&scene.past).slowest))}
                {figure("Count", |scene| scene.past.len().to_string())}
            </dl>
        </figure>
    }
    .into_any()
}

fn count(scene: &Scene) -> String {
    scene.past.last().map_or(0, |last| last.serial + 1).to_string()
}

fn label((height, text): (i32, &'static str)) -> AnyView {
    let y = (TOP - height).to_string();
    view! {
        <line class="grid" x1="58" x2="100%" y1=y.clone() y2=y.clone() />
        <text class="scale" x="50" y=y>
            {text}
        </text>
    }
    .into_any()
}

fn bar(stage: Stage, serial: usize) -> AnyView {
    let past = stage.with_untracked(|scene| scene.past(serial).cloned()).unwrap_or_default();
    let height = height(past.revocation.elapsed_us);
    // Hollow: not every instance acknowledged, so a lease had to expire.
    let class =
        if past.revocation.acknowledged == past.revocation.instances { "bar-of" } else { "bar-of hollow" };
    view! {
        <rect
            class=class
            style:--at=serial.to_string()
            y=(TOP - height).to_string()
            height=height.to_string()
        />
    }
    .into_any()
}

#[derive(Clone, Default, PartialEq)]
struct Figures {
    count: usize,
    median: Option<u64>,
    slowest: Option<u64>,
}

impl Figures {
    fn of(past: &[Past]) -> Self {
        let mut took: Vec<u64> = past.iter().map(|past| past.revocation.elapsed_us).collect();
        took.sort_unstable();
        Self {
            count: took.len(),
            median: took.get(took.len().saturating_sub(1) / 2).copied(),
            slowest: took.last().copied(),
        }
    }

    fn words(&self) -> String {
        let (median, slowest) = (or_none(self.median), or_none(self.slowest));
        format!("Median {median}, slowest {slowest}, of the last {} (at most {KEPT}).", self.count)
    }
}

fn or_none(us: Option<u64>) -> String {
    us.map_or_else(|| "none yet".to_owned(), millis)
}

/// The height of a bar: thirty pixels for each power of ten above a tenth of a millisecond. The logarithm is
/// computed in integers, because floating-point functions would add kilobytes of wasm.
fn height(us: u64) -> i32 {
    let us = us.clamp(100, 20_000_000);
    let power = us.ilog2();
    // 256 for each power of two, with linear interpolation in between.
    let log = power * 256 + u32::try_from((us << 8 >> power) & 255).unwrap_or_default();
    i32::try_from((log.saturating_sub(1701)) * 30 / 850).unwrap_or_default().max(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::RecentRevocation;

    #[test]
    fn each_power_of_ten_is_as_high() {
        for (us, expected) in [(1, 2), (100, 2), (1000, 30), (10_000, 60), (100_000, 90), (1_000_000, 120)] {
            assert!((height(us) - expected).abs() <= 1, "{us}: {}", height(us));
        }
    }

    #[test]
    fn the_median_is_one_that_was_measured() {
        let past = |elapsed_us| Past {
            serial: 0,
            asked_of: String::new(),
            revocation: RecentRevocation { number: 0, at: 0, instances: 1, acknowledged: 1, elapsed_us },
        };
        assert!(Figures::of(&[]) == Figures::default());
        let figures = Figures::of(&[4, 1, 3, 2].map(past));
        assert_eq!((figures.count, figures.median, figures.slowest), (4, Some(2), Some(4)));
    }
}
