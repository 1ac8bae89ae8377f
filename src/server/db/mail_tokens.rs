//! The table of one-time tokens that were sent by mail.
//!
//! A token is void once its row is gone, its time is over, or what it was issued for has changed: the address, or
//! the version of the password. Nothing has to delete the tokens of a user for that.

use sqlx::{AnyConnection, AssertSqlSafe, FromRow};

use super::{Db, DbError, decode};
use crate::server::{
    clock::UnixSeconds,
    ids::{MailTokenId, UserId},
};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;

/// The live tokens of one purpose for one address. A request for more gets the same answer, and the mailbox gets no
/// further mail until one of them has expired.
const SLOTS: [i64; 3] = [0, 1, 2];

/// What the holder of a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Choose a new password.
    Reset,
    /// Choose the first password of an account that an operator has made.
    Invite,
    /// Confirm the address of an account.
    Verify,
    /// Make an account.
    Register,
    /// Nothing: the token only takes up a slot, for a mail that tells the owner of an account about an attempt to
    /// register its address again.
    Taken,
    /// Nothing: the token only takes up a slot, for a notice about a new device.
    SignedIn,
    /// Nothing: the token only takes up a slot, for a notice about a wrong code.
    WrongCode,
    /// Make this address that of the account.
    ChangeEmail,
    /// Make this address that of the account again.
    RestoreEmail,
}

impl Purpose {
    const ALL: [(Self, &str, i64); 9] = [
        (Self::Reset, "reset", 20 * MINUTE),
        (Self::Invite, "invite", 72 * HOUR),
        (Self::Verify, "verify", 24 * HOUR),
        (Self::Register, "register", HOUR),
        (Self::Taken, "taken", 24 * HOUR),
        (Self::SignedIn, "signed_in", HOUR),
        (Self::WrongCode, "wrong_code", HOUR),
        (Self::ChangeEmail, "change_email", HOUR),
        (Self::RestoreEmail, "restore_email", 72 * HOUR),
    ];

    fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(purpose, ..)| *purpose == self).map_or("", |(_, text, _)| text)
    }

    /// How long a token for this can be used, in seconds.
    pub fn life(self) -> i64 {
        Self::ALL.iter().find(|(purpose, ..)| *purpose == self).map_or(0, |(.., life)| *life)
    }

    /// Whether the holder may choose a password.
    pub fn allows_reset(self) -> bool {
        matches!(self, Self::Reset | Self::Invite)
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known, _)| *known == text).map(|(purpose, ..)| *purpose)
    }
}

/// A token, as a row of the table.
#[derive(Clone)]
pub struct MailToken {
    pub purpose: Purpose,
    /// The address that it was sent to.
    pub email: String,
    /// The user, and the version of the password when the token was issued. `None` if there was no user.
    pub user: Option<(UserId, i64)>,
    /// The hash of the password of an account that is to be made.
    pub password_hash: Option<String>,
}

impl MailToken {
    /// A token for a user, who comes with the version of the password.
    pub fn of_user(purpose: Purpose, email: String, user: (UserId, i64)) -> Self {
        Self { purpose, email, user: Some(user), password_hash: None }
    }
}

#[derive(FromRow)]
struct Row {
    purpose: String,
    email: String,
    user_id: Option<String>,
    password_version: Option<i64>,
    password_hash: Option<String>,
}

const COLUMNS: &str = "purpose, email, user_id, password_version, password_hash";

impl Row {
    /// `None` for a purpose of another version.
    fn read(self) -> Result<Option<MailToken>, DbError> {
        let Some(purpose) = Purpose::parse(&self.purpose) else { return Ok(None) };
        let user_id: Option<UserId> = self.user_id.as_deref().map(decode::parse).transpose()?;
        let user = user_id.zip(self.password_version);
        Ok(Some(MailToken { purpose, email: self.email, user, password_hash: self.password_hash }))
    }
}

