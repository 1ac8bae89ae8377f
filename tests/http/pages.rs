//! The pages as the server renders them: the session state in the first byte, and security headers.

use std::fs;

use base64::{Engine, prelude::BASE64_URL_SAFE};
use reqwest::{StatusCode, header::HeaderMap};
use serde_json::json;

use crate::support::*;

struct Page {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

async fn page(server: &Server, path: &str, cookie: Option<&str>) -> Page {
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let mut request = client.get(format!("{}{path}", server.url)).header("accept", "text/html");
    if let Some(token) = cookie {
        request = request.header("cookie", format!("hallpass-refresh={token}"));
    }
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    Page { status, headers, text: response.text().await.unwrap() }
}

#[tokio::test]
async fn rendered_page_shows_whether_the_browser_is_signed_in() {
    let home = Home::new();
    let server = home.start().await;
    let pair = server.register("ann@example.com").await;
    let signed_in = |text: &str| {
        let (inside, outside) = (text.contains(">Sign out<"), text.contains(">Create account<"));
        assert_ne!(inside, outside, "{text}");
        inside
    };
    assert!(!signed_in(&page(&server, "/", None).await.text));
    assert!(!signed_in(&page(&server, "/", Some("forged")).await.text));
    assert!(signed_in(&page(&server, "/", Some(&pair.refresh)).await.text));
    assert_eq!(status(server.logout(&pair.access)).await, 200);
    assert!(!signed_in(&page(&server, "/", Some(&pair.refresh)).await.text));
}

#[tokio::test]
async fn pages_redirect_by_whether_the_browser_is_signed_in() {
    let home = Home::new();
    let server = home.start().await;
    let pair = server.register("ann@example.com").await;
    for (path, cookie, target) in [
        ("/account", None, "/login"),
        ("/login", Some(pair.refresh.as_str()), "/account"),
        ("/register", Some(pair.refresh.as_str()), "/account"),
    ] {
        let page = page(&server, path, cookie).await;
        assert_eq!(
            (page.status.as_u16(), page.headers["location"].to_str().unwrap()),
            (302, target),
            "{path}"
        );
    }
}

#[tokio::test]
async fn pages_treat_an_unconfirmed_logout_as_signed_out() {
    let home = Home::new();
    let server = home.start().await;
    let pair = server.register("ann@example.com").await;
    let cookies = format!("{}; hallpass-logout-pending=true", pair.refresh);
    let start = page(&server, "/", Some(&cookies)).await;
    assert!(start.text.contains(">Create account<") && !start.text.contains(">Sign out<"));
    assert!(!start.headers.contains_key("set-cookie"), "the session's cookie is what it is ended by");
    assert_eq!(page(&server, "/login", Some(&cookies)).await.status, 200);
    assert_eq!(page(&server, "/account", Some(&cookies)).await.headers["location"], "/login");

    // The marker holds until the logout is confirmed, or until somebody signs in.
    let logout = server.post("/api/auth/logout");
    let login = server.post("/api/auth/login").form(&[("email", "ann@example.com"), ("password", PASSWORD)]);
    for request in [login, logout] {
        let request = request.header("cookie", format!("hallpass-refresh={cookies}"));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let cookies = response.headers().get_all("set-cookie");
        let settled = cookies.iter().any(|cookie| {
            let cookie = cookie.to_str().unwrap();
            cookie.starts_with("hallpass-logout-pending=;") && cookie.contains("Max-Age=0")
        });
        assert!(settled, "{cookies:?}");
    }
}

#[tokio::test]
async fn trailing_slash_redirects_to_the_page() {
    let home = Home::new();
    let server = home.start().await;
    for path in ["/login", "/register", "/account", "/docs"] {
        let page = page(&server, &format!("{path}/"), None).await;
        assert_eq!((page.status.as_u16(), &page.headers["location"]), (308, &path.parse().unwrap()));
    }
    assert_eq!(page(&server, "//evil.test/", None).await.status, 404);
}

#[tokio::test]
async fn every_page_has_a_title_and_unknown_paths_get_a_404_page() {
    let home = Home::new();
    let server = home.start().await;
    let pair = server.register("ann@example.com").await;
    for (path, cookie, status, title) in [
        ("/", None, 200, "Hallpass"),
        ("/login", None, 200, "Sign in · Hallpass"),
        ("/register", None, 200, "Create an account · Hallpass"),
        ("/account", Some(pair.refresh.as_str()), 200, "Your token · Hallpass"),
        ("/nothing/here", None, 404, "Not found · Hallpass"),
    ] {
        let Page { status: found, text, .. } = page(&server, path, cookie).await;
        assert_eq!(found, status, "{path}");
        assert!(text.contains(&format!("<title>{title}</title>")), "{path}: {text}");
        assert!(text.contains("<html lang=\"en\""), "{path}");
    }
}

#[tokio::test]
async fn forms_work_before_hydration() {
    let home = Home::new();
    let server = home.start().await;
    server.register("ann@example.com").await;
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let post = |path: &str, password: &str| {
        client
            .post(format!("{}{path}", server.url))
            .header("accept", "text/html")
            .header("referer", format!("{}/login", server.url))
            .form(&[("email", "ann@example.com"), ("password", password)])
            .send()
    };
    let response = post("/api/auth/login", PASSWORD).await.unwrap();
    assert_eq!(response.status(), 302);
    let to = response.headers()["location"].to_str().unwrap();
    assert!(to.starts_with(&format!("{}/login?", server.url)), "{to}");
    let cookie = response.headers()["set-cookie"].to_str().unwrap();
    let token = cookie.split(['=', ';']).nth(1).unwrap();
    let path = to.strip_prefix(&server.url).unwrap();
    assert_eq!(page(&server, path, Some(token)).await.headers["location"], "/account");

    let response = post("/api/auth/login", "wrong password").await.unwrap();
    assert_eq!(response.status(), 302);
    let back = response.headers()["location"].to_str().unwrap();
    assert!(!back.contains("wrong"), "{back}");
    let path = back.strip_prefix(&server.url).unwrap();
    let text = page(&server, path, None).await.text;
    assert!(text.contains("The e-mail address or the password is wrong."), "{text}");
}

#[tokio::test]
async fn every_response_has_the_security_headers() {
    let home = Home::with("[server]\nhttps = true\n");
    let server = home.start().await;
    for path in [
        "/",
        "/login",
        "/nothing",
        "/docs",
        "/openapi.json",
        "/robots.txt",
        "/pkg/hallpass.js",
        "/pkg/nothing",
        "/api/auth/login",
        "/api/nothing",
        "/health/live",
    ] {
        let page = page(&server, path, None).await;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("strict-transport-security", "max-age=63072000; includeSubDomains"),
        ] {
            assert_eq!(page.headers[name], value, "{path} {name}");
        }
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        assert!(!policy.contains("'unsafe-inline'") && !policy.contains("'unsafe-eval'"), "{path}: {policy}");
        assert!(page.headers.get("access-control-allow-origin").is_none());
    }
}

