//! The OpenAPI document as an HTML page, with the same texts, fields and examples. It works without scripts: the
//! browser opens the call that a link leads to. The script opens it in browsers that do not, and adds buttons that copy
//! commands.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_STANDARD};
use leptos::prelude::*;
use serde_json::Value;

use self::{
    call::{Call, calls},
    json::{fields, items, text},
    parts::{answer_table, breakable, field_table, folded, words},
};

mod call;
mod json;
mod parts;

const SCRIPT: &str = include_str!("page.js");

/// The place in the page where the address of the site belongs.
const ORIGIN: &str = "{origin}";

/// The page about the API, without the frame that all pages have.
pub struct Reference {
    html: String,
    /// The content security policy, which lets the script run.
    pub policy: String,
}

impl Reference {
    pub fn of(description: &Value) -> Self {
        let html = format!("{}<script>{SCRIPT}</script>", html(description));
        let hash = BASE64_STANDARD.encode(digest(&SHA256, SCRIPT.as_bytes()));
        // The page makes no connections; `connect-src` is for audit tools, which fetch robots.txt from within it.
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{hash}'; style-src 'self'; img-src 'self'; connect-src 'self'; \
             base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        );
        Self { html, policy }
    }

    /// The page as HTML, whose commands use this address.
    pub fn html(&self, origin: String) -> String {
        self.html.replace(ORIGIN, &origin.to_html())
    }
}

fn html(description: &Value) -> String {
    let calls = calls(description);
    let calls_about = |tag| calls.iter().filter(move |call: &&Call<'_>| call.is_about(tag));
    let contents = items(&description["tags"]).map(|tag| {
        let links = calls_about(tag).map(|call| {
            view! { <li><a href=format!("#{}", call.id())><code>{breakable(call.path)}</code></a></li> }
        });
        view! { <li>{words(&tag["description"])} <ul>{links.collect_view()}</ul></li> }
    });
    let sections = items(&description["tags"]).map(|tag| {
        let calls = calls_about(tag).map(|call| call.view(description));
        view! { <section><h2>{words(&tag["description"])}</h2> {calls.collect_view()}</section> }
    });
    // All calls refer to the same responses, so the first call is enough.
    let of_any_call = calls.first().map(|call| answer_table(call.shared_answers(description)));
    let schemas = fields(&description["components"]["schemas"]);
    let objects = schemas.filter(|(_, schema)| schema["properties"].is_object()).map(|(name, schema)| {
        let about = text(&schema["description"]).split(['.', ':']).next().unwrap_or_default();
        let content = view! { <p>{words(&schema["description"])}</p> {field_table(description, schema)} };
        folded(name, name, about, content.into_any())
    });
    let errors = folded("errors", "Every call", "They are the same for all of them.", of_any_call.into_any());
    view! {
        <div class="reference">
            <section>
                <h1>"The API"</h1>
                <p class="lead">{words(&description["info"]["description"])}</p>
                <p><a href="/openapi.json">"OpenAPI 3.1 document"</a> " for programs. The commands below use these variables:"</p>
                <div class="copyable">
                    <pre class="code wrapped">{format!("B={ORIGIN}\nT=…   # an access token, from login")}</pre>
                </div>
            </section>
            <nav id="calls" aria-label="Calls">
                <ul class="calls">
                    {contents.collect_view()}
                    <li><a href="#errors">"Errors that any call may return"</a></li>
                    <li><a href="#types">"Data types"</a></li>
                </ul>
            </nav>
            <div>
                {sections.collect_view()}
                <section>
                    <h2>"Errors that any call may return"</h2>
                    {errors}
                </section>
                <section>
                    <h2 id="types">"Data types"</h2>
                    {objects.collect_view()}
                </section>
            </div>
        </div>
    }
    .to_html()
}
