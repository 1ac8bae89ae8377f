//! The OpenAPI document as an HTML page, with the same texts, fields and examples.

use std::iter;

use leptos::prelude::*;
use serde_json::Value;

/// The content of the page, as HTML. The commands in it use `origin`.
pub fn html(description: &Value, origin: &str) -> String {
    let calls = calls(description);
    let contents = items(&description["tags"]).map(|tag| {
        let links = calls.iter().filter(|call| call.is_about(tag)).map(|call| {
            view! { <li><a href=format!("#{}", call.id())><code>{call.line()}</code></a></li> }
        });
        view! { <li>{words(&tag["description"])} <ul>{links.collect_view()}</ul></li> }
    });
    let sections = items(&description["tags"]).map(|tag| {
        let calls = calls.iter().filter(|call| call.is_about(tag)).map(|call| call.view(description));
        view! { <section><h2>{words(&tag["description"])}</h2> {calls.collect_view()}</section> }
    });
    // All calls refer to the same responses, so the first call is enough.
    let of_any_call =
        calls.first().map(|call| call.answers(|answer| answer["$ref"].is_string(), description));
    let schemas = fields(&description["components"]["schemas"]);
    let objects = schemas.filter(|(_, schema)| schema["properties"].is_object()).map(|(name, schema)| {
        view! {
            <article id=name.to_owned() class="card told">
                <h3><code>{name.to_owned()}</code></h3>
                <p>{words(&schema["description"])}</p>
                {field_table(description, schema)}
            </article>
        }
    });
    view! {
        <section>
            <h1>"The API"</h1>
            <p class="lead">{words(&description["info"]["description"])}</p>
            <p><a href="/openapi.json">"OpenAPI 3.1 document"</a> " for programs. The commands below use these variables:"</p>
            <pre class="code wrapped">{format!("B={origin}\nT=…   # an access token, from login")}</pre>
            <nav aria-label="Calls"><ul class="calls">{contents.collect_view()}</ul></nav>
        </section>
        {sections.collect_view()}
        <section>
            <h2>"Errors that any call may return"</h2>
            <div class="card told">{of_any_call.map(answer_table)}</div>
        </section>
        <section>
            <h2>"Data types"</h2>
            {objects.collect_view()}
        </section>
    }
    .to_html()
}

/// A call in the document.
struct Call<'a> {
    path: &'a str,
    method: &'a str,
    operation: &'a Value,
}

fn calls(description: &Value) -> Vec<Call<'_>> {
    let operations = fields(&description["paths"]).flat_map(|(path, item)| {
        fields(item).map(move |(method, operation)| Call { path, method, operation })
    });
    operations.collect()
}

impl<'a> Call<'a> {
    fn is_about(&self, tag: &Value) -> bool {
        self.operation["tags"][0] == tag["name"]
    }

    fn id(&self) -> String {
        text(&self.operation["operationId"]).to_owned()
    }

    fn line(&self) -> String {
        format!("{} {}", self.method.to_uppercase(), self.path)
    }

    fn view(&self, description: &Value) -> impl IntoView + use<> {
        let paragraphs = text(&self.operation["description"]).split("\n\n");
        let paragraphs = paragraphs.map(|paragraph| view! { <p>{marked(paragraph)}</p> });
        let schema = &self.request()["schema"];
        let takes = schema["properties"].is_object().then(|| field_table(description, schema));
        view! {
            <article id=self.id() class="card told">
                <h3><code>{self.line()}</code></h3>
                {paragraphs.collect_view()}
                {takes}
                <pre class="code wrapped">{self.curl(description)}</pre>
                {answer_table(self.answers(|answer| answer["$ref"].is_null(), description))}
            </article>
        }
    }

