//! Sends the mails in the outbox: a background task of each instance, so that a slow mail server delays no request.
//!
//! A mail is deleted from the outbox when the mail server has accepted it. If the instance is killed between the two, or
//! the answer of the mail server does not arrive, another attempt is made: a mail may arrive twice, with the same
//! `Message-ID`, and none is lost. A mail that the server refuses for good, or has not accepted when it is of no use any
//! more, is dropped.
//!
//! `server/mod.rs` runs it. It calls `auth/` for the text of tokens, and `db/` for the outbox.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Result;
use metrics::counter;
use tokio::{
    task::{JoinError, JoinSet},
    time::{self, MissedTickBehavior},
};
use tracing::{error, info, warn};

use self::{
    template::Site,
    transport::{SendError, Transport},
};
use super::{
    auth::Auth,
    clock,
    config::{Config, MailConfig},
    db::{Db, DbError, outbox::Claimed},
    ids::MailTokenId,
};

pub mod folder;
mod template;
mod transport;

/// How often the outbox is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The number of mails that are sent at a time.
const AT_ONCE: usize = 10;

/// The timeout for sending one mail, which includes that the mail server looks through it. The outbox does not give it to
/// others for longer than this.
const SEND_TIMEOUT: Duration = Duration::from_mins(2);

/// The first and the longest wait before another attempt, in seconds.
const AGAIN_AFTER: i64 = 2;
const AGAIN_AT_MOST: i64 = 600;

/// What sends mails.
pub struct Mailer {
    site: Site,
    transport: Transport,
}

/// Checks the settings about mail, without connecting to the mail server.
///
/// # Errors
/// With the name of the variable that cannot be used.
pub fn check_settings(config: &MailConfig) -> Result<()> {
    Transport::new(config).map(drop)
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

    /// Sends what comes into the outbox, forever. Each mail is a task of its own, so that one that takes long delays no other.
    pub async fn run(self, auth: Arc<Auth>, db: Db) {
        let mailer = Arc::new(self);
        let mut interval = time::interval(LOOK_EVERY);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Dropped with this task, which stops them.
        let mut sending = JoinSet::new();
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                Some(sent) = sending.join_next(), if sending.len() >= AT_ONCE => log(sent),
            }
            while let Some(sent) = sending.try_join_next() {
                log(sent);
            }
            match db.claim_mails(AT_ONCE - sending.len(), clock::now()).await {
                Ok(due) => {
                    for mail in due {
                        let (mailer, auth, db) = (Arc::clone(&mailer), Arc::clone(&auth), db.clone());
                        sending.spawn(async move { mailer.send(mail, |id| auth.mail_token(id), &db).await });
                    }
                }
                Err(error) => warn!("the outbox cannot be read: {error}"),
            }
        }
    }

    async fn send(
        &self,
        Claimed { id, recipient, mail, attempts, is_expired }: Claimed,
        token: impl Fn(MailTokenId) -> String,
        db: &Db,
    ) -> Result<(), DbError> {
        if recipient.is_empty() {
            return db.delete_mail(id).await;
        }
        let kind = mail.kind();
        let sending = async {
            if is_expired {
                return Err(SendError::Expired);
            }
            let message = template::message(id, &recipient, &mail, &self.site, token)?;
            self.transport.send(message).await
        };
        let sent = time::timeout(SEND_TIMEOUT, sending).await.unwrap_or(Err(SendError::Timeout));
        match sent {
            Ok(()) => {
                counter!("hallpass_mails_total", "result" => "sent").increment(1);
                db.delete_mail(id).await
            }
            Err(error) if error.is_permanent() => {
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

/// Logs what went wrong beside the sending of a mail, which is attempted again when its claim ends.
fn log(sent: Result<Result<(), DbError>, JoinError>) {
    match sent {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!("the outbox cannot be written: {error}"),
        Err(error) => error!("sending a mail failed, and is attempted again: {error}"),
    }
}

/// The wait after this many attempts, in seconds.
fn wait_after(attempts: i64) -> i64 {
    let doublings = attempts.saturating_sub(1).clamp(0, 20);
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
