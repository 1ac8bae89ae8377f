//! Short facts about one item of a list.

use leptos::prelude::*;

/// A short text about an item.
pub enum Fact {
    /// Left out if it is empty.
    Text(String),
    /// A text about a time.
    At {
        text: String,
        /// The time in full, for those who point at the text.
        date: String,
    },
}

impl From<String> for Fact {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// The facts, one after the other, with a dot between those that are on the same line.
#[component]
pub fn Facts(facts: Vec<Fact>) -> impl IntoView {
    let facts = facts.into_iter().filter_map(|fact| match fact {
        Fact::Text(text) if text.is_empty() => None,
        Fact::Text(text) => Some(view! { <span>{text}</span> " " }.into_any()),
        Fact::At { text, date } => Some(view! { <span title=date>{text}</span> " " }.into_any()),
    });
    view! { <p class="hint facts">{facts.collect_view()}</p> }
}
