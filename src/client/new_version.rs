//! Whether the server has a newer version of the site than this page. The page goes on working: the server keeps the
//! files of the last versions.

use leptos::prelude::*;

use super::storage;
use crate::api::{VERSION_ATTRIBUTE, types::SiteVersion};

/// The newer version of the site, if there is one. Cheap to copy.
#[derive(Clone, Copy)]
pub struct NewVersion(RwSignal<Option<SiteVersion>>);

impl NewVersion {
    /// Creates it, for [`NewVersion::expect`] to find.
    pub fn provide() {
        provide_context(Self(RwSignal::new(None)));
    }

    pub fn expect() -> Self {
        expect_context()
    }

    pub fn is_available(self) -> bool {
        self.0.with(Option::is_some)
    }

    /// Compares the version of the instance that this page is connected to with that of the page. Another one may be
    /// older, while instances are replaced.
    pub(super) fn compare(self, served: &str) {
        let root = document().document_element();
        let own = root.and_then(|root| root.get_attribute(VERSION_ATTRIBUTE)).unwrap_or_default();
        if let (Ok(own), Ok(served)) = (own.parse::<SiteVersion>(), served.parse())
            && own.is_replaced_by(&served)
            && storage::dismissed_version().as_deref() != Some(&*served.hash)
        {
            self.0.set(Some(served));
        }
    }

    /// Hides the version from all pages of this browser.
    pub fn dismiss(self) {
        if let Some(version) = self.0.write().take() {
            storage::set_dismissed_version(&version.hash);
        }
    }
}