/// Adds a token. `None` if the address has as many live ones for this purpose as it may have.
pub async fn add(
    connection: &mut AnyConnection,
    token: &MailToken,
    now: UnixSeconds,
) -> Result<Option<MailTokenId>, DbError> {
    // Two requests at the same time choose the same slot, and one of them has to look again.
    match add_once(connection, token, now).await? {
        None => add_once(connection, token, now).await,
        id => Ok(id),
    }
}

async fn add_once(
    connection: &mut AnyConnection,
    token: &MailToken,
    now: UnixSeconds,
) -> Result<Option<MailTokenId>, DbError> {
    let id = MailTokenId::random();
    let slots = SLOTS.map(|slot| format!("select {slot} as slot")).join(" union all ");
    let added = sqlx::query(AssertSqlSafe(format!(
        "insert into mail_tokens (id, {COLUMNS}, expires_at, slot) \
         select $1, $2, $3, $4, $5, $6, $7, slot from ({slots}) as slots \
         where not exists (select 1 from mail_tokens as live \
             where live.purpose = $2 and live.email = $3 and live.slot = slots.slot and live.expires_at > $8) \
         order by slot limit 1 \
         on conflict (purpose, email, slot) do update set \
             id = excluded.id, user_id = excluded.user_id, password_version = excluded.password_version, \
             password_hash = excluded.password_hash, expires_at = excluded.expires_at \
         where mail_tokens.expires_at <= $8"
    )))
    .bind(id.to_string())
    .bind(token.purpose.as_str())
    .bind(&token.email)
    .bind(token.user.map(|(user_id, _)| user_id.to_string()))
    .bind(token.user.map(|(_, password_version)| password_version))
    .bind(token.password_hash.as_deref())
    .bind(now + token.purpose.life())
    .bind(now)
    .execute(connection)
    .await?;
    Ok((added.rows_affected() > 0).then_some(id))
}

/// Uses up a token: of two that present it at the same time, one gets it. `None` if it was used or has expired.
/// `clock` is the expression for the current time.
pub async fn take(
    connection: &mut AnyConnection,
    id: MailTokenId,
    clock: &str,
) -> Result<Option<MailToken>, DbError> {
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(format!(
        "delete from mail_tokens where id = $1 and expires_at > {clock} returning {COLUMNS}"
    )))
    .bind(id.to_string())
    .fetch_all(connection)
    .await?;
    rows.into_iter().next().map_or(Ok(None), Row::read)
}

/// Deletes the tokens of a user for this purpose that were issued after this one.
pub async fn delete_later(
    connection: &mut AnyConnection,
    user_id: UserId,
    purpose: Purpose,
    id: MailTokenId,
) -> Result<(), DbError> {
    let delete = "delete from mail_tokens where user_id = $1 and purpose = $2 and id <> $3 \
                  and expires_at >= (select expires_at from mail_tokens where id = $3)";
    sqlx::query(delete)
        .bind(user_id.to_string())
        .bind(purpose.as_str())
        .bind(id.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// Whether a user other than `own` had this address before and may have it back.
pub async fn is_reserved(
    connection: &mut AnyConnection,
    email: &str,
    own: Option<UserId>,
    clock: &str,
) -> Result<bool, DbError> {
    let reserving = sqlx::query(AssertSqlSafe(format!(
        "select 1 from mail_tokens where purpose = $1 and email = $2 and user_id <> $3 and expires_at > {clock}"
    )))
    .bind(Purpose::RestoreEmail.as_str())
    .bind(email)
    .bind(own.map(|id| id.to_string()).unwrap_or_default())
    .fetch_all(connection)
    .await?;
    Ok(!reserving.is_empty())
}

impl Db {
    /// A token that was neither used nor has expired.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn mail_token(&self, id: MailTokenId, own: UnixSeconds) -> Result<Option<MailToken>, DbError> {
        let clock = self.clock_expression(own);
        let select = format!("select {COLUMNS} from mail_tokens where id = $1 and expires_at > {clock}");
        let row: Option<Row> = sqlx::query_as(AssertSqlSafe(select))
            .bind(id.to_string())
            .fetch_optional(&mut *self.pool.acquire().await?)
            .await?;
        row.map_or(Ok(None), Row::read)
    }
}
