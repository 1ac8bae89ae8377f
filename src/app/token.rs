//! Views of an access token: encoded, decoded, and the answer to a call with it.

use leptos::prelude::*;

use super::components::{CodeBlock, CopyButton};
use crate::client::token::{Answer, HeldToken, Responder, Statement, time_of_day};

/// The token as it is sent.
#[component]
pub fn EncodedToken(#[prop(into)] token: Signal<Option<HeldToken>>) -> impl IntoView {
    let parts = Memo::new(move |_| token.get().map(|token| token.parts().encoded).unwrap_or_default());
    let part = move |number: usize| move || parts.with(|parts| parts[number].clone());
    view! {
        <div class="code-block">
            <p class="jwt" tabindex="0" role="group" aria-label="The token as it is sent">
                <span class="jwt-header">{part(0)}</span>
                "."
                <span class="jwt-claims">{part(1)}</span>
                "."
                <span class="jwt-signature">{part(2)}</span>
            </p>
            <CopyButton text=Signal::derive(move || parts.get().join(".")) what="the token" />
        </div>
    }
}

/// The decoded parts of the token.
#[component]
pub fn DecodedToken(#[prop(into)] token: Signal<Option<HeldToken>>) -> impl IntoView {
    let parts = Memo::new(move |_| token.get().map(|token| token.parts()).unwrap_or_default());
    view! {
        <h2>"What it says"</h2>
        <h3 class="jwt-header">"Header"</h3>
        <Statements statements=Signal::derive(move || parts.get().header) />
        <h3 class="jwt-claims">"Claims"</h3>
        <Statements statements=Signal::derive(move || parts.get().claims) />
        <h3 class="jwt-signature">"Signature"</h3>
        <p class="hint">
            "Computed from the other two parts with a key that only the servers have. A server can check the signature without asking anyone, but it does not show whether you have signed out since."
        </p>
    }
}

#[component]
fn Statements(statements: Signal<Vec<Statement>>) -> impl IntoView {
    let rows = move || {
        let row = |Statement { name, value }: Statement| {
            let meaning = meaning(&name);
            let when = matches!(&*name, "iat" | "exp").then(|| value.parse().map(time_of_day).ok()).flatten();
            let hint = [Some(meaning.to_owned()), when].into_iter().flatten().collect::<Vec<_>>().join(" ");
            view! {
                <dt><code>{name}</code></dt>
                <dd><code>{value}</code> <span class="hint">{hint}</span></dd>
            }
        };
        statements.get().into_iter().map(row).collect_view()
    };
    view! { <dl class="claims">{rows}</dl> }
}

/// The meaning of a header parameter (RFC 7515, 4.1) or a claim (RFC 7519, 4.1; RFC 9068, 2.2).
fn meaning(name: &str) -> &'static str {
    match name {
        "alg" => "How it is signed.",
        "typ" => "What it is: an access token (RFC 9068).",
        "kid" => "Which key signed it.",
        "iss" => "Who issued it.",
        "aud" => "Which service it is for.",
        "sub" => "Your user id.",
        "sid" => "The session it belongs to. Signing out ends that session.",
        "jti" => "The token's id, on the list of live tokens in every server's memory.",
        "email" => "Your e-mail address.",
        "role" => "What you may do.",
        "iat" => "Issued at",
        "exp" => "Expires at",
        _ => "",
    }
}

/// A call that was made with the token, and its answer.
#[component]
pub fn Exchange(token: HeldToken, answer: Answer) -> impl IntoView {
    let start: String = token.parts().encoded[0].chars().take(12).collect();
    let Answer { request_line, status, responder, challenge, body, elapsed_ms } = answer;
    let request = format!("{request_line}\nAuthorization: Bearer {start}…");
    let challenge = if challenge.is_empty() { challenge } else { format!("WWW-Authenticate: {challenge}\n") };
    let text = format!("{status} {}\n{challenge}\n{body}", reason(status));
    let origin = match responder {
        // An answer of a proxy names no server.
        Responder::Server(name) if name.is_empty() => String::new(),
        Responder::Server(name) => format!("from server {name} "),
        Responder::Notes => "from notes, another service, ".to_owned(),
    };
    view! {
        <p class="answer">
            <Status status />
            " "
            <span class="hint">{format!("{origin}in {}", milliseconds(elapsed_ms))}</span>
        </p>
        <details>
            <summary>"Request and response"</summary>
            <CodeBlock label="Request" text=request />
            <CodeBlock label="Response" text=text />
        </details>
    }
}

/// An HTTP status. `good` is the status to expect: 200 for the owner's token, 401 for a copy of a dead one.
#[component]
pub fn Status(status: u16, #[prop(default = 200)] good: u16) -> impl IntoView {
    let class = if status == good { "badge good" } else { "badge bad" };
    view! { <span class=class>{status} " " <span class="reason">{reason(status)}</span></span> }
}

/// The reason phrase of the status (RFC 9110, 15).
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        401 => "Unauthorized",
        503 => "Service Unavailable",
        _ => "",
    }
}

pub fn milliseconds(elapsed_ms: u32) -> String {
    if elapsed_ms == 0 { "< 1 ms".into() } else { format!("{elapsed_ms} ms") }
}

/// A countdown in minutes and seconds.
pub fn minutes(seconds: u32) -> String {
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}
