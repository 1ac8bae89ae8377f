//! Links in mails, with several instances: no session that was begun with the old password or address outlives its end,
//! and a token that is presented to several instances at once works once.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    client::{Api, PASSWORD, Pair, answer},
    support::{
        mails::token_to,
        world::{Kind, World},
    },
};

const ROUNDS: usize = 12;
const NEW: &str = "staple battery horse";
const MAIL_TIMEOUT: Duration = Duration::from_mins(2);

struct Site {
    _world: World,
    api: Api,
    mails: TempDir,
}

impl Site {
    async fn start() -> Self {
        let mails = TempDir::new().unwrap();
        let settings = [("HALLPASS_MAIL_DIR", mails.path().to_str().unwrap())];
        let world = World::with(Kind::Single, &settings).await;
        let api = Api::of(&world);
        api.register(0, "ann@example.com").await;
        api.confirm_quickly(&world).await;
        Self { _world: world, api, mails }
    }

    async fn token(&self, address: &str, path: &str) -> String {
        let token = token_to(self.mails.path(), address, path, MAIL_TIMEOUT).await;
        token.unwrap_or_else(|| panic!("no mail to {address}"))
    }

    async fn reset_token(&self, instance: usize, email: &str) -> String {
        let forgot = self.api.post(instance, "/api/auth/forgot_password").json(&json!({ "email": email }));
        assert_eq!(answer(forgot).await.0, 200);
        self.token(email, "/reset").await
    }

    async fn reset(&self, instance: usize, token: &str, password: &str) -> (u16, Value) {
        let body = json!({ "token": token, "password": password });
        let (status, body) = answer(self.api.post(instance, "/api/auth/reset_password").json(&body)).await;
        (status.as_u16(), body)
    }

    async fn try_login(&self, instance: usize, email: &str, password: &str) -> Option<Pair> {
        let body = json!({ "email": email, "password": password, "delivery": "body" });
        let (status, body) = answer(self.api.post(instance, "/api/auth/login").json(&body)).await;
        assert!(matches!(status.as_u16(), 200 | 401), "{status}: {body}");
        (status == 200).then(|| Pair::of(&body))
    }

    /// Several logins, one after another on each instance, until they are refused or there were enough.
    async fn logins(&self, email: &str) -> Vec<Pair> {
        let of_instance = async |instance| {
            let mut begun = Vec::new();
            for _ in 0..4 {
                begun.extend(self.try_login(instance, email, PASSWORD).await);
            }
            begun
        };
        join_all((0..3).map(of_instance)).await.into_iter().flatten().collect()
    }

    async fn assert_dead(&self, sessions: &[Pair], case: &str) {
        for pair in sessions {
            assert_eq!(self.api.me_everywhere(pair).await, [401; 3], "{case}");
            assert_eq!(self.api.refresh(0, pair).await.unwrap_err(), 401, "{case}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_session_of_the_old_password_outlives_its_reset() {
    let site = Site::start().await;
    let mut raced = 0;
    for round in 0..ROUNDS {
        let email = format!("user{round}@example.com");
        let first = site.api.register(round, &email).await;
        let token = site.reset_token(round + 1, &email).await;
        let (logins, (status, body)) = tokio::join!(site.logins(&email), site.reset(round + 2, &token, NEW));
        assert_eq!((status, &body["acknowledged"]), (200, &json!(3)), "{body}");
        raced += usize::from((1..12).contains(&logins.len()));
        site.assert_dead(&[vec![first], logins].concat(), "begun with the old password").await;
        let new = site.try_login(round, &email, NEW).await.unwrap();
        assert_eq!(site.api.me_everywhere(&new).await, [200; 3]);
    }
    assert!(raced > 0, "the logins all came before the reset, or all after it: no race");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn token_that_is_presented_to_all_instances_at_once_works_once() {
    let site = Site::start().await;
    for round in 0..ROUNDS {
        let email = format!("user{round}@example.com");
        site.api.register(round, &email).await;
        let token = site.reset_token(round, &email).await;
        let passwords: Vec<_> = (0..6).map(|number| format!("{NEW} {number}")).collect();
        let resets =
            passwords.iter().enumerate().map(|(number, password)| site.reset(number, &token, password));
        let statuses: Vec<_> = join_all(resets).await.into_iter().map(|(status, _)| status).collect();
        let winners: Vec<_> = (0..6).filter(|&number| statuses[number] == 200).collect();
        assert_eq!(winners.len(), 1, "{statuses:?}");
        assert!(statuses.iter().all(|status| [200, 401].contains(status)), "{statuses:?}");
        for (number, password) in passwords.iter().enumerate() {
            let session = site.try_login(number, &email, password).await;
            assert_eq!(session.is_some(), number == winners[0], "password {number}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_session_of_the_old_address_outlives_its_change() {
    let site = Site::start().await;
    for round in 0..ROUNDS {
        let (email, next) = (format!("user{round}@example.com"), format!("next{round}@example.com"));
        let first = site.api.register(round, &email).await;
        let change = json!({ "email": next, "password": PASSWORD });
        let change =
            site.api.post(round, "/api/account/change_email").bearer_auth(&first.access).json(&change);
        assert_eq!(answer(change).await.0, 200);
        let token = site.token(&next, "/verify").await;
        let confirm = site.api.post(round + 1, "/api/auth/verify_email").json(&json!({ "token": token }));
        let (logins, (status, body)) = tokio::join!(site.logins(&email), answer(confirm));
        assert_eq!((status.as_u16(), &body["revocation"]["acknowledged"]), (200, &json!(3)), "{body}");
        site.assert_dead(&[vec![first], logins].concat(), "its tokens have the old address").await;
        assert!(site.try_login(round, &email, PASSWORD).await.is_none());
        assert!(site.try_login(round, &next, PASSWORD).await.is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_session_outlives_its_account() {
    let site = Site::start().await;
    for round in 0..ROUNDS {
        let email = format!("user{round}@example.com");
        let first = site.api.register(round, &email).await;
        let delete = site.api.post(round, "/api/account/delete").bearer_auth(&first.access);
        let delete = delete.json(&json!({ "password": PASSWORD }));
        let (logins, (status, body)) = tokio::join!(site.logins(&email), answer(delete));
        assert_eq!((status.as_u16(), &body["acknowledged"]), (200, &json!(3)), "{body}");
        site.assert_dead(&[vec![first], logins].concat(), "of the deleted account").await;
        assert!(site.try_login(round, &email, PASSWORD).await.is_none());
    }
}

/// Not by two of them, which look at the same outbox.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_mail_is_sent_by_one_of_the_instances() {
    let site = Site::start().await;
    let emails: Vec<_> = (0..60).map(|number| format!("user{number}@example.com")).collect();
    join_all(emails.iter().enumerate().map(|(number, email)| site.api.register(number, email))).await;
    for email in &emails {
        site.token(email, "/verify").await;
    }
    for email in &emails {
        assert!(
            token_to(site.mails.path(), email, "/verify", Duration::from_millis(1)).await.is_none(),
            "twice"
        );
    }
}
