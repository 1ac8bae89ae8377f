//! The address that was typed into one of the forms to sign in or up, on its way to the other: each is a
//! document of its own, and an address does not belong into a URL.

use leptos::prelude::window;
use web_sys::Storage;

const KEY: &str = "hallpass-typed-email";

/// Keeps the address for the next form in this tab.
pub fn keep(email: &str) {
    if let Some(storage) = storage() {
        let _ = storage.set_item(KEY, email);
    }
}

/// The kept address, once.
pub fn take() -> Option<String> {
    let storage = storage()?;
    let email = storage.get_item(KEY).ok()??;
    let _ = storage.remove_item(KEY);
    Some(email)
}

/// `None` in a browser that stores nothing for this site.
fn storage() -> Option<Storage> {
    window().session_storage().ok()?
}
