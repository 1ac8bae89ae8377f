//! The cluster page: the running instances, whether each has a lease, and each revocation as it reaches them.
//! A diagram, and the same data in tables.

use leptos::prelude::*;
use leptos_meta::Title;

use self::{
    chart::Chart,
    diagram::Picture,
    state::{Scene, Stage},
    tables::{LogOuts, Servers},
};
use super::nav::NeedsScripts;
use crate::client::sse::LiveCluster;

mod chart;
mod diagram;
mod labels;
mod state;
mod tables;

#[component]
pub fn ClusterPage() -> impl IntoView {
    let stage: Stage = RwSignal::new(Scene::default());
    let live = LiveCluster::listen(move |view, is_first| {
        // A hidden page animates nothing: all animations would start at once when it is shown.
        let is_replay = is_first || document().hidden();
        stage.try_update(|scene| scene.see(view, is_replay));
    });
    let is_told = Memo::new(move |_| stage.with(|scene| !scene.nodes.is_empty()));
    let words = Memo::new(move |_| match live.is_connected() {
        true => stage.with(Scene::words),
        false => "No answer from the server. Trying again…".to_owned(),
    });
    view! {
        <Title text="Servers" />
        <section class="card full cluster" class:stale=move || !live.is_connected()>
            <h1>"Servers"</h1>
            <NeedsScripts />
            <p class="lead">
                "A server checks tokens in its own memory while it holds a lease: a permission for one second, which it keeps renewing. Without one, it asks the database. A sign-out is confirmed once every server has applied it or lost its lease."
            </p>
            <p role="status" class="note standing">{words}</p>
            <Show when=move || is_told.get()>
                <div class="frame"><Picture stage /></div>
                <p class="hint">"A revocation ends sessions, as a sign-out does. The Redis box shows how many servers confirmed the last one."</p>
                <div class="beside">
                    <Chart stage />
                    <LogOuts stage />
                </div>
                <Servers stage />
            </Show>
        </section>
    }
}
