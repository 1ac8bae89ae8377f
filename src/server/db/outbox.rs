//! The outbox: mails that have to be sent. A mail is added in the transaction of the change that it is about, so that
//! there is a mail if and only if there is the change, and a background task sends it (`server/mail/`).

use std::time::Duration;

use futures::FutureExt;
use serde::{Deserialize, Serialize};
use sqlx::{AnyConnection, AssertSqlSafe, FromRow};
use tokio::time;
use tracing::warn;

use super::{
    Db, DbError, decode,
    mail_tokens::{self, MailToken, Purpose},
};
use crate::{
    api::types::Role,
    server::{
        clock::UnixSeconds,
        ids::{MailId, MailTokenId, UserId},
    },
};

/// How long a mail without a token is tried to be sent, in seconds: 3 days.
const NOTICE_LIFE: i64 = 3 * 86_400;

/// How long another attempt is not made after one has begun, in seconds: longer than an attempt takes. The process that
/// has begun it may have been killed.
const ATTEMPT_AGAIN_AFTER: i64 = 150;

/// The timeout for finding out whether there is any mail to send.
const LOOK_TIMEOUT: Duration = Duration::from_secs(8);

/// What a mail says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Mail {
    /// A link to choose a new password.
    Reset {
        token: MailTokenId,
    },
    /// A link to choose the first password.
    Invite {
        token: MailTokenId,
    },
    /// A link to confirm the address.
    Verify {
        token: MailTokenId,
    },
    /// A link to make an account.
    Register {
        token: MailTokenId,
    },
    /// The address was registered again, by an owner who has forgotten the account, or by another person.
    Taken,
    /// A link to make this the address of the account.
    ChangeEmail {
        token: MailTokenId,
    },
    /// The address that an account was to have belongs to another account.
    NewEmailTaken,
    /// The account has another address now; a link to undo that.
    EmailChanged {
        token: MailTokenId,
    },
    /// The account has its earlier address again, which this one is.
    EmailRestored,
    /// A sign-in from a browser that the account does not know.
    SignedIn {
        device: String,
        address: String,
        at: UnixSeconds,
    },
    PasswordChanged,
    /// An administrator has set the password.
    PasswordSet,
    /// The password was reset by the link in a mail.
    PasswordReset,
    RoleChanged {
        role: Role,
    },
    /// A used refresh token was presented again.
    TokenReused {
        device: String,
        address: String,
    },
    /// The account was deleted.
    Deleted,
    /// What the user signs in with was changed.
    FactorsChanged {
        change: FactorChange,
    },
    /// A sign-in with a recovery code.
    RecoveryCodeUsed,
    /// The password was entered with a wrong code.
    WrongCode {
        device: String,
        address: String,
    },
}

/// A change of what a user signs in with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactorChange {
    TotpAdded,
    TotpRemoved,
    PasskeyAdded,
    PasskeyRemoved,
    RecoveryCodesRenewed,
    /// All were removed, by an operator.
    AllRemoved,
}

impl Mail {
    /// How long the mail is tried to be sent, in seconds.
    fn life(&self) -> i64 {
        match self {
            Self::Reset { .. } => Purpose::Reset.life(),
            Self::Invite { .. } => Purpose::Invite.life(),
            Self::Verify { .. } => Purpose::Verify.life(),
            Self::Register { .. } => Purpose::Register.life(),
            Self::ChangeEmail { .. } => Purpose::ChangeEmail.life(),
            _ => NOTICE_LIFE,
        }
    }
}

/// A mail that this process is about to send.
#[derive(Debug)]
pub struct Claimed {
    pub id: MailId,
    /// Empty: the mail is not sent.
    pub recipient: String,
    pub mail: Mail,
    /// The number of attempts, with this one.
    pub attempts: i64,
    /// Whether the mail is of no use any more.
    pub is_expired: bool,
}

/// Adds a mail. With an empty recipient it is never sent, but costs the same time.
pub async fn add(
    connection: &mut AnyConnection,
    recipient: &str,
    mail: &Mail,
    now: UnixSeconds,
) -> Result<(), DbError> {
    sqlx::query(
        "insert into outbox (id, recipient, mail, next_attempt_at, expires_at) values ($1, $2, $3, $4, $5)",
    )
    .bind(MailId::random().to_string())
    .bind(recipient)
    .bind(encode(mail)?)
    .bind(now)
    .bind(now + mail.life())
    .execute(connection)
    .await?;
    Ok(())
}

