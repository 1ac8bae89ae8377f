//! Redirects are for forms only: programs get the response itself, even if they accept text/html.

use reqwest::{Client, RequestBuilder, Response, redirect::Policy};
use serde_json::{Value, json};
use sqlx::{Connection, Executor, SqliteConnection};

use crate::support::*;

const ANN: &str = "ann@example.com";
const JAVA: &str = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2";

struct Site {
    home: Home,
    server: Server,
    client: Client,
}

impl Site {
    async fn start() -> Self {
        let home = Home::new();
        let server = home.start().await;
        server.register(ANN).await;
        Self { home, server, client: Client::builder().redirect(Policy::none()).build().unwrap() }
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.server.url))
    }

    /// A request as a browser sends it for a form of the site, without `Sec-Fetch-Mode` and `Referer`.
    fn form(&self, path: &str) -> RequestBuilder {
        let accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        self.post(path).header("accept", accept).header("origin", &self.server.url)
    }

    /// The page that a browser without a session shows at the address, after redirects.
    async fn page(&self, location: &str) -> (u16, String) {
        let url = if location.starts_with('/') {
            format!("{}{location}", self.server.url)
        } else {
            location.to_owned()
        };
        let response = Client::new().get(url).header("accept", "text/html").send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Makes SQL fail, so that no logout can be confirmed.
    async fn break_database(&self) {
        let url = format!("sqlite://{}", self.home.database().display());
        let mut database = SqliteConnection::connect(&url).await.unwrap();
        database.execute("alter table sessions rename to missing").await.unwrap();
    }
}

fn location(response: &Response) -> &str {
    assert_eq!(response.status(), 302);
    response.headers()["location"].to_str().unwrap()
}

#[tokio::test]
async fn programs_that_accept_html_are_not_redirected() {
    let site = Site::start().await;
    let credentials = [("email", ANN), ("password", PASSWORD), ("delivery", "body")];
    for accept in [JAVA, "text/html", "text/html,*/*;q=0.8"] {
        let ask = async |request: RequestBuilder| answer(request.header("accept", accept)).await;
        let (status, pair) = ask(site.post("/api/auth/login").form(&credentials)).await;
        assert_eq!(status, 200, "{accept}");
        let pair = Pair::of(&pair);
        let me = || site.post("/api/account/me");
        assert_eq!(ask(me().bearer_auth(&pair.access)).await.0, 200, "{accept}");
        assert_eq!(ask(me().bearer_auth(&pair.access).json(&json!({}))).await.0, 200, "{accept}");
        assert_eq!(ask(me().json(&json!({}))).await.0, 401, "{accept}");
        let (status, next) =
            ask(site.post("/api/auth/refresh").json(&json!({ "refresh_token": pair.refresh }))).await;
        assert_eq!((status.as_u16(), next["access_token"].is_string()), (200, true), "{accept}");
        // Also with the headers of a form: no form can send a bearer, and `Sec-Fetch-Mode: cors` means fetch.
        let form = || me().form(&[("x", "y")]).header("origin", &site.server.url);
        assert_eq!(ask(form().bearer_auth(&pair.access)).await.0, 200, "{accept}");
        assert_eq!(ask(form().header("sec-fetch-mode", "cors")).await.0, 401, "{accept}");
        assert_eq!(ask(me().form(&[("x", "y")])).await.0, 401, "{accept}");
        let (status, _) = ask(site.post("/api/auth/logout").bearer_auth(&pair.access)).await;
        assert_eq!(status, 200, "{accept}");
        assert_eq!(ask(site.post("/api/nothing")).await.0, 404, "{accept}");
        assert_eq!(
            ask(site.client.get(format!("{}/api/auth/login", site.server.url))).await.0,
            405,
            "{accept}"
        );
    }
}

