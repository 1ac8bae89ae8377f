//! Short facts about one item of a list.

use leptos::prelude::*;

/// The facts, one after the other, with a dot between those that are on the same line. Empty ones are left
/// out.
#[component]
pub fn Facts(facts: Vec<String>) -> impl IntoView {
    let facts = facts.into_iter().filter(|fact| !fact.is_empty());
    let facts = facts.map(|fact| view! { <span>{fact}</span> " " });
    view! { <p class="hint facts">{facts.collect_view()}</p> }
}
