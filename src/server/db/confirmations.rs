//! What users ask for and confirm by mail. Each request adds a token and its mail to the outbox, both or neither.
//!
//! A request answers the same, and does the same work, whether there is a user with the address or not.

use futures::FutureExt;
use sqlx::{AnyConnection, AssertSqlSafe};

use super::{
    ChangeError, Db, DbError,
    mail_tokens::{self, MailToken, Purpose},
    outbox::{self, Mail},
    sessions,
    users::{self, Email, NO_PASSWORD, User},
};
use crate::server::{
    clock::UnixSeconds,
    ids::{MailTokenId, SessionId, UserId},
};

impl Db {
    /// Sends a link to choose a new password, if there is a user with this address who may log in.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn request_reset(&self, email: &Email, own: UnixSeconds) -> Result<(), DbError> {
        let user = self.find_user(email).await?.filter(|user| user.disabled_at.is_none());
        let token = MailToken {
            purpose: Purpose::Reset,
            email: user.as_ref().map_or(email.as_str(), |user| &user.email).to_owned(),
            user: user.as_ref().map(|user| (user.id, user.password_version)),
            password_hash: None,
        };
        let recipient = if user.is_some() { token.email.clone() } else { String::new() };
        self.request(token, recipient, |token| Mail::Reset { token }, own).await
    }

    /// Sends a link to make an account with this address and password, or, to the owner of an account that has this
    /// address, a note.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn request_registration(
        &self,
        email: &Email,
        password_hash: String,
        own: UnixSeconds,
    ) -> Result<(), DbError> {
        let user = self.find_user(email).await?;
        let is_taken = user.is_some();
        let recipient = user.map_or_else(|| email.as_str().to_owned(), |user| user.email);
        let token = MailToken {
            purpose: if is_taken { Purpose::Taken } else { Purpose::Register },
            email: recipient.clone(),
            user: None,
            password_hash: (!is_taken).then_some(password_hash),
        };
        let mail = move |token| if is_taken { Mail::Taken } else { Mail::Register { token } };
        self.request(token, recipient, mail, own).await
    }

    /// Sends a link to confirm the address of a user.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn request_verification(&self, user: &User, own: UnixSeconds) -> Result<(), DbError> {
        let user_at = (user.id, user.password_version);
        let token = MailToken::of_user(Purpose::Verify, user.email.clone(), user_at);
        self.request(token, user.email.clone(), |token| Mail::Verify { token }, own).await
    }

    /// Adds a user who has no password, and sends a link to choose one. Returns its token; `None` if the address is taken.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn invite(&self, email: &Email, own: UnixSeconds) -> Result<Option<MailTokenId>, DbError> {
        if self.find_user(email).await?.is_some() {
            return Ok(None);
        }
        let (clock, email) = (self.clock_expression(own), email.as_str().to_owned());
        self.requests()
            .transaction(move |connection| {
                async move {
                    let id = UserId::random();
                    let added = users::insert(connection, id, &email, NO_PASSWORD, false, &clock).await?;
                    let Some(now) = added else { return Ok(None) };
                    let user = (id, now);
                    let token = MailToken::of_user(Purpose::Invite, email.clone(), user);
                    // Without a link the account would be of no use.
                    let token = mail_tokens::add(connection, &token, now).await?;
                    let token = token.ok_or(DbError::RowNotFound)?;
                    outbox::add(connection, &email, &Mail::Invite { token }, now).await?;
                    Ok(Some(token))
                }
                .boxed()
            })
            .await
    }

    /// Sends a link to make this address that of the user or, if another account has it, a note that says so. The
    /// session `by` authorizes it.
    ///
    /// # Errors
    /// [`ChangeError::SessionEnded`]; or the database cannot be used.
    pub async fn request_email_change(
        &self,
        user: &User,
        new: &Email,
        by: SessionId,
        own: UnixSeconds,
    ) -> Result<(), ChangeError> {
        let owner = self.find_user(new).await?;
        let is_taken = owner.is_some();
        let recipient = owner.map_or_else(|| new.as_str().to_owned(), |user| user.email);
        let token = MailToken {
            purpose: Purpose::ChangeEmail,
            email: recipient.clone(),
            user: (!is_taken).then_some((user.id, user.password_version)),
            password_hash: None,
        };
        let clock = self.clock_expression(own);
        self.requests()
            .transaction(move |connection| {
                async move {
                    let now = now(connection, &clock).await?;
                    let mail =
                        |token| if is_taken { Mail::NewEmailTaken } else { Mail::ChangeEmail { token } };
                    outbox::add_with_token(connection, &token, &recipient, mail, now).await?;
                    // Last: the new row has locked that of the user.
                    sessions::require_live(connection, Some(by)).await
                }
                .boxed()
            })
            .await
    }

    async fn request(
        &self,
        token: MailToken,
        recipient: String,
        mail: impl FnOnce(MailTokenId) -> Mail + Send + 'static,
        own: UnixSeconds,
    ) -> Result<(), DbError> {
        let clock = self.clock_expression(own);
        self.requests()
            .transaction(move |connection| {
                async move {
                    let now = now(connection, &clock).await?;
                    outbox::add_with_token(connection, &token, &recipient, mail, now).await
                }
                .boxed()
            })
            .await
    }

    /// Confirms the address that the token was sent to, if the user still has it. Returns whether it does.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn verify_email(&self, id: MailTokenId, own: UnixSeconds) -> Result<bool, DbError> {
        let clock = self.clock_expression(own);
        self.requests()
            .transaction(move |connection| {
                async move {
                    let token = mail_tokens::take(connection, id, &clock).await?;
                    let token = token.filter(|token| token.purpose == Purpose::Verify);
                    let Some((email, (user_id, _))) =
                        token.and_then(|token| Some((token.email, token.user?)))
                    else {
                        return Ok(false);
                    };
                    let statement = format!(
                        "update users set email_verified_at = coalesce(email_verified_at, {clock}) \
                         where id = $1 and email = $2 and deleted_at is null"
                    );
                    let updated = sqlx::query(AssertSqlSafe(statement))
                        .bind(user_id.to_string())
                        .bind(email)
                        .execute(connection)
                        .await?;
                    Ok(updated.rows_affected() > 0)
                }
                .boxed()
            })
            .await
    }

    /// Makes the account that the token was issued for. `None` if the token is void, or the address is taken by now.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn register_verified(
        &self,
        id: MailTokenId,
        own: UnixSeconds,
    ) -> Result<Option<UserId>, DbError> {
        let clock = self.clock_expression(own);
        self.requests()
            .transaction(move |connection| {
                async move {
                    let token = mail_tokens::take(connection, id, &clock).await?;
                    let token = token.filter(|token| token.purpose == Purpose::Register);
                    let Some((email, hash)) =
                        token.and_then(|token| Some((token.email, token.password_hash?)))
                    else {
                        return Ok(None);
                    };
                    let user_id = UserId::random();
                    let added = users::insert(connection, user_id, &email, &hash, true, &clock).await?;
                    Ok(added.map(|_| user_id))
                }
                .boxed()
            })
            .await
    }
}

/// The time by the clock of the database. The first statement of a transaction writes, so that it has the writer of
/// SQLite before it reads.
async fn now(connection: &mut AnyConnection, clock: &str) -> Result<UnixSeconds, DbError> {
    sqlx::query("update users set id = id where id = ''").execute(&mut *connection).await?;
    sqlx::query_scalar(AssertSqlSafe(format!("select {clock}"))).fetch_one(connection).await
}
