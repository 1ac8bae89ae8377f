//! A client of one instance that records every call in the history.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use reqwest::{Client, RequestBuilder, redirect::Policy};
use serde_json::{Value, json};
use tokio::time;

use crate::{
    authenticator::Passkey,
    faults::{
        history::{About, Answer, At, Call, History, Kind, NEVER},
        sessions::{Access, Session},
    },
    support::{
        clock::{Clock, Step},
        gate::Gate,
        world::World,
    },
};

/// Longer than an instance ever takes to answer: a call that has timed out here must not be carried out
/// afterwards.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The longest time after which a client disconnects, if it does.
const HANGS_UP: Duration = Duration::from_millis(50);
/// The rounding error of expiry times: tokens expire in whole seconds.
const ROUNDED_OFF: Duration = Duration::from_secs(2);

/// A client of one instance.
pub struct Caller {
    pub instance: usize,
    url: String,
    clock: Arc<Clock>,
    http: Client,
    /// Who answers whether a token is live, beside the instance: its own gate, the guards, and the gate on its own. A
    /// client and an address of each.
    others: Vec<(Client, String)>,
    history: Arc<History>,
    /// Decides which calls are not waited for.
    rng: Mutex<Rng>,
    /// The number of calls in a hundred that are not waited for.
    hang_ups: u8,
}

/// The tokens that a login or a refresh returned.
pub struct Pair {
    pub session_id: String,
    pub access: Access,
    pub refresh: String,
}