#[tokio::test]
async fn unconfirmed_logout_answers_503() {
    let site = Site::start().await;
    let pair = site.server.login(ANN).await;
    site.break_database().await;
    for accept in [JAVA, "text/html", "*/*"] {
        // These clients follow redirects.
        for form in [false, true] {
            let request = site.server.logout(&pair.access).header("accept", accept);
            let request = if form { request.form(&[("x", "y")]) } else { request };
            let (status, answer) = answer(request).await;
            assert_eq!(
                (status.as_u16(), &answer["error"]),
                (503, &Value::from("temporarily_unavailable")),
                "{accept}"
            );
        }
    }
    let cookie = format!("hallpass-refresh={}", pair.refresh);
    let logout = || site.form("/api/auth/logout").header("cookie", &cookie).form(&[("x", "y")]);
    let referer = |path: &str| format!("{}{path}", site.server.url);
    for request in [
        logout(),
        logout().header("referer", referer("/account")),
        logout().header("referer", referer("/")),
        logout().header("referer", referer("")),
        logout().header("sec-fetch-mode", "navigate").header("sec-fetch-site", "same-origin"),
    ] {
        let response = request.send().await.unwrap();
        let (status, text) = site.page(location(&response)).await;
        assert_eq!(status, 503, "{}", location(&response));
        assert!(text.contains("The server could not confirm your sign-out"), "{text}");
        assert!(!text.contains("temporarily unavailable"), "the form shows it again: {text}");
    }
}

#[tokio::test]
async fn form_error_is_shown_on_the_form_with_and_without_a_referer() {
    let site = Site::start().await;
    let wrong = [("email", ANN), ("password", "wrong password")];
    let words = "The e-mail address or the password is wrong.";
    let referer = |path: &str| format!("{}{path}", site.server.url);
    let stale = referer("/login?next=/sessions&__path=x&__err=y");
    for request in [
        site.form("/api/auth/login"),
        site.form("/api/auth/login").header("referer", referer("/login?next=/sessions")),
        site.form("/api/auth/login").header("referer", &stale),
        // Shortened to the origin by the browser or by a proxy.
        site.form("/api/auth/login").header("referer", referer("/")),
        site.form("/api/auth/login").header("referer", referer("")),
        site.post("/api/auth/login").header("accept", "text/html").header("referer", referer("/login")),
        site.post("/api/auth/login")
            .header("sec-fetch-mode", "navigate")
            .header("sec-fetch-site", "same-origin"),
    ] {
        let response = request.form(&wrong).send().await.unwrap();
        let location = location(&response);
        let (status, text) = site.page(location).await;
        assert_eq!(status, 200, "{location}");
        assert!(location.contains("/login?") && text.contains(words), "{location}: {text}");
        assert_eq!(location.matches("__err").count(), 1, "{location}");
    }
    let taken =
        site.form("/api/auth/register").form(&[("email", ANN), ("password", PASSWORD)]).send().await.unwrap();
    assert!(location(&taken).starts_with("/register?"), "{}", location(&taken));
    assert!(site.page(location(&taken)).await.1.contains("already exists"));
    let right =
        site.form("/api/auth/login").form(&[("email", ANN), ("password", PASSWORD)]).send().await.unwrap();
    assert!(location(&right).starts_with("/login"), "{}", location(&right));
    assert!(right.headers().contains_key("set-cookie"));
    // A page of another site is never the target of a redirect, whatever its path.
    let elsewhere = site
        .post("/api/auth/login")
        .header("accept", "text/html")
        .header("referer", "http://evil.test/login");
    let (status, _) = answer(elsewhere.form(&wrong)).await;
    assert_eq!(status, 401);
    let navigated =
        site.post("/api/auth/login").header("sec-fetch-mode", "navigate").header("sec-fetch-site", "none");
    let navigated = navigated.header("referer", "http://evil.test/login").form(&wrong).send().await.unwrap();
    assert!(location(&navigated).starts_with("/login?"), "{}", location(&navigated));
}

