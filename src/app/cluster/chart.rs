//! How long the last log-outs took. The scale is logarithmic and stays, so that nothing jumps when a
//! slow one comes.

use leptos::prelude::*;

use super::{
    scene::{KEPT, Past, Stage},
    words::millis,
};

/// Where the scale begins, and what is written beside it: pixels above that.
const LABELS: [(i32, &str); 5] = [(30, "1 ms"), (60, "10 ms"), (90, "100 ms"), (120, "1 s"), (150, "10 s")];
const TOP: i32 = 160;

#[component]
pub fn Chart(stage: Stage) -> impl IntoView {
    let count = Memo::new(move |_| stage.with(|scene| scene.past.last().map_or(0, |last| last.serial + 1)));
    let figures = Memo::new(move |_| stage.with(|scene| Figures::of(&scene.past)));
    let label = |(height, text): (i32, &'static str)| {
        let y = (TOP - height).to_string();
        let line = y.clone();
        view! {
            <line class="grid" x1="58" x2="100%" y1=line.clone() y2=line />
            <text class="scale" x="50" y=y>{text}</text>
        }
    };
    view! {
        <figure class="chart">
            <figcaption>"How long the last log-outs took"</figcaption>
            <svg role="img" aria-labelledby="chart-title chart-told">
                <title id="chart-title">"How long the last log-outs took, the newest on the right"</title>
                <desc id="chart-told">{move || figures.with(Figures::words)}</desc>
                {LABELS.map(label).into_iter().collect_view()}
                <line class="ground" x1="58" x2="100%" y1=TOP.to_string() y2=TOP.to_string() />
                <svg class="bars" x="60">
                    <g class="run" style:--count=move || count.get().to_string()>
                        <For
                            each=move || stage.with(|scene| scene.past.clone())
                            key=|past| past.serial
                            children=bar
                        />
                    </g>
                </svg>
            </svg>
            <dl class="figures-of">
                <div><dt>"Median"</dt><dd>{move || figures.with(|all| or_none(all.median))}</dd></div>
                <div><dt>"Slowest"</dt><dd>{move || figures.with(|all| or_none(all.slowest))}</dd></div>
                <div><dt>"Of the last"</dt><dd>{move || figures.with(|all| all.count)}</dd></div>
            </dl>
        </figure>
    }
}

fn bar(past: Past) -> impl IntoView {
    let height = height(past.revocation.elapsed_us);
    // Hollow: a lease had to run out.
    let class =
        if past.revocation.acknowledged == past.revocation.instances { "bar-of" } else { "bar-of hollow" };
    view! {
        <rect
            class=class
            style:--at=past.serial.to_string()
            y=(TOP - height).to_string()
            height=height.to_string()
        />
    }
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

/// Thirty pixels for each power of ten, from a tenth of a millisecond on: the logarithm in whole
/// numbers, because floating-point ones would weigh kilobytes.
fn height(us: u64) -> i32 {
    let us = us.clamp(100, 20_000_000);
    let power = us.ilog2();
    // 256 for each power of two, in between as the crow flies.
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