#[tokio::test]
async fn refusals_by_the_outer_layers_have_headers_and_json_as_well() {
    let home = Home::new();
    let server = home.start().await;
    let login = || server.post("/api/auth/login").header("content-type", "application/x-www-form-urlencoded");
    for (request, status, error) in [
        (login().header("origin", "https://evil.example"), 403, "cross_site"),
        (login().body("x".repeat(1_000_000)), 413, "payload_too_large"),
        (server.get("/api/auth/login"), 405, "method_not_allowed"),
        (server.get("/api/nothing"), 404, "not_found"),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status);
        for (name, value) in [
            ("content-type", "application/json"),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ] {
            assert_eq!(response.headers()[name], value, "{status} {name}");
        }
        assert!(response.headers().contains_key("hallpass-instance"), "{status}");
        assert_eq!(response.json::<serde_json::Value>().await.unwrap()["error"], error);
    }
}

/// A response that holds a secret beside text that an attacker chooses must not reveal it by its length (BREACH).
#[tokio::test]
async fn pages_are_compressed_and_responses_with_tokens_are_not() {
    let home = Home::new();
    let server = home.start().await;
    server.register("ann@example.com").await;
    let page = server.get("/login").header("accept-encoding", "gzip, br").send().await.unwrap();
    assert_eq!(page.headers()["content-encoding"], "br");
    let login = server.try_login("ann@example.com", PASSWORD).header("accept-encoding", "gzip, br");
    let login = login.send().await.unwrap();
    assert_eq!((login.status().as_u16(), login.headers().get("content-encoding")), (200, None));
}

