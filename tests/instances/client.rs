//! A client of the API of several instances.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::support::world::World;

pub const PASSWORD: &str = "correct horse battery";

/// Longer than an instance takes to answer.
const ANSWER: Duration = Duration::from_secs(20);

#[derive(Clone)]
pub struct Api {
    client: Client,
    urls: Vec<String>,
}

/// The tokens of a session.
#[derive(Clone, Debug)]
pub struct Pair {
    pub access: String,
    pub refresh: String,
    pub session: String,
}

impl Pair {
    pub fn of(answer: &Value) -> Self {
        let text = |key: &str| answer[key].as_str().unwrap_or_else(|| panic!("{key} in {answer}")).to_owned();
        Self { access: text("access_token"), refresh: text("refresh_token"), session: text("session_id") }
    }
}

impl Api {
    pub fn of(world: &World) -> Self {
        Self { client: Client::new(), urls: world.instances.iter().map(|one| one.url.clone()).collect() }
    }

    /// A client of one instance.
    pub fn at(url: &str) -> Self {
        Self { client: Client::new(), urls: vec![url.to_owned()] }
    }

    /// Whether the instance is ready.
    pub async fn is_ready(&self, instance: usize) -> bool {
        let url = format!("{}/health/ready", self.urls[instance]);
        self.client.get(url).send().await.is_ok_and(|response| response.status() == 200)
    }

    pub fn post(&self, instance: usize, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.urls[instance % self.urls.len()]))
    }

    pub async fn register(&self, instance: usize, email: &str) -> Pair {
        self.begin(instance, "/api/auth/register", email).await
    }

    pub async fn login(&self, instance: usize, email: &str) -> Pair {
        self.begin(instance, "/api/auth/login", email).await
    }

    async fn begin(&self, instance: usize, path: &str, email: &str) -> Pair {
        let body = json!({ "email": email, "password": PASSWORD, "delivery": "body" });
        let (status, answer) = answer(self.post(instance, path).json(&body)).await;
        assert_eq!(status, 200, "{answer}");
        Pair::of(&answer)
    }

    pub async fn refresh(&self, instance: usize, pair: &Pair) -> Result<Pair, StatusCode> {
        let body = json!({ "refresh_token": pair.refresh });
        let (status, answer) = answer(self.post(instance, "/api/auth/refresh").json(&body)).await;
        if status == 200 { Ok(Pair::of(&answer)) } else { Err(status) }
    }

    pub async fn me(&self, instance: usize, pair: &Pair) -> StatusCode {
        answer(self.post(instance, "/api/account/me").bearer_auth(&pair.access)).await.0
    }

    pub fn me_request(&self, instance: usize, pair: &Pair) -> RequestBuilder {
        self.post(instance, "/api/account/me").bearer_auth(&pair.access)
    }

    pub fn logout_request(&self, instance: usize, pair: &Pair) -> RequestBuilder {
        self.post(instance, "/api/auth/logout").bearer_auth(&pair.access)
    }

    pub fn refresh_request(&self, instance: usize, pair: &Pair) -> RequestBuilder {
        self.post(instance, "/api/auth/refresh").json(&json!({ "refresh_token": pair.refresh }))
    }

    pub fn register_request(&self, instance: usize, email: &str) -> RequestBuilder {
        let body = json!({ "email": email, "password": PASSWORD, "delivery": "body" });
        self.post(instance, "/api/auth/register").json(&body)
    }

    /// The status and the body of the response; `None` if there was no response in time.
    pub async fn answered(&self, request: RequestBuilder) -> Option<(u16, Value)> {
        let response = request.timeout(ANSWER).send().await.ok()?;
        let status = response.status().as_u16();
        Some((status, serde_json::from_str(&response.text().await.ok()?).unwrap_or_default()))
    }

    pub async fn status(&self, request: RequestBuilder) -> Option<u16> {
        self.answered(request).await.map(|(status, _)| status)
    }

    pub fn get_request(&self, instance: usize, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.urls[instance]))
    }

    pub async fn try_get(&self, instance: usize, path: &str) -> Option<u16> {
        self.status(self.get_request(instance, path)).await
    }

    pub async fn try_refresh(&self, instance: usize, pair: &Pair) -> Option<(u16, Option<Pair>)> {
        let (status, body) = self.answered(self.refresh_request(instance, pair)).await?;
        Some((status, (status == 200).then(|| Pair::of(&body))))
    }

    /// The number of instances.
    pub fn count(&self) -> usize {
        self.urls.len()
    }

    /// The status of the protected call at each instance.
    pub async fn me_everywhere(&self, pair: &Pair) -> Vec<StatusCode> {
        let mut statuses = Vec::new();
        for instance in 0..self.urls.len() {
            statuses.push(self.me(instance, pair).await);
        }
        statuses
    }

    pub async fn logout(&self, instance: usize, pair: &Pair) -> (StatusCode, Value) {
        answer(self.post(instance, "/api/auth/logout").bearer_auth(&pair.access)).await
    }

    /// A call with the session's access token.
    pub async fn call(&self, instance: usize, path: &str, pair: &Pair, body: Value) -> (StatusCode, Value) {
        answer(self.post(instance, path).bearer_auth(&pair.access).json(&body)).await
    }

    pub fn try_login(&self, instance: usize, email: &str, password: &str) -> RequestBuilder {
        self.post(instance, "/api/auth/login")
            .json(&json!({ "email": email, "password": password, "delivery": "body" }))
    }

    pub async fn logout_everywhere(&self, instance: usize, pair: &Pair, keep: bool) -> (StatusCode, Value) {
        let call = self.post(instance, "/api/account/logout_everywhere").bearer_auth(&pair.access);
        answer(call.json(&json!({ "keep_current": keep }))).await
    }

    /// The status and the text of the response to `GET path`.
    pub async fn get(&self, instance: usize, path: &str) -> (StatusCode, String) {
        let answer = self.client.get(format!("{}{path}", self.urls[instance])).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    /// The sum of all series of a metric; zero if it has none.
    pub async fn metric(&self, instance: usize, name: &str) -> f64 {
        let (_, text) = self.get(instance, "/metrics").await;
        let ours = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        text.lines().filter(ours).filter_map(value).sum()
    }
}

pub async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: not JSON: {text}")))
}