    fn request(&self) -> &'a Value {
        &self.operation["requestBody"]["content"]["application/json"]
    }

    /// The example as a shell command.
    fn curl(&self, description: &Value) -> String {
        let body = self.request();
        let mut parts = vec![match (self.method, body.is_null()) {
            ("post", true) => format!("curl -s -X POST \"$B{}\"", self.path),
            _ => format!("curl -s \"$B{}\"", self.path),
        }];
        let scheme = fields(&self.operation["security"][0]).next().map_or("", |(scheme, _)| scheme);
        let scheme = &description["components"]["securitySchemes"][scheme];
        if scheme["type"] == "http" {
            parts.push("-H \"Authorization: Bearer $T\"".into());
        } else if body.is_null() && scheme["in"] == "cookie" {
            parts.push(format!("-N -b \"{}=…\"   # from a browser", text(&scheme["name"])));
        }
        if !body.is_null() {
            parts.push("-H 'Content-Type: application/json'".into());
            parts.push(format!("-d '{}'", body["example"].to_string().replace('\'', r"'\''")));
        }
        parts.join(" \\\n  ")
    }

    /// The responses of the call that are `wanted`, one for each example.
    fn answers(&self, wanted: fn(&Value) -> bool, description: &Value) -> Vec<Answer> {
        let responses = fields(&self.operation["responses"]).filter(|(_, response)| wanted(response));
        responses.flat_map(|(status, response)| answers(status, resolved(description, response))).collect()
    }
}

/// A response of a call.
struct Answer {
    status: String,
    /// The code of an error, or else the name of the schema or the media type.
    kind: String,
    /// Whether the page has a section about this schema.
    is_described: bool,
    example: String,
}

fn answers(status: &str, response: &Value) -> Vec<Answer> {
    let (media_type, content) = fields(&response["content"]).next().unwrap_or(("no body", &Value::Null));
    let errors = fields(&content["examples"]).map(|(code, example)| Answer {
        status: status.to_owned(),
        kind: code.to_owned(),
        is_described: false,
        example: headers(response, code) + &pretty(&example["value"]),
    });
    let schema = text(&content["schema"]["$ref"]).rsplit('/').next().unwrap_or_default();
    let done = content["examples"].is_null().then(|| Answer {
        status: status.to_owned(),
        kind: if schema.is_empty() { media_type } else { schema }.to_owned(),
        is_described: !schema.is_empty(),
        example: content.get("example").map(pretty).unwrap_or_default(),
    });
    errors.chain(done).collect()
}

impl Answer {
    fn view(self) -> impl IntoView {
        let kind = view! { <code>{self.kind.clone()}</code> };
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

/// The headers of this error, as they are sent.
fn headers(response: &Value, code: &str) -> String {
    let headers = fields(&response["headers"]).filter_map(|(name, header)| {
        let value = header["examples"][code]["value"].as_str()?;
        Some(format!("{name}: {value}\n"))
    });
    headers.collect()
}

fn answer_table(answers: Vec<Answer>) -> impl IntoView {
    let rows = answers.into_iter().map(Answer::view).collect_view();
    table("Responses", ["Status", "Example"], rows)
}

fn field_table(description: &Value, schema: &Value) -> impl IntoView + use<> {
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
                <th scope="row"><code>{name.to_owned()}</code> <span class="hint">{kind}</span></th>
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

/// The target of a reference; other values are returned unchanged.
fn resolved<'a>(description: &'a Value, schema: &'a Value) -> &'a Value {
    let path = schema["$ref"].as_str().map(|path| path.trim_start_matches('#'));
    path.and_then(|path| description.pointer(path)).unwrap_or(schema)
}

fn words(value: &Value) -> impl IntoView + use<> {
    marked(text(value))
}

/// Renders the text in backticks as code.
fn marked(text: &str) -> impl IntoView + use<> {
    let parts = text.split('`').enumerate().map(|(index, part)| {
        let part = part.to_owned();
        if index % 2 == 1 { view! { <code>{part}</code> }.into_any() } else { part.into_any() }
    });
    parts.collect_view()
}

/// Formats text unchanged, and other JSON on several lines.
fn pretty(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn fields(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}
