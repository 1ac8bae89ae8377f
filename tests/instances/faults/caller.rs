//! The API as a client sees it. Every call goes into the history.

use std::{sync::Arc, time::Duration};

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

use crate::{
    faults::{
        history::{About, Answer, At, Call, History, Kind, NEVER},
        sessions::{Access, Session},
    },
    support::{
        clock::{Clock, Step},
        instance::Instance,
    },
};

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
    pub session_id: String,
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
        self.log_in("/api/auth/register", session, user, 0).await
    }

    pub async fn login(&self, session: usize, user: usize, password: usize) -> Result<Pair, Answer> {
        self.log_in("/api/auth/login", session, user, password).await
    }

    async fn log_in(&self, path: &str, session: usize, user: usize, number: usize) -> Result<Pair, Answer> {
        let email = format!("user-{user}@faults.example");
        let body = json!({ "email": email, "password": password(number), "delivery": "body" });
        let request = self.post(path).json(&body);
        self.pair(request, Question::new(Kind::Login, About::Session(session)).with_password(number)).await
    }

    pub async fn refresh(&self, session: usize, token: &str, is_last: bool) -> Result<Pair, Answer> {
        let request = self.post("/api/auth/refresh").json(&json!({ "refresh_token": token }));
        self.pair(request, Question { is_last, ..Question::new(Kind::Refresh, About::Session(session)) })
            .await
    }

    /// The protected call.
    pub async fn me(&self, session: usize, access: &Access, is_last: bool) -> Answer {
        let request = self.post("/api/account/me").bearer_auth(&access.token);
        let about = About::Session(session);
        let question = Question { is_last, ..Question::new(Kind::Me, about).with_token(access) };
        self.call(request, question).await.0
    }

    pub async fn logout(&self, session: usize, access: &Access, is_last: bool) -> Answer {
        let request = self.post("/api/auth/logout").bearer_auth(&access.token);
        let question = Question { is_last, ..Question::new(Kind::Logout, About::Session(session)) };
        self.call(request, question).await.0
    }

    /// Ends `session` from the session `by`.
    pub async fn revoke_session(&self, session: &Session, by: &Session) -> Answer {
        let access = by.newest();
        let request = self.post("/api/account/revoke_session").bearer_auth(&access.token);
        let request = request.json(&json!({ "session_id": session.id }));
        let about = About::Other { session: session.number, by: by.number };
        self.call(request, Question::new(Kind::RevokeSession, about).with_token(&access)).await.0
    }

    pub async fn logout_everywhere(&self, by: &Session, keeps: bool, number: usize) -> Answer {
        let access = by.newest();
        let request = self.post("/api/account/logout_everywhere").bearer_auth(&access.token);
        let request = request.json(&json!({ "keep_current": keeps, "password": password(number) }));
        let about = About::User { user: by.user, by: by.number, keeps };
        let question = Question::new(Kind::LogoutEverywhere, about).with_token(&access);
        self.call(request, question.with_password(number)).await.0
    }

    /// Sets the password after `number`.
    pub async fn change_password(&self, by: &Session, number: usize) -> Answer {
        let access = by.newest();
        let request = self.post("/api/account/change_password").bearer_auth(&access.token);
        let request = request.json(&json!({ "current": password(number), "new": password(number + 1) }));
        let about = About::User { user: by.user, by: by.number, keeps: true };
        let question = Question::new(Kind::ChangePassword, about).with_token(&access);
        self.call(request, question.with_password(number)).await.0
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.url))
    }

    async fn pair(&self, request: RequestBuilder, question: Question) -> Result<Pair, Answer> {
        let kind = question.kind;
        let (sent, before) = (self.history.now(), self.clock.step());
        let (answer, body) = self.call(request, question).await;
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
            session_id: text("session_id"),
            access: Access { token: text("access_token"), good_until },
            refresh: text("refresh_token"),
        })
    }

    async fn call(&self, request: RequestBuilder, question: Question) -> (Answer, Value) {
        let Question { kind, about, password, good_until, is_last } = question;
        let (sent, before) = (self.history.now(), self.clock.step());
        let (answer, body) = send(request).await.unwrap_or((Answer::None, Value::Null));
        let ended = self.history.now();
        let is_ahead = [before, self.clock.step()].into_iter().any(Step::is_fast);
        let good_until = if is_ahead && good_until != NEVER { At::ZERO } else { good_until };
        let instance = self.instance;
        self.history.record(Call {
            kind,
            about,
            instance,
            sent,
            ended,
            answer,
            password,
            good_until,
            is_last,
        });
        (answer, body)
    }
}

/// What goes into the history of a call before it is sent.
struct Question {
    kind: Kind,
    about: About,
    password: Option<usize>,
    good_until: At,
    is_last: bool,
}

impl Question {
    fn new(kind: Kind, about: About) -> Self {
        Self { kind, about, password: None, good_until: NEVER, is_last: false }
    }

    fn with_token(self, access: &Access) -> Self {
        Self { good_until: access.good_until, ..self }
    }

    fn with_password(self, number: usize) -> Self {
        Self { password: Some(number), ..self }
    }
}

/// A user's first password is number 0.
fn password(number: usize) -> String {
    format!("correct horse battery {number}")
}

/// The answer, read to its end.
async fn send(request: RequestBuilder) -> reqwest::Result<(Answer, Value)> {
    let answer = request.send().await?;
    let status = answer.status().as_u16();
    let body = answer.bytes().await?;
    Ok((Answer::Status(status), serde_json::from_slice(&body).unwrap_or_default()))
}
