//! Parameters in the query of a page's address.

use leptos::prelude::*;
use leptos_router::location::RequestUrl;
use web_sys::UrlSearchParams;

/// Whether this page was opened by a logout that was posted as a plain form, and is not confirmed.
pub fn is_failed_logout() -> bool {
    query("__path").as_deref() == Some("/api/auth/logout")
}

/// The value of a query parameter. Anyone can have written it.
pub fn query(name: &str) -> Option<String> {
    if cfg!(feature = "ssr") {
        let address = use_context::<RequestUrl>()?;
        address.parse().ok()?.search_params().get(name)
    } else {
        let parameters = window().location().search().ok()?;
        UrlSearchParams::new_with_str(&parameters).ok()?.get(name)
    }
}
