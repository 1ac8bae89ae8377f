//! The parts that the page is made of: folded sections, tables of fields and of responses, and texts.

use std::iter;

use leptos::prelude::*;
use serde_json::Value;

use super::json::{fields, items, resolved, text};

/// A section that is closed at first. Its address is inside it, because browsers open what contains the target of a link.
pub fn folded(id: &str, name: &str, about: &str, content: AnyView) -> impl IntoView + use<> {
    view! {
        <details class="card told">
            <summary>
                <h3><code>{breakable(name)}</code></h3>
                <span class="hint">{marked(about)}</span>
            </summary>
            <div id=id.to_owned()>
                {content}
                <p><a href="#calls">"Back to the list"</a></p>
            </div>
        </details>
    }
}

/// A response of a call.
pub struct Answer {
    pub status: String,
    /// The code of an error, or else the name of the schema or the media type.
    pub kind: String,
    /// Whether the page has a section about this schema.
    pub is_described: bool,
    pub example: String,
}

impl Answer {
    fn view(self) -> impl IntoView {
        let kind = view! { <code>{breakable(&self.kind)}</code> };
        let kind = match self.is_described {
            true => view! { <a href=format!("#{}", self.kind)>{kind}</a> }.into_any(),
            false => kind.into_any(),
        };
        view! {
            <tr>
                <th scope="row">{self.status} " " {kind}</th>
                <td><pre class="wrapped">{self.example}</pre></td>
            </tr>
        }
    }
}

pub fn answer_table(answers: Vec<Answer>) -> impl IntoView {
    let rows = answers.into_iter().map(Answer::view).collect_view();
    table("Responses", ["Status", "Example"], rows)
}

pub fn field_table(description: &Value, schema: &Value) -> impl IntoView + use<> {
    let rows = fields(&schema["properties"]).map(|(name, field)| {
        let is_needed = items(&schema["required"]).any(|one| one == name);
        let kind = type_words(description, field) + if is_needed { "" } else { ", optional" };
        // The description of an optional field may be that of one of its alternatives.
        let sources = iter::once(field).chain(items(&field["oneOf"]));
        let sources = sources.chain(iter::once(resolved(description, field)));
        let about = sources.map(|source| &source["description"]).find(|about| about.is_string());
        let about = about.unwrap_or(&Value::Null);
        view! {
            <tr>
                <th scope="row"><code>{breakable(name)}</code> <span class="hint">{kind}</span></th>
                <td>{words(about)}</td>
            </tr>
        }
    });
    table("Fields", ["Name and type", "Description"], rows.collect_view())
}

fn table(caption: &'static str, columns: [&'static str; 2], rows: impl IntoView) -> impl IntoView {
    let columns = columns.map(|column| view! { <th scope="col">{column}</th> });
    view! {
        <table>
            <caption>{caption}</caption>
            <thead><tr>{columns.collect_view()}</tr></thead>
            <tbody>{rows}</tbody>
        </table>
    }
}

/// The type of a field in words: `string`, `"cookie" or "body"`, `list of SessionInfo`.
fn type_words(description: &Value, schema: &Value) -> String {
    if let Some(path) = schema["$ref"].as_str() {
        let target = resolved(description, schema);
        return match target["properties"].is_object() {
            true => path.rsplit('/').next().unwrap_or_default().to_owned(),
            false => type_words(description, target),
        };
    }
    match (&schema["enum"], &schema["oneOf"], &schema["type"]) {
        (Value::Array(values), ..) => {
            let values: Vec<_> = values.iter().map(Value::to_string).collect();
            values.join(" or ")
        }
        (_, Value::Array(schemas), _) => {
            let words: Vec<_> = schemas.iter().map(|schema| type_words(description, schema)).collect();
            words.join(" or ")
        }
        (.., Value::Array(types)) => types.iter().map(text).collect::<Vec<_>>().join(" or "),
        (.., kind) if kind == "array" => format!("list of {}", type_words(description, &schema["items"])),
        _ if schema["properties"].is_object() => {
            let fields = fields(&schema["properties"]);
            let fields: Vec<_> =
                fields.map(|(name, field)| format!("{name}: {}", type_words(description, field))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        (.., kind) => text(kind).to_owned(),
    }
}

pub fn words(value: &Value) -> impl IntoView + use<> {
    marked(text(value))
}

/// Renders the text in backticks as code.
pub fn marked(text: &str) -> impl IntoView + use<> {
    let parts = text.split('`').enumerate().map(|(index, part)| {
        let part = part.to_owned();
        if index % 2 == 1 { view! { <code>{part}</code> }.into_any() } else { part.into_any() }
    });
    parts.collect_view()
}

/// An identifier that lines break only between its words.
pub fn breakable(identifier: &str) -> impl IntoView + use<> {
    let words = identifier.split_inclusive(['/', '_']).map(|word| view! { {word.to_owned()} <wbr /> });
    words.collect_view()
}
