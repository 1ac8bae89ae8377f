//! Where to go after signing in: back to the page that asked for it.
//!
//! The address of that page comes in the query, so anyone can have written it. It is followed only if
//! it is a path of this very site.

use super::query::query;

const HOME: &str = "/account";

/// No page of ours has a longer address.
const MAX_BYTES: usize = 512;

/// The page to go to after signing in: the one that the address of this page names, or the account.
pub fn next_page() -> String {
    query("next").filter(|path| is_ours(path)).unwrap_or_else(|| HOME.into())
}

/// The same page, to be named by a link from one form to the other.
pub fn with_next(form: &str) -> String {
    leading_to(form, &next_page())
}

/// Where to sign in, to come back to the page at `path`.
pub fn sign_in_first(path: &str) -> String {
    leading_to("/login", path)
}

fn leading_to(form: &str, next: &str) -> String {
    if next == HOME { form.to_owned() } else { format!("{form}?next={next}") }
}

/// Whether a browser would take it for a page of this site, and no form to sign in.
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
