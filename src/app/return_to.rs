//! The page to return to after signing in.
//!
//! The address of that page is in the query, so anyone can have written it. It is followed only if it is a
//! path of this site.

use super::query::{is_failed_logout, query};

const HOME: &str = "/account";

/// The longest path that is followed, in bytes. No page of this site has a longer one.
const MAX_BYTES: usize = 512;

/// The page to open after signing in: the one that the address of this page names, or the account page.
pub fn next_page() -> String {
    query("next").filter(|path| is_ours(path)).unwrap_or_else(|| HOME.into())
}

/// Whether the address of this page names a page to return to.
pub fn has_next() -> bool {
    query("next").is_some_and(|path| is_ours(&path))
}

/// The address of another form, with the same page to return to.
pub fn with_next(form: &str) -> String {
    leading_to(form, &next_page())
}

/// The address at which to sign in, to return to the page at `path` afterwards.
pub fn sign_in_first(path: &str) -> String {
    leading_to("/login", path)
}

/// The same, for a page that is not shown because the browser is not signed in. If the page was to show that a logout
/// is not confirmed, the sign-in page does.
pub fn redirect_to_sign_in(path: &str) -> String {
    let address = sign_in_first(path);
    let error = query("__err").filter(|error| is_failed_logout() && is_base64url(error));
    let Some(error) = error else { return address };
    let separator = if address.contains('?') { '&' } else { '?' };
    format!("{address}{separator}__path=/api/auth/logout&__err={error}")
}

fn is_base64url(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte))
}

fn leading_to(form: &str, next: &str) -> String {
    if next == HOME { form.to_owned() } else { format!("{form}?next={next}") }
}

/// Whether a browser would open a page of this site at the path, other than a form to sign in or up.
fn is_ours(path: &str) -> bool {
    let is_path = path.starts_with('/') && !path.starts_with("//");
    let is_plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte));
    let is_a_form = ["/login", "/register", "/api"].iter().any(|form| path.starts_with(form));
    is_path && is_plain && !is_a_form && path.len() <= MAX_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_this_site_are_gone_to() {
        for path in ["/", "/account", "/sessions", "/a/b-c_d.e"] {
            assert!(is_ours(path), "{path}");
        }
        let long = format!("/{}", "a".repeat(10_000));
        for path in [
            "",
            "account",
            "//evil.test",
            "///evil.test",
            "/\\evil.test",
            "\\\\evil.test",
            "https://evil.test",
            "javascript:alert(1)",
            "/account\r\nSet-Cookie: a=b",
            "/\t/evil.test",
            "/%2f/evil.test",
            "/account?next=/x",
            "/é",
            "/login",
            "/login/",
            "/api/auth/logout",
            &long,
        ] {
            assert!(!is_ours(path), "{path:?}");
        }
    }
}
