//! The same in words and figures: for screen readers, and for whoever wants it exactly.

use leptos::prelude::*;

use super::{
    scene::{Node, Past, Stage},
    words::{confirmed, millis},
};
use crate::app::ago::ago;

#[component]
pub fn Servers(stage: Stage) -> impl IntoView {
    let nodes = Memo::new(move |_| stage.with(|scene| scene.present()));
    let row = move |key: String| {
        let node = Memo::new(move |before: Option<&Node>| {
            let now = stage.with(|scene| scene.node(&key).cloned());
            now.or_else(|| before.cloned()).unwrap_or_default()
        });
        view! {
            <tr>
                <th scope="row">
                    {move || node.with(|node| node.instance.name.clone())}
                    {move || {
                        let this = node.with(|node| node.instance.is_this);
                        this.then(|| view! { <span class="hint">" answers you"</span> })
                    }}
                </th>
                <td>{move || node.with(|node| node.standing.lease())}</td>
                <td>
                    <span class=move || {
                        format!("badge {}", node.with(|node| node.standing.class()))
                    }>{move || node.with(|node| node.standing.memory())}</span>
                </td>
                <td class="figure">{move || node.with(|node| node.instance.renewed_ms)} " ms ago"</td>
                <td class="figure">{move || node.with(|node| node.instance.sessions)}</td>
                <td><code>{move || node.with(positions)}</code></td>
            </tr>
        }
    };
    view! {
        <div class="table-frame servers" tabindex="0" role="group" aria-labelledby="running">
            <table>
                <caption id="running">"Running now"</caption>
                <thead>
                    <tr>
                        <th scope="col">"Server"</th>
                        <th scope="col">"Lease"</th>
                        <th scope="col">"Its memory"</th>
                        <th scope="col" class="figure">"Renewed"</th>
                        <th scope="col" class="figure">"Sessions"</th>
                        <th scope="col">"Has followed to"</th>
                    </tr>
                </thead>
                <tbody>
                    <For
                        each=move || nodes.with(|nodes| nodes.iter().map(|node| node.key.clone()).collect::<Vec<_>>())
                        key=String::clone
                        children=row
                    />
                </tbody>
            </table>
        </div>
    }
}

fn positions(node: &Node) -> String {
    match node.instance.positions.is_empty() {
        true => "alone".to_owned(),
        false => node.instance.positions.join(" "),
    }
}

#[component]
pub fn LogOuts(stage: Stage) -> impl IntoView {
    let now = Memo::new(move |_| stage.with(|scene| scene.now));
    let newest_first = move || stage.with(|scene| scene.past.iter().rev().cloned().collect::<Vec<_>>());
    let is_empty = Memo::new(move |_| stage.with(|scene| scene.past.is_empty()));
    let row = move |past: Past| {
        let at = past.revocation.at;
        view! {
            <tr>
                <td>{move || ago(now.get() - at)}</td>
                <th scope="row">{past.asked_of}</th>
                <td class="figure">{confirmed(&past.revocation)}</td>
                <td class="figure">{millis(past.revocation.elapsed_us)}</td>
            </tr>
        }
    };
    view! {
        <div class="table-frame log-outs" tabindex="0" role="group" aria-labelledby="ended">
            <table>
                <caption id="ended">"The last log-outs"</caption>
                <thead>
                    <tr>
                        <th scope="col">"When"</th>
                        <th scope="col">"Asked of"</th>
                        <th scope="col" class="figure">"Confirmed"</th>
                        <th scope="col" class="figure">"Took"</th>
                    </tr>
                </thead>
                <tbody>
                    <Show when=move || is_empty.get()>
                        <tr><td colspan="4" class="hint">"None since the servers were started."</td></tr>
                    </Show>
                    <For each=newest_first key=|past| past.serial children=row />
                </tbody>
            </table>
        </div>
    }
}
