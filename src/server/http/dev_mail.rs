//! The page `/dev/mail`, for development: the mails that are files because there is no mail server. Their links
//! open accounts, so it is there only if a setting says so, and for browsers on this machine.

use std::path::Path;

use axum::http::{HeaderMap, HeaderName, header};
use leptos::prelude::*;
use mail_parser::MessageParser;

use crate::server::{mail::folder, origin::Host};

pub const PATH: &str = "/dev/mail";

/// Whether the request comes from this machine, as far as it shows: a proxy adds one of these headers, and a foreign
/// name that resolves to this machine is in `Host`.
pub fn is_local(headers: &HeaderMap) -> bool {
    let added_by_proxies = [
        header::FORWARDED,
        header::VIA,
        HeaderName::from_static("x-forwarded-for"),
        HeaderName::from_static("x-forwarded-host"),
        HeaderName::from_static("x-forwarded-proto"),
    ];
    let host = headers.get(header::HOST).and_then(|host| Host::parse(host.to_str().ok()?));
    let is_this_machine = |host: Host| matches!(host.name.as_str(), "localhost" | "127.0.0.1" | "[::1]");
    added_by_proxies.iter().all(|name| !headers.contains_key(name)) && host.is_some_and(is_this_machine)
}

/// The content of the page.
pub async fn html(folder: &str) -> String {
    let mails = folder::latest(Path::new(folder)).await;
    let content = match mails {
        Err(error) => view! { <p class="alert">{format!("{folder} cannot be read: {error}")}</p> }.into_any(),
        Ok(mails) if mails.is_empty() => view! { <p>"No mail yet."</p> }.into_any(),
        Ok(mails) => mails.iter().map(|mail| article(mail)).collect_view().into_any(),
    };
    view! {
        <section class="card full">
            <h1>"Mails"</h1>
            <p class="lead">"There is no mail server, so these mails are files in " <code>{folder.to_owned()}</code> ", the last one first."</p>
            {content}
        </section>
    }
    .to_html()
}

fn article(mail: &str) -> impl IntoView + use<> {
    let mail = MessageParser::default().parse(mail).unwrap_or_default();
    let to = mail.to().and_then(|to| to.first()).and_then(|to| to.address()).unwrap_or_default().to_owned();
    let subject = mail.subject().unwrap_or_default().to_owned();
    let date = mail.date().map(|date| date.to_rfc3339()).unwrap_or_default();
    let text = mail.body_text(0).unwrap_or_default().into_owned();
    let lines = text.trim_end().lines().map(|line| match line.starts_with("http") {
        true => view! { <a href=line.to_owned()>{line.to_owned()}</a> "\n" }.into_any(),
        false => format!("{line}\n").into_any(),
    });
    view! {
        <article class="mail">
            <h2>{subject}</h2>
            <p class="hint">"To " {to} ", " {date}</p>
            <pre class="code wrapped">{lines.collect_view()}</pre>
        </article>
    }
}
