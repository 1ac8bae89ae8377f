//! One call on the page: its fields, its example as a command, and its responses.

use leptos::prelude::*;
use serde_json::Value;

use super::{
    json::{fields, pretty, resolved, text},
    parts::{Answer, answer_table, field_table, folded, marked},
};

/// A call in the document.
pub struct Call<'a> {
    pub path: &'a str,
    method: &'a str,
    operation: &'a Value,
}

pub fn calls(description: &Value) -> Vec<Call<'_>> {
    let operations = fields(&description["paths"]).flat_map(|(path, item)| {
        fields(item).map(move |(method, operation)| Call { path, method, operation })
    });
    operations.collect()
}

impl<'a> Call<'a> {
    pub fn is_about(&self, tag: &Value) -> bool {
        self.operation["tags"][0] == tag["name"]
    }

    pub fn id(&self) -> &'a str {
        text(&self.operation["operationId"])
    }

    pub fn view(&self, description: &Value) -> impl IntoView + use<> {
        let paragraphs = text(&self.operation["description"]).split("\n\n");
        let paragraphs = paragraphs.map(|paragraph| view! { <p>{marked(paragraph)}</p> });
        let schema = &self.request()["schema"];
        let takes = schema["properties"].is_object().then(|| field_table(description, schema));
        let own_answers = self.answers(|answer| answer["$ref"].is_null(), description);
        let content = view! {
            {paragraphs.collect_view()}
            {takes}
            <div class="copyable"><pre class="code wrapped">{self.curl(description)}</pre></div>
            {answer_table(own_answers)}
        };
        let line = format!("{} {}", self.method.to_uppercase(), self.path);
        folded(self.id(), &line, text(&self.operation["summary"]), content.into_any())
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

    /// The responses that this call has in common with others, one for each example.
    pub fn shared_answers(&self, description: &Value) -> Vec<Answer> {
        self.answers(|answer| answer["$ref"].is_string(), description)
    }

    /// The responses of the call that are `wanted`, one for each example.
    fn answers(&self, wanted: fn(&Value) -> bool, description: &Value) -> Vec<Answer> {
        let responses = fields(&self.operation["responses"]).filter(|(_, response)| wanted(response));
        responses.flat_map(|(status, response)| answers(status, response, description)).collect()
    }
}

fn answers(status: &str, response: &Value, description: &Value) -> Vec<Answer> {
    let response = resolved(description, response);
    let (media_type, content) = fields(&response["content"]).next().unwrap_or(("no body", &Value::Null));
    let errors = fields(&content["examples"]).map(|(code, example)| Answer {
        status: status.to_owned(),
        kind: code.to_owned(),
        is_described: false,
        example: headers(response, code) + &pretty(&example["value"]),
    });
    let schema = text(&content["schema"]["$ref"]).rsplit('/').next().unwrap_or_default();
    let is_described = resolved(description, &content["schema"])["properties"].is_object();
    let done = content["examples"].is_null().then(|| Answer {
        status: status.to_owned(),
        kind: if is_described { schema } else { media_type }.to_owned(),
        is_described,
        example: content.get("example").map(pretty).unwrap_or_default(),
    });
    errors.chain(done).collect()
}

/// The headers of this error, as they are sent.
fn headers(response: &Value, code: &str) -> String {
    let headers = fields(&response["headers"]).filter_map(|(name, header)| {
        let value = header["examples"][code]["value"].as_str()?;
        Some(format!("{name}: {value}\n"))
    });
    headers.collect()
}