impl Caller {
    pub fn new(number: usize, world: &World, history: Arc<History>, rng: Rng, hang_ups: u8) -> Self {
        let instance = &world.instances[number];
        let client = || Client::builder().timeout(PATIENCE).redirect(Policy::none());
        let at_socket = |socket: &Path| {
            (client().unix_socket(socket.to_owned()).build().unwrap(), "http://gate/gate/forward".to_owned())
        };
        let mut others = vec![at_socket(&instance.gate())];
        others.extend(world.gate.iter().filter_map(Gate::socket).map(at_socket));
        let guards =
            world.guards.iter().map(|guard| (client().build().unwrap(), format!("{}/notes", guard.url)));
        others.extend(guards);
        Self {
            instance: number,
            url: instance.url.clone(),
            clock: Arc::clone(&instance.clock),
            http: client().build().unwrap(),
            others,
            history,
            rng: rng.into(),
            hang_ups,
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

    /// Asks for a link to reset the password. It is no call that the guarantee is about.
    pub async fn forgot_password(&self, user: usize) {
        let request = self.post("/api/auth/forgot_password").json(&json!({ "email": self.email(user) }));
        let _ = send(request, false).await;
    }

    /// Sets the password number `number + 1`, with the token of a mail. `session` is one of the user.
    pub async fn reset_password(&self, session: &Session, token: &str, number: usize) -> Answer {
        let body = json!({ "token": token, "password": password(number + 1) });
        let about = About::User { user: session.user, by: session.number, keeps: false };
        let question = Question::new(Kind::ResetPassword, about).with_password(number);
        self.call(self.post("/api/auth/reset_password").json(&body), question).await.0
    }

    pub async fn delete_account(&self, by: &Session, number: usize) -> Answer {
        let access = by.newest();
        let request = self.post("/api/account/delete").bearer_auth(&access.token);
        let request = request.json(&json!({ "password": password(number) }));
        let about = About::User { user: by.user, by: by.number, keeps: false };
        let question = Question::new(Kind::DeleteAccount, about).with_token(&access);
        self.call(request, question.with_password(number)).await.0
    }

    /// The address of the user, of this run.
    pub fn email(&self, user: usize) -> String {
        format!("user-{user}-{}@faults.example", self.history.id)
    }

    async fn log_in(&self, path: &str, session: usize, user: usize, number: usize) -> Result<Pair, Answer> {
        let body = json!({ "email": self.email(user), "password": password(number), "delivery": "body" });
        let request = self.post(path).json(&body);
        self.pair(request, Question::new(Kind::Login, About::Session(session)).with_password(number)).await
    }

    /// Refreshes. `good_until` is the end of the grace if the token may have been used before.
    pub async fn refresh(
        &self,
        session: usize,
        token: &str,
        good_until: At,
        is_last: bool,
    ) -> Result<Pair, Answer> {
        let request = self.post("/api/auth/refresh").json(&json!({ "refresh_token": token }));
        let question = Question::new(Kind::Refresh, About::Session(session));
        self.pair(request, Question { good_until, is_last, ..question }).await
    }

    /// Opens an event stream and reads its first event.
    pub async fn events(&self, session: usize, refresh_token: &str) -> Answer {
        let cookie = format!("hallpass-refresh={refresh_token}");
        let request = self.http.get(format!("{}/api/session/events", self.url)).header("cookie", cookie);
        self.call(request, Question::new(Kind::Events, About::Session(session))).await.0
    }

    /// Requests a page, and checks that the status is one that pages have.
    pub async fn page(&self, path: &str, refresh_token: &str) {
        let cookie = format!("hallpass-refresh={refresh_token}");
        let request = self.http.get(format!("{}{path}", self.url)).header("cookie", cookie);
        let limit = self.limit(false).unwrap_or(PATIENCE);
        if let Ok(Ok(answer)) = time::timeout(limit, request.send()).await {
            let status = answer.status().as_u16();
            assert!([200, 302, 503].contains(&status), "the page {path} is answered {status}");
        }
    }

    /// The time after which the client disconnects from this call, if it does.
    fn limit(&self, is_last: bool) -> Option<Duration> {
        let mut rng = self.rng.lock().unwrap();
        (!is_last && rng.u8(..100) < self.hang_ups).then(|| HANGS_UP.mul_f64(rng.f64()))
    }

    /// The protected call of the instance or of a guard, or the same question of a proxy.
    pub async fn me(&self, session: usize, access: &Access, is_last: bool) -> Answer {
        let other = {
            let mut rng = self.rng.lock().unwrap();
            if rng.bool() { rng.choice(&self.others) } else { None }
        };
        let request = match other {
            Some((client, url)) => client.get(url),
            None => self.post("/api/account/me"),
        };
        let request = request.bearer_auth(&access.token);
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

    /// Sets the password number `number + 1`.
    pub async fn change_password(&self, by: &Session, number: usize) -> Answer {
        let access = by.newest();
        let request = self.post("/api/account/change_password").bearer_auth(&access.token);
        let request = request.json(&json!({ "current": password(number), "new": password(number + 1) }));
        let about = About::User { user: by.user, by: by.number, keeps: true };
        let question = Question::new(Kind::ChangePassword, about).with_token(&access);
        self.call(request, question.with_password(number)).await.0
    }

    /// Adds a passkey. `None` if it could not begin, which the guarantee is not about.
    pub async fn add_passkey(&self, by: &Session, number: usize) -> Option<Answer> {
        let access = by.newest();
        let begin = self.post("/api/account/begin_passkey").bearer_auth(&access.token);
        let begin = begin.json(&json!({ "password": password(number) }));
        let (_, begun) = send(begin, false).await.ok().filter(|(answer, _)| answer.is_yes())?;
        let (_, made) = Passkey::make(begun["options"].as_str()?, "http://localhost");
        let body = json!({ "ceremony": begun["ceremony"], "credential": made.to_string(), "name": "phone" });
        Some(self.change_factor("/api/account/add_passkey", by, body, None).await)
    }

    /// Removes the oldest passkey. `None` if it is not known.
    pub async fn remove_passkey(&self, by: &Session, number: usize) -> Option<Answer> {
        let list = self.post("/api/account/sign_in_methods").bearer_auth(&by.newest().token).json(&json!({}));
        let (_, methods) = send(list, false).await.ok()?;
        let id = methods["passkeys"][0]["passkey_id"].as_str()?;
        let body = json!({ "passkey_id": id, "password": password(number) });
        Some(self.change_factor("/api/account/remove_passkey", by, body, Some(number)).await)
    }

    async fn change_factor(&self, path: &str, by: &Session, body: Value, password: Option<usize>) -> Answer {
        let access = by.newest();
        let request = self.post(path).bearer_auth(&access.token).json(&body);
        let about = About::User { user: by.user, by: by.number, keeps: true };
        let question = Question::new(Kind::ChangeFactor, about).with_token(&access);
        self.call(request, Question { password, ..question }).await.0
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
        // While the clock is being stepped, the lifetime in the response means nothing.
        let lifetime = body["expires_in"].as_u64().filter(|_| was_right).map(Duration::from_secs);
        let good_until = lifetime.map_or(At::ZERO, |lifetime| sent + lifetime - ROUNDED_OFF);
        let bad_from = lifetime.map_or(NEVER, |lifetime| self.history.now() + lifetime + ROUNDED_OFF);
        Ok(Pair {
            session_id: text("session_id"),
            access: Access { token: text("access_token"), good_until, bad_from },
            refresh: text("refresh_token"),
        })
    }

    async fn call(&self, request: RequestBuilder, question: Question) -> (Answer, Value) {
        let Question { kind, about, password, good_until, bad_from, is_last } = question;
        let limit = self.limit(is_last);
        let (sent, before) = (self.history.now(), self.clock.step());
        let sending = send(request, kind == Kind::Events);
        let (answer, body) = match limit {
            Some(limit) => time::timeout(limit, sending).await.unwrap_or(Ok((Answer::HungUp, Value::Null))),
            None => sending.await,
        }
        .unwrap_or((Answer::None, Value::Null));
        let ended = self.history.now();
        let was_right = [before, self.clock.step()] == [Step::Right; 2];
        let bad_from = if was_right { bad_from } else { NEVER };
        let count = |key: &str| body[key].as_u64();
        let counts = count("instances").zip(count("acknowledged"));
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
            bad_from,
            counts,
            is_last,
        });
        (answer, body)
    }
}

/// What the history records about a call before it is sent.
struct Question {
    kind: Kind,
    about: About,
    password: Option<usize>,
    good_until: At,
    bad_from: At,
    is_last: bool,
}

impl Question {
    fn new(kind: Kind, about: About) -> Self {
        Self { kind, about, password: None, good_until: NEVER, bad_from: NEVER, is_last: false }
    }

    fn with_token(self, access: &Access) -> Self {
        Self { good_until: access.good_until, bad_from: access.bad_from, ..self }
    }

    fn with_password(self, number: usize) -> Self {
        Self { password: Some(number), ..self }
    }
}

/// The password with this number. A user's first password is number 0.
fn password(number: usize) -> String {
    format!("correct horse battery {number}")
}

/// Reads the response to its end; of an event stream, only the beginning.
async fn send(request: RequestBuilder, is_stream: bool) -> reqwest::Result<(Answer, Value)> {
    let mut answer = request.send().await?;
    let status = answer.status().as_u16();
    if is_stream && status == 200 {
        answer.chunk().await?;
        return Ok((Answer::Status(status), Value::Null));
    }
    let body = answer.bytes().await?;
    Ok((Answer::Status(status), serde_json::from_slice(&body).unwrap_or_default()))
}
