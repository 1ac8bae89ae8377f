//! What the sections of the page Security share.

use leptos::prelude::*;

use crate::api::types::MethodList;

/// The ways to sign in, as the sections of the page share them. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Methods {
    found: RwSignal<Option<MethodList>>,
    /// The number of changes made here. Each change reloads what the page shows.
    changes: RwSignal<u32>,
    /// Recovery codes that have just been made, until the user is done with them.
    pub new_codes: RwSignal<Option<Vec<String>>>,
}

impl Methods {
    pub fn new(found: RwSignal<Option<MethodList>>, changes: RwSignal<u32>) -> Self {
        Self { found, changes, new_codes: RwSignal::new(None) }
    }

    /// The last answer; empty before the first.
    pub fn get(self) -> MethodList {
        self.found.get().unwrap_or_default()
    }

    pub fn has_app(self) -> bool {
        self.found.with(|found| found.as_ref().is_some_and(|found| found.totp_added_at.is_some()))
    }

    /// To be called after a change.
    pub fn changed(self) {
        self.changes.try_update(|changes| *changes += 1);
    }
}