#[tokio::test]
async fn form_logout_is_confirmed_by_the_next_page_until_the_next_login() {
    let site = Site::start().await;
    let cookie = |response: &Response, name: &str| {
        let cookies = response.headers().get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
        cookies.into_iter().find(|cookie| cookie.starts_with(name)).map(str::to_owned)
    };
    let pair = site.server.login(ANN).await;
    let program =
        site.post("/api/auth/logout").header("cookie", format!("hallpass-refresh={}", pair.refresh));
    let program = program.send().await.unwrap();
    assert_eq!((program.status().as_u16(), cookie(&program, "hallpass-signed-out")), (200, None));

    let pair = site.server.login(ANN).await;
    let sent = format!("hallpass-refresh={}", pair.refresh);
    let response =
        site.form("/api/auth/logout").form(&[("x", "y")]).header("cookie", &sent).send().await.unwrap();
    assert_eq!(location(&response), "/");
    let confirmed = cookie(&response, "hallpass-signed-out-").unwrap();
    assert!(confirmed.ends_with("; SameSite=Lax; Path=/; Max-Age=60"), "{confirmed}");
    let confirmed = confirmed.split(';').next().unwrap();
    assert!(confirmed.contains("=1."), "{confirmed}");
    let words = "Your token was revoked on the server in ";
    let page = async |path: &str, cookies: &str| {
        let request = site.client.get(format!("{}{path}", site.server.url)).header("accept", "text/html");
        request.header("cookie", cookies).send().await.unwrap().text().await.unwrap()
    };
    for path in ["/login", "/", "/docs", "/nothing"] {
        assert!(page(path, confirmed).await.contains(words), "{path}");
        assert!(!page(path, "").await.contains(words), "{path}");
        let name = confirmed.split('=').next().unwrap();
        for junk in ["", "1", "1.", ".1", "-1.1", "a.b", "<p>.1", "1.99999999999999999999"] {
            assert!(!page(path, &format!("{name}={junk}")).await.contains(words), "{path} {junk}");
        }
    }
    let pair = site.server.login(ANN).await;
    let signed_in = format!("{confirmed}; hallpass-refresh={}", pair.refresh);
    assert!(!page("/", &signed_in).await.contains(words));
    let login = site.post("/api/auth/login").form(&[("email", ANN), ("password", PASSWORD)]);
    let login = login.header("cookie", confirmed).send().await.unwrap();
    assert!(cookie(&login, "hallpass-signed-out-").unwrap().contains("Max-Age=0"));
}

#[tokio::test]
async fn login_form_leads_to_a_page_that_says_that_the_cookie_was_not_kept() {
    let site = Site::start().await;
    let words = "Your browser did not keep the cookie of this site.";
    for (path, email) in [("/api/auth/login", ANN), ("/api/auth/register", "bob@example.com")] {
        let response =
            site.form(path).form(&[("email", email), ("password", PASSWORD)]).send().await.unwrap();
        let location = location(&response);
        assert!(location.starts_with("/login?"), "{location}");
        assert!(site.page(location).await.1.contains(words));
        // With the cookie, the same page redirects on.
        let cookies = response.headers().get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
        let cookies: Vec<_> = cookies.map(|cookie| cookie.split(';').next().unwrap()).collect();
        let kept =
            site.client.get(format!("{}{location}", site.server.url)).header("cookie", cookies.join("; "));
        let kept = kept.header("accept", "text/html").send().await.unwrap();
        assert_eq!(
            (kept.status().as_u16(), &kept.headers()["location"]),
            (302, &"/account".parse().unwrap())
        );
    }
}

#[tokio::test]
async fn form_posted_by_http_to_a_site_with_https_leads_to_a_page_that_says_so() {
    let home = Home::with("[server]\nhttps = true\n");
    let server = home.start().await;
    let client = Client::builder().redirect(Policy::none()).build().unwrap();
    let words = "This site can only keep you signed in over https.";
    for (path, page) in [("/api/auth/login", "/login?"), ("/api/auth/register", "/register?")] {
        let post = |origin: &str, accept: &str| {
            let request = client.post(format!("{}{path}", server.url)).header("host", "id.example.com");
            let request = request.header("origin", origin).header("accept", accept);
            request.form(&[("email", ANN), ("password", PASSWORD)]).send()
        };
        let response = post("http://id.example.com", "text/html,*/*;q=0.8").await.unwrap();
        let location = location(&response);
        assert!(location.starts_with(page), "{location}");
        let text = server.get(location).send().await.unwrap().text().await.unwrap();
        assert!(text.contains(words), "{text}");
        // Programs and other sites get the refusal.
        for (origin, accept) in [("http://id.example.com", "*/*"), ("http://evil.test", "text/html")] {
            assert_eq!(post(origin, accept).await.unwrap().status(), 403, "{origin} {accept}");
        }
    }
}
