//! The tables of the cluster page: the data of the diagram, for screen readers and for exact figures.

use leptos::prelude::*;

use super::{
    labels::{confirmed, millis, role},
    state::{Node, Stage, each, follow, say_of},
};
use crate::app::{components::TableFrame, relative_time::ago};

#[component]
pub fn Servers(stage: Stage) -> impl IntoView {
    view! {
        <TableFrame id="running" caption="Running now" class="servers as-cards">
                <thead role="rowgroup">
                    <tr role="row">
                        <th scope="col" role="columnheader">"Server"</th>
                        <th scope="col" role="columnheader">"Lease"</th>
                        <th scope="col" role="columnheader">"Checks tokens"</th>
                        <th scope="col" role="columnheader" class="figure">"Lease renewed"</th>
                        <th scope="col" role="columnheader" class="figure">"Sessions"</th>
                        <th scope="col" role="columnheader">"Events applied"</th>
                    </tr>
                </thead>
                <tbody role="rowgroup">
                    {each(stage, |scene| scene.present().iter().map(|node| node.key).collect(), server)}
                </tbody>
        </TableFrame>
    }
    .into_any()
}

fn server(stage: Stage, key: usize) -> AnyView {
    let node = follow(stage, key);
    view! {
        <tr role="row">
            <th scope="row" role="rowheader">
                {say_of(node, |node| node.instance.name.clone())}
                <span class="hint">
                    {say_of(
                        node,
                        |node| match role(&node.instance) {
                            "" => String::new(),
                            "you" => " serves this page".to_owned(),
                            role => format!(" {role}"),
                        },
                    )}
                </span>
            </th>
            <td role="cell" data-label="Lease">{say_of(node, |node| node.status.lease().to_owned())}</td>
            <td role="cell" data-label="Checks tokens">
                <span class=say_of(
                    node,
                    |node| format!("badge {}", node.status.class()),
                )>{say_of(node, |node| node.status.memory(node.instance.kind).to_owned())}</span>
            </td>
            <td role="cell" data-label="Lease renewed" class="figure">{say_of(node, |node| format!("{} ms ago", node.instance.renewed_ms))}</td>
            <td role="cell" data-label="Sessions" class="figure">{say_of(node, |node| node.instance.sessions.to_string())}</td>
            <td role="cell" data-label="Events applied"><code>{say_of(node, positions)}</code></td>
        </tr>
    }
    .into_any()
}

fn positions(node: &Node) -> String {
    match node.instance.positions.is_empty() {
        true => "none".to_owned(),
        false => node.instance.positions.join(" "),
    }
}

#[component]
pub fn LogOuts(stage: Stage) -> impl IntoView {
    let is_empty = Memo::new(move |_| stage.with(|scene| scene.past.is_empty()));
    view! {
        <TableFrame id="ended" caption="Recent revocations" class="log-outs">
                <thead>
                    <tr>
                        <th scope="col">"When"</th>
                        <th scope="col">"Server"</th>
                        <th scope="col" class="figure">"Confirmed"</th>
                        <th scope="col" class="figure">"Time"</th>
                    </tr>
                </thead>
                <tbody>
                    {each(stage, |scene| scene.past.iter().rev().map(|past| past.serial).collect(), log_out)}
                    {move || is_empty.get().then(none)}
                </tbody>
        </TableFrame>
    }
    .into_any()
}

fn none() -> impl IntoView {
    view! { <tr><td colspan="4" class="hint">"None since the servers started."</td></tr> }
}

fn log_out(stage: Stage, serial: usize) -> AnyView {
    let past = stage.with_untracked(|scene| scene.past(serial).cloned()).unwrap_or_default();
    let at = past.revocation.at;
    view! {
        <tr>
            <td>{Memo::new(move |_| ago(stage.with(|scene| scene.now) - at))}</td>
            <th scope="row">{past.asked_of}</th>
            <td class="figure">{confirmed(&past.revocation)}</td>
            <td class="figure">{millis(past.revocation.elapsed_us)}</td>
        </tr>
    }
    .into_any()
}