/// A cache must not give a compressed file to a client that cannot read it.
#[tokio::test]
async fn every_variant_of_a_file_and_a_page_varies_by_accept_encoding() {
    let home = Home::new();
    let file = "content\n".repeat(100);
    for folder in ["site", "site/pkg"] {
        for (extension, bytes) in [("", file.as_bytes()), (".br", b"br"), (".gz", b"gzip")] {
            fs::write(home.path().join(folder).join(format!("file.txt{extension}")), bytes).unwrap();
        }
    }
    let server = home.start().await;
    let text = page(&server, "/", None).await.text;
    let script = text.split('"').find(|part| part.ends_with("/pkg/hallpass.js")).unwrap();
    for path in
        ["/file.txt", &script.replace("hallpass.js", "file.txt"), script, "/login", "/docs", "/nothing"]
    {
        for encoding in ["br", "gzip", "identity"] {
            let request = server.get(path).header("accept-encoding", encoding).header("accept", "text/html");
            let response = request.send().await.unwrap();
            let vary: Vec<_> = response.headers().get_all("vary").iter().collect();
            assert_eq!(vary, ["accept-encoding"], "{path} {encoding}");
            if path.ends_with("file.txt") {
                let found = response
                    .headers()
                    .get("content-encoding")
                    .map(|value| value.to_str().unwrap().to_owned());
                let expected = if encoding == "identity" { &file } else { encoding };
                assert_eq!(found.as_deref(), (encoding != "identity").then_some(encoding), "{path}");
                assert_eq!(response.text().await.unwrap(), *expected, "{path}");
            }
        }
    }
}

#[tokio::test]
async fn password_managers_find_the_page_that_changes_the_password() {
    let home = Home::new();
    let server = home.start().await;
    let pair = server.register("ann@example.com").await;
    let found = page(&server, "/.well-known/change-password", None).await;
    assert_eq!((found.status.as_u16(), &found.headers["location"]), (303, &"/password".parse().unwrap()));
    let target = page(&server, "/password", Some(&pair.refresh)).await;
    assert!(target.status == 200 && target.text.contains("current-password"), "{}", target.text);
    // By this they recognize a server that answers 200 at every address.
    let path = "/.well-known/resource-that-should-not-exist-whose-status-code-should-not-be-200";
    assert_eq!(page(&server, path, None).await.status, 404);
}

#[tokio::test]
async fn pages_name_icons_that_exist_and_absolute_addresses_for_link_previews() {
    for public in [None, Some("https://id.example.com")] {
        let settings = public.map(|url| format!("[server]\npublic_url = \"{url}\"\n")).unwrap_or_default();
        let home = Home::with(&settings);
        let server = home.start().await;
        let origin = public.unwrap_or(&server.url);
        for path in ["/", "/login?next=/sessions", "/docs", "/nothing"] {
            let text = page(&server, path, None).await.text;
            for icon in ["favicon.ico", "favicon.svg", "apple-touch-icon.png"] {
                assert!(text.contains(&format!("href=\"/{icon}\"")), "{path}: {icon}");
                assert!(fs::exists(format!("public/{icon}")).unwrap(), "{icon}");
            }
            let tag = |name, content: &str| format!("<meta property=\"{name}\" content=\"{content}\">");
            let address = format!("{origin}{}", path.split('?').next().unwrap());
            for tag in [tag("og:url", &address), tag("og:image", &format!("{origin}/preview.png"))] {
                assert!(text.contains(&tag), "{path}: {tag} in {text}");
            }
        }
    }
    assert!(fs::exists("public/preview.png").unwrap());
}