/// Adds a token and the mail that carries it, unless the address has enough of them.
pub async fn add_with_token(
    connection: &mut AnyConnection,
    token: &MailToken,
    recipient: &str,
    mail: impl FnOnce(MailTokenId) -> Mail,
    now: UnixSeconds,
) -> Result<(), DbError> {
    match mail_tokens::add(connection, token, now).await? {
        Some(id) => add(connection, recipient, &mail(id), now).await,
        None => Ok(()),
    }
}

/// Adds a notice to a user, unless they have not confirmed their address: others may have registered it.
pub async fn notify(
    connection: &mut AnyConnection,
    user_id: UserId,
    mail: &Mail,
    now: UnixSeconds,
) -> Result<(), DbError> {
    sqlx::query(
        "insert into outbox (id, recipient, mail, next_attempt_at, expires_at) \
         select $1, email, $2, $3, $4 from users where id = $5 and email_verified_at is not null",
    )
    .bind(MailId::random().to_string())
    .bind(encode(mail)?)
    .bind(now)
    .bind(now + mail.life())
    .bind(user_id.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

fn encode(mail: &Mail) -> Result<String, DbError> {
    serde_json::to_string(mail).map_err(|error| DbError::Encode(Box::new(error)))
}

#[derive(FromRow)]
struct Row {
    id: String,
    recipient: String,
    mail: String,
    attempts: i64,
    is_expired: i64,
}

impl Db {
    /// Takes mails to send, at most `count`. No other process takes them for two and a half minutes, in which they have to be
    /// sent and deleted, or postponed.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn claim_mails(&self, count: usize, own: UnixSeconds) -> Result<Vec<Claimed>, DbError> {
        let clock = self.clock_expression(own);
        let due = format!("select id from outbox where next_attempt_at <= {clock}");
        // Most of the time there is none, and a write would take the writer of SQLite.
        let look = AssertSqlSafe(format!("{due} limit 1"));
        let looking = async { sqlx::query(look).fetch_optional(&mut *self.pool.acquire().await?).await };
        if time::timeout(LOOK_TIMEOUT, looking).await.unwrap_or(Err(DbError::PoolTimedOut))?.is_none() {
            return Ok(Vec::new());
        }
        let lock = if self.is_postgres() { "for update skip locked" } else { "" };
        let claim = format!(
            "update outbox set attempts = attempts + 1, next_attempt_at = {clock} + {ATTEMPT_AGAIN_AFTER} \
             where id in ({due} order by next_attempt_at limit {count} {lock}) \
             returning id, recipient, mail, attempts, \
             case when expires_at <= {clock} then 1 else 0 end as is_expired"
        );
        let claiming = self.requests().transaction(move |connection| {
            async move { sqlx::query_as(AssertSqlSafe(claim)).fetch_all(connection).await }.boxed()
        });
        let rows: Vec<Row> = claiming.await?;
        let mut claimed = Vec::with_capacity(rows.len());
        for row in rows {
            match serde_json::from_str(&row.mail) {
                Ok(mail) => claimed.push(Claimed {
                    id: decode::parse(&row.id)?,
                    recipient: row.recipient,
                    mail,
                    attempts: row.attempts,
                    is_expired: row.is_expired != 0,
                }),
                // A newer version has added it, and will send it.
                Err(error) if row.is_expired == 0 => {
                    warn!(mail.id = row.id, "mail {} cannot be read: {error}", row.id);
                }
                Err(_) => self.delete_mail(decode::parse(&row.id)?).await?,
            }
        }
        Ok(claimed)
    }

    /// Deletes a mail that was sent, or is never going to be.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn delete_mail(&self, id: MailId) -> Result<(), DbError> {
        self.update_mail(id, "delete from outbox where id = $1".into()).await
    }

    /// Schedules the next attempt to send a mail, in `seconds`.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn postpone_mail(&self, id: MailId, seconds: i64, own: UnixSeconds) -> Result<(), DbError> {
        let clock = self.clock_expression(own);
        let statement = format!("update outbox set next_attempt_at = {clock} + {seconds} where id = $1");
        self.update_mail(id, statement).await
    }

    async fn update_mail(&self, id: MailId, statement: String) -> Result<(), DbError> {
        self.requests()
            .transaction(move |connection| {
                async move {
                    let id = id.to_string();
                    sqlx::query(AssertSqlSafe(statement)).bind(id).execute(connection).await.map(drop)
                }
                .boxed()
            })
            .await
    }
}
