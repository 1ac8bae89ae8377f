//! The API as a client sees it. Every call goes into the history.

use std::{sync::Arc, time::Duration};

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

use crate::{
    faults::{
        history::{About, Answer, At, Call, History, Kind, NEVER},
        sessions::Access,
    },
    support::{
        clock::{Clock, Step},
        instance::Instance,
    },
};

const PASSWORD: &str = "correct horse battery";
/// Longer than an instance ever takes for an answer: a call that the client has given up must not
/// be carried out afterwards.
const PATIENCE: Duration = Duration::from_secs(20);
/// Tokens expire in whole seconds, and the client does not know which.
const ROUNDED_OFF: Duration = Duration::from_secs(2);

/// Calls one instance.
pub struct Caller {
    pub instance: usize,
    url: String,
    clock: Arc<Clock>,
    http: Client,
    history: Arc<History>,
}

/// What a log-in or a refresh brought.
pub struct Pair {
    pub access: Access,
    pub refresh: String,
}

impl Caller {
    pub fn new(number: usize, instance: &Instance, history: Arc<History>) -> Self {
        let http = Client::builder().timeout(PATIENCE).build().unwrap();
        Self {
            instance: number,
            url: instance.url.clone(),
            clock: Arc::clone(&instance.clock),
            http,
            history,
        }
    }

    pub fn has_right_time(&self) -> bool {
        self.clock.step() == Step::Right
    }

    pub async fn register(&self, session: usize, user: usize) -> Result<Pair, Answer> {
        self.log_in("/api/auth/register", session, user).await
    }

    pub async fn login(&self, session: usize, user: usize) -> Result<Pair, Answer> {
        self.log_in("/api/auth/login", session, user).await
    }

    async fn log_in(&self, path: &str, session: usize, user: usize) -> Result<Pair, Answer> {
        let email = format!("user-{user}@faults.example");
        let body = json!({ "email": email, "password": PASSWORD, "delivery": "body" });
        let request = self.post(path).json(&body);
        self.pair(request, Kind::Login, session, false).await
    }

    pub async fn refresh(&self, session: usize, token: &str, is_last: bool) -> Result<Pair, Answer> {
        let request = self.post("/api/auth/refresh").json(&json!({ "refresh_token": token }));
        self.pair(request, Kind::Refresh, session, is_last).await
    }

    /// The protected call.
    pub async fn me(&self, session: usize, access: &Access, is_last: bool) -> Answer {
        let request = self.post("/api/account/me").bearer_auth(&access.token);
        self.call(request, Kind::Me, About::Session(session), access.good_until, is_last).await.0
    }

    pub async fn logout(&self, session: usize, access: &Access, is_last: bool) -> Answer {
        let request = self.post("/api/auth/logout").bearer_auth(&access.token);
        self.call(request, Kind::Logout, About::Session(session), NEVER, is_last).await.0
    }

    pub async fn logout_everywhere(&self, user: usize, by: usize, access: &Access, keeps: bool) -> Answer {
        let request = self.post("/api/account/logout_everywhere").bearer_auth(&access.token);
        let request = request.json(&json!({ "keep_current": keeps }));
        let about = About::User { user, by, keeps };
        self.call(request, Kind::LogoutEverywhere, about, access.good_until, false).await.0
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.url))
    }

    async fn pair(
        &self,
        request: RequestBuilder,
        kind: Kind,
        session: usize,
        is_last: bool,
    ) -> Result<Pair, Answer> {
        let (sent, before) = (self.history.now(), self.clock.step());
        let (answer, body) = self.call(request, kind, About::Session(session), NEVER, is_last).await;
        if !answer.is_yes() {
            return Err(answer);
        }
        let text =
            |key: &str| body[key].as_str().unwrap_or_else(|| panic!("no {key} in {kind:?}")).to_owned();
        let was_right = [before, self.clock.step()] == [Step::Right; 2];
        // Whose clock is stepped while it answers says anything, even less than nothing.
        let lifetime = body["expires_in"].as_u64().filter(|_| was_right).map(Duration::from_secs);
        let good_until = lifetime.map_or(At::ZERO, |lifetime| sent + lifetime - ROUNDED_OFF);
        Ok(Pair {
            access: Access { token: text("access_token"), good_until },
            refresh: text("refresh_token"),
        })
    }

    async fn call(
        &self,
        request: RequestBuilder,
        kind: Kind,
        about: About,
        good_until: At,
        is_last: bool,
    ) -> (Answer, Value) {
        let (sent, before) = (self.history.now(), self.clock.step());
        let (answer, body) = send(request).await.unwrap_or((Answer::None, Value::Null));
        let ended = self.history.now();
        let is_ahead = [before, self.clock.step()].contains(&Step::Ahead);
        let good_until = if is_ahead && good_until != NEVER { At::ZERO } else { good_until };
        let instance = self.instance;
        self.history.record(Call { kind, about, instance, sent, ended, answer, good_until, is_last });
        (answer, body)
    }
}

/// The answer, read to its end.
async fn send(request: RequestBuilder) -> reqwest::Result<(Answer, Value)> {
    let answer = request.send().await?;
    let status = answer.status().as_u16();
    let body = answer.bytes().await?;
    Ok((Answer::Status(status), serde_json::from_slice(&body).unwrap_or_default()))
}
