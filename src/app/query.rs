//! What the address of a page says after its question mark.

/// The value of a parameter. Anyone can have written it.
#[cfg(feature = "ssr")]
pub fn query(name: &str) -> Option<String> {
    let address = leptos::prelude::use_context::<leptos_router::location::RequestUrl>()?;
    address.parse().ok()?.search_params().get(name)
}

/// The value of a parameter. Anyone can have written it.
#[cfg(not(feature = "ssr"))]
pub fn query(name: &str) -> Option<String> {
    let address = leptos::prelude::window().location().search().ok()?;
    web_sys::UrlSearchParams::new_with_str(&address).ok()?.get(name)
}
