//! The note that there is no mail server, after a page has sent a mail.

use leptos::prelude::*;

use crate::api::{MAIL_FOLDER_ATTRIBUTE, MAIL_PAGE_ATTRIBUTE};

/// Says where the mail is if there is no mail server.
#[component]
pub fn SentMail() -> impl IntoView {
    let found = RwSignal::new(None::<(String, Option<String>)>);
    Effect::new(move || {
        let root = document().document_element();
        let attribute = |name| root.as_ref().and_then(|root| root.get_attribute(name));
        found.set(attribute(MAIL_FOLDER_ATTRIBUTE).map(|folder| (folder, attribute(MAIL_PAGE_ATTRIBUTE))));
    });
    move || {
        found.get().map(|(folder, page)| {
            let link = page.map(|page| view! { " Or see it on " <a href=page rel="external">"the page of mails"</a> "." });
            view! {
                <p class="note">
                    "This site has no mail server yet, so the mail is a file in the folder " <code>{folder}</code> " of the server." {link}
                </p>
            }
        })
    }
}
