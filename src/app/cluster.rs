//! The page of the servers: who is running, whether each may trust its memory, and how long the
//! last log-outs took.

use leptos::prelude::*;
use leptos_meta::Title;

use super::ago::ago;
use crate::{
    api::types::{ClusterView, InstanceView, RecentRevocation},
    client::live::LiveCluster,
};

/// How many of the last log-outs are shown.
const SHOWN: usize = 10;

#[component]
pub fn ClusterPage() -> impl IntoView {
    let live = LiveCluster::listen();
    let view = Signal::derive(move || live.view().unwrap_or_default());
    view! {
        <Title text="Servers" />
        <section class="card wide">
            <h1>"Servers"</h1>
            <p class="lead">
                "Each server checks tokens in its own memory. It may trust that memory for one second at a time, and a log-out is answered when every server knows of it, or has stopped trusting."
            </p>
            <div role="status">
                <Show when=move || !live.is_connected()>
                    <p class="note">"No news from the server. Trying again…"</p>
                </Show>
            </div>
            <Show
                when=move || live.view().is_some()
                fallback=|| view! { <p class="hint">"Asking the servers…"</p> }
            >
                <Instances view />
                <Revocations view />
            </Show>
        </section>
    }
}

#[component]
fn Instances(view: Signal<ClusterView>) -> impl IntoView {
    view! {
        <div class="table-frame" tabindex="0" role="group" aria-labelledby="running">
            <table>
                <caption id="running">"Running now"</caption>
                <thead>
                    <tr>
                        <th scope="col">"Server"</th>
                        <th scope="col">"Its memory"</th>
                        <th scope="col" class="figure">"Renewed"</th>
                        <th scope="col" class="figure">"Sessions"</th>
                        <th scope="col">"Has followed to"</th>
                    </tr>
                </thead>
                <tbody>{move || view.get().instances.into_iter().map(instance_row).collect_view()}</tbody>
            </table>
        </div>
    }
}

fn instance_row(instance: InstanceView) -> impl IntoView {
    let memory = if instance.is_leased {
        view! { <span class="badge good">"trusted"</span> }
    } else {
        view! { <span class="badge bad">"asks the database"</span> }
    };
    let positions =
        if instance.positions.is_empty() { "alone".to_owned() } else { instance.positions.join(" ") };
    let this = instance.is_this.then(|| view! { <span class="hint">" answers you"</span> });
    view! {
        <tr>
            <th scope="row">{instance.name} {this}</th>
            <td>{memory}</td>
            <td class="figure">{instance.renewed_ms} " ms ago"</td>
            <td class="figure">{instance.sessions}</td>
            <td><code>{positions}</code></td>
        </tr>
    }
}

#[component]
fn Revocations(view: Signal<ClusterView>) -> impl IntoView {
    let rows = move || {
        let view = view.get();
        let mut all: Vec<(String, RecentRevocation)> = Vec::new();
        for instance in view.instances {
            all.extend(instance.revocations.into_iter().map(|one| (instance.name.clone(), one)));
        }
        all.sort_by_key(|(_, revocation)| -revocation.at);
        all.truncate(SHOWN);
        if all.is_empty() {
            return view! { <tr><td colspan="4" class="hint">"None since the servers were started."</td></tr> }
                .into_any();
        }
        all.into_iter().map(|(name, one)| revocation_row(name, one, view.now)).collect_view().into_any()
    };
    view! {
        <div class="table-frame" tabindex="0" role="group" aria-labelledby="ended">
            <table>
                <caption id="ended">"The last log-outs"</caption>
                <thead>
                    <tr>
                        <th scope="col">"When"</th>
                        <th scope="col">"Asked of"</th>
                        <th scope="col" class="figure">"Confirmed by"</th>
                        <th scope="col" class="figure">"Took"</th>
                    </tr>
                </thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
    }
}

fn revocation_row(asked_of: String, revocation: RecentRevocation, now: i64) -> impl IntoView {
    let took = format!("{}.{} ms", revocation.elapsed_us / 1000, revocation.elapsed_us % 1000 / 100);
    let confirmed = format!("{} of {}", revocation.acknowledged, revocation.instances);
    view! {
        <tr>
            <td>{ago(now - revocation.at)}</td>
            <th scope="row">{asked_of}</th>
            <td class="figure">{confirmed}</td>
            <td class="figure">{took}</td>
        </tr>
    }
}
