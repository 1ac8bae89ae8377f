//! Sends the mails in the outbox: a background task of each instance, so that a slow mail server delays no request.
//!
//! A mail is deleted from the outbox when the mail server has accepted it. If the instance is killed between the two,
//! another attempt is made after a minute: a mail may arrive twice, with the same `Message-ID`, and none is lost. A
//! mail that the server refuses for good, or has not accepted when it is of no use any more, is dropped.
//!
//! `server/mod.rs` runs it. It calls `auth/` for the text of tokens, and `db/` for the outbox.

use std::{net::SocketAddr, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use anyhow::Result;
use futures::{FutureExt, future::join_all};
use metrics::counter;
use tokio::time::{self, MissedTickBehavior};
use tracing::{error, info, warn};

use self::{
    template::Site,
    transport::{SendError, Transport},
};
use super::{
    auth::Auth,
    clock,
    config::Config,
    db::{Db, DbError, outbox::Claimed},
    ids::MailTokenId,
};

pub mod folder;
mod template;
mod transport;

/// How often the outbox is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The number of mails that are sent at a time.
const AT_ONCE: i64 = 10;

/// The timeout for sending one mail. The outbox does not give it to others for longer than this.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// The first and the longest wait before another attempt, in seconds.
const AGAIN_AFTER: i64 = 2;
const AGAIN_AT_MOST: i64 = 600;

/// What sends mails.
pub struct Mailer {
    site: Site,
    transport: Transport,
}

impl Mailer {
    /// For an instance that listens at this address.
    ///
    /// # Errors
    /// A setting cannot be used.
    pub fn new(config: &Config, listener: SocketAddr) -> Result<Self> {
        let transport = Transport::new(&config.mail)?;
        info!("mails are {transport}");
        Ok(Self { site: Site::of(config, listener), transport })
    }

    /// Sends what comes into the outbox, forever.
    pub async fn run(self, auth: Arc<Auth>, db: Db) {
        let mut interval = time::interval(LOOK_EVERY);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let sending = AssertUnwindSafe(self.send_due(&auth, &db)).catch_unwind();
            match sending.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!("the outbox cannot be used: {error}"),
                Err(_) => error!("sending mails panicked; retrying"),
            }
        }
    }

    /// Sends the mails that are due, until there are none.
    async fn send_due(&self, auth: &Auth, db: &Db) -> Result<(), DbError> {
        loop {
            let due = db.claim_mails(AT_ONCE, clock::now()).await?;
            if due.is_empty() {
                return Ok(());
            }
            let sending = due.into_iter().map(|mail| self.send(mail, |id| auth.mail_token(id), db));
            join_all(sending).await.into_iter().collect::<Result<(), _>>()?;
        }
    }

    async fn send(
        &self,
        Claimed { id, recipient, mail, attempts, is_last }: Claimed,
        token: impl Fn(MailTokenId) -> String,
        db: &Db,
    ) -> Result<(), DbError> {
        if recipient.is_empty() {
            return db.delete_mail(id).await;
        }
        let kind = mail.kind();
        let sending = async {
            let message = template::message(id, &recipient, &mail, &self.site, token)?;
            self.transport.send(message).await
        };
        let sent = time::timeout(SEND_TIMEOUT, sending).await.unwrap_or(Err(SendError::Timeout));
        match sent {
            Ok(()) => {
                counter!("hallpass_mails_total", "result" => "sent").increment(1);
                db.delete_mail(id).await
            }
            Err(error) if error.is_permanent() || is_last => {
                counter!("hallpass_mails_total", "result" => "dropped").increment(1);
                error!(mail.id = %id, mail.kind = kind, %error, "mail {id} ({kind}) was not sent and is dropped: {error}");
                db.delete_mail(id).await
            }
            Err(error) => {
                counter!("hallpass_mails_total", "result" => "postponed").increment(1);
                let wait = wait_after(attempts);
                warn!(mail.id = %id, mail.kind = kind, %error, "mail {id} ({kind}) was not sent, next attempt in {wait} s: {error}");
                db.postpone_mail(id, wait, clock::now()).await
            }
        }
    }
}

/// The wait after this many attempts, in seconds.
fn wait_after(attempts: i64) -> i64 {
    let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(20);
    (AGAIN_AFTER << doublings).min(AGAIN_AT_MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_doubles_up_to_ten_minutes() {
        let waits: Vec<_> = (1..=12).map(wait_after).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600]);
        assert_eq!((wait_after(0), wait_after(i64::MAX)), (2, 600));
    }
}