#[tokio::test]
async fn no_script_runs_without_the_nonce_of_its_page() {
    let home = Home::new();
    let server = home.start().await;
    let mut nonces = std::collections::HashSet::new();
    for path in ["/", "/login", "/nothing"] {
        let Page { headers, text, .. } = page(&server, path, None).await;
        let policy = headers["content-security-policy"].to_str().unwrap();
        let nonce = policy.split_once("script-src 'nonce-").unwrap().1.split('\'').next().unwrap();
        assert!(nonces.insert(nonce.to_owned()), "a nonce was used twice");
        for script in text.split("<script").skip(1) {
            let tag = script.split('>').next().unwrap();
            assert!(tag.contains(&format!("nonce=\"{nonce}\"")), "{path}: <script{tag}>");
        }
        for event in [" onclick=", " onsubmit=", " style=\"", "javascript:"] {
            assert!(!text.contains(event), "{path}: {event}");
        }
        assert_eq!(headers["cache-control"], "private, no-store");
    }
}

#[tokio::test]
async fn site_files_are_immutable_under_a_versioned_path() {
    let home = Home::new();
    let script = async || {
        let server = home.start().await;
        let text = page(&server, "/", None).await.text;
        let path = text.split('"').find(|part| part.ends_with("/pkg/hallpass.js")).unwrap().to_owned();
        let response = server.get(&path).send().await.unwrap();
        assert_eq!(response.headers()["cache-control"], "public, max-age=31536000, immutable");
        for missing in [path.replace(".js", ".wasm"), format!("/other{path}")] {
            let response = server.get(&missing).send().await.unwrap();
            assert_eq!(response.status(), 404, "{missing}");
            let caching = response.headers().get("cache-control");
            assert!(caching.is_none_or(|value| !value.to_str().unwrap().contains("immutable")), "{missing}");
        }
        let text = response.text().await.unwrap();
        server.stop().await;
        (path, text)
    };
    let first = script().await;
    assert_eq!(script().await, first, "the same files, the same path");
    fs::write(home.path().join("site/pkg/other.wasm"), "").unwrap();
    let second = script().await;
    assert_ne!(second.0, first.0, "another file of the site has changed");
    assert_eq!(second.1, first.1);
}

#[tokio::test]
async fn health_endpoints_answer_200() {
    let home = Home::new();
    let server = home.start().await;
    assert_eq!(status(server.get("/health/live")).await, 200);
    assert_eq!(status(server.get("/health/ready")).await, 200);
}

#[tokio::test]
async fn every_form_error_is_rendered() {
    let home = Home::new();
    let server = home.start().await;
    for error in [
        json!({ "error": "too_many_requests", "message": "", "retry_after": 30 }),
        json!({ "error": "invalid_grant", "message": "" }),
        json!({ "error": "invalid_fields", "message": "", "fields": { "email": "" } }),
        json!({ "error": "temporarily_unavailable", "message": "" }),
    ] {
        let posted = BASE64_URL_SAFE.encode(error.to_string());
        for form in ["/login", "/register"] {
            let page = page(&server, &format!("{form}?__path=x&__err={posted}"), None).await;
            assert_eq!(page.status, 200, "{form} after {error}");
            assert!(
                page.text.contains("class=\"alert\"") || page.text.contains("class=\"error\""),
                "{error}"
            );
        }
    }
}

/// The parts of a page that only a browser can fill must not be touched by the server thread that happens to
/// drop the page.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pages_can_be_rendered_on_any_thread() {
    let home = Home::new();
    let server = home.start().await;
    let cookie = server.register("ann@example.com").await.refresh;
    for path in ["/account", "/sessions", "/password", "/cluster", "/admin", "/replay"] {
        for _ in 0..50 {
            let page = page(&server, path, Some(&cookie)).await;
            assert_eq!(page.status, 200, "{path}");
        }
    }
}
