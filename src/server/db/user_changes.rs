//! Changes of a user that revoke their sessions.

use futures::FutureExt;
use hallpass_allowlist::RevokedSession;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{AnyConnection, AssertSqlSafe, Row};

use crate::{
    api::types::{EndReason, Role},
    server::{
        clock::UnixSeconds,
        db::{
            ChangeError, Db, DbError, MANY_TIMEOUT, allow_time,
            events::{self, AccountEvent},
            factors::{self, NewPasskey},
            is_postgres,
            mail_tokens::{self, MailToken, Purpose},
            outbox::{self, FactorChange, Mail},
            sessions,
            users::{self, Locked, NO_PASSWORD},
        },
        ids::{MailTokenId, PasskeyId, SessionId, UserId},
    },
};

/// A change of a user that revokes their sessions.
#[derive(Debug, Clone)]
pub enum Change {
    /// The user can no longer log in.
    Disable,
    Role(Role),
    /// The password, set by an administrator.
    SetPassword {
        hash: String,
    },
    /// The password, changed by the user, if it is still the one of that version. The session `except`
    /// continues.
    Password {
        hash: String,
        version: i64,
        except: SessionId,
    },
    /// The password, by the token of a mail, if neither password nor address has changed since.
    ResetPassword {
        token: MailTokenId,
        hash: String,
    },
    /// The address, by the token of a mail to the new one, if the password has not changed since.
    Email {
        token: MailTokenId,
    },
    /// The address, by the token of a mail to the earlier one. The password is void, because someone else may know
    /// it.
    RestoreEmail {
        token: MailTokenId,
    },
    /// The account is deleted, if the password is still the one of that version.
    Delete {
        version: i64,
    },
    /// A factor is added or removed. The session `except` continues.
    Factor {
        change: Factor,
        except: SessionId,
    },
    /// All factors are removed, by an operator.
    RemoveFactors,
}

/// A factor that is added or removed.
#[derive(Debug, Clone)]
pub enum Factor {
    /// The authenticator app with this secret, of which the code of this time step was entered, and the hashes of the
    /// recovery codes.
    AddTotp {
        secret: SecretString,
        step: i64,
        recovery_codes: Vec<String>,
    },
    RemoveTotp,
    AddPasskey(NewPasskey),
    RemovePasskey(PasskeyId),
}

/// What a change brings about.
struct Consequences {
    event: Option<AccountEvent>,
    reason: EndReason,
    /// The session that is not revoked.
    except: Option<SessionId>,
    /// The notice to the user, at the address that they have afterwards.
    notice: Option<Mail>,
}

impl Change {
    fn consequences(&self) -> Consequences {
        let (event, reason, notice) = match self {
            Self::Disable => (Some(AccountEvent::Disabled), EndReason::Disabled, None),
            Self::Role(role) => {
                let notice = Mail::RoleChanged { role: *role };
                (Some(AccountEvent::RoleChanged), EndReason::RoleChanged, Some(notice))
            }
            Self::SetPassword { .. } => {
                (Some(AccountEvent::PasswordSet), EndReason::PasswordSet, Some(Mail::PasswordSet))
            }
            Self::Password { .. } => {
                (Some(AccountEvent::PasswordChanged), EndReason::PasswordChanged, Some(Mail::PasswordChanged))
            }
            Self::ResetPassword { .. } => {
                (Some(AccountEvent::PasswordReset), EndReason::PasswordReset, Some(Mail::PasswordReset))
            }
            Self::Email { .. } => (Some(AccountEvent::EmailChanged), EndReason::EmailChanged, None),
            Self::RestoreEmail { .. } => {
                (Some(AccountEvent::EmailRestored), EndReason::EmailChanged, Some(Mail::EmailRestored))
            }
            Self::Delete { .. } => (None, EndReason::Deleted, None),
            Self::Factor { change, .. } => {
                let (event, change) = match change {
                    Factor::AddTotp { .. } => (AccountEvent::TotpAdded, FactorChange::TotpAdded),
                    Factor::RemoveTotp => (AccountEvent::TotpRemoved, FactorChange::TotpRemoved),
                    Factor::AddPasskey(_) => (AccountEvent::PasskeyAdded, FactorChange::PasskeyAdded),
                    Factor::RemovePasskey(_) => (AccountEvent::PasskeyRemoved, FactorChange::PasskeyRemoved),
                };
                (Some(event), EndReason::FactorsChanged, Some(Mail::FactorsChanged { change }))
            }
            Self::RemoveFactors => {
                let notice = Mail::FactorsChanged { change: FactorChange::AllRemoved };
                (Some(AccountEvent::FactorsRemoved), EndReason::FactorsChanged, Some(notice))
            }
        };
        let except = match self {
            Self::Password { except, .. } | Self::Factor { except, .. } => Some(*except),
            _ => None,
        };
        Consequences { event, reason, except, notice }
    }
}

impl Db {
    /// Makes a change to a user, revokes their sessions, records the event, and adds the notices to the outbox: all or
    /// nothing. Returns the revoked sessions. With `by`, that session authorizes the change.
    ///
    /// # Errors
    /// Nothing is changed: [`ChangeError::NotFound`] if there is no such user or `change` no longer applies
    /// to them; [`ChangeError::SessionEnded`] if `by` has ended; or the database cannot be used.
    pub async fn change_user(
        &self,
        user_id: UserId,
        change: Change,
        by: Option<SessionId>,
        own: UnixSeconds,
    ) -> Result<Vec<RevokedSession>, ChangeError> {
        let clock = self.clock_expression(own);
        self.revocation_of_many()
            .transaction(move |connection| {
                async move {
                    allow_time(connection, MANY_TIMEOUT).await?;
                    let Consequences { event, reason, except, notice } = change.consequences();
                    let now = apply(connection, user_id, change, &clock).await?;
                    sessions::lock_in_order(connection, Some(user_id), [by, None]).await?;
                    sessions::require_live(connection, by).await?;
                    if let Some(event) = event {
                        events::record(connection, user_id, event, None, now).await?;
                    }
                    if let Some(notice) = notice {
                        outbox::notify(connection, user_id, &notice, now).await?;
                    }
                    let revoked = sessions::revoke_all(connection, user_id, except, reason, now).await?;
                    if reason == EndReason::Deleted {
                        sessions::forget_devices(connection, user_id).await?;
                    }
                    Ok(revoked)
                }
                .boxed()
            })
            .await
    }
}

/// Changes the row of the user, which it locks, and what depends on it. Returns the time.
async fn apply(
    connection: &mut AnyConnection,
    user_id: UserId,
    change: Change,
    clock: &str,
) -> Result<UnixSeconds, ChangeError> {
    let user = Target { user_id, clock };
    match change {
        Change::Disable => {
            let set = format!("disabled_at = coalesce(disabled_at, {clock})");
            user.update(connection, &set, "true", &[]).await
        }
        Change::Role(role) => user.update(connection, "role = $2", "true", &[role.as_str()]).await,
        Change::SetPassword { hash } => user.update(connection, SET_PASSWORD, "true", &[&hash]).await,
        Change::Password { hash, version, .. } => {
            user.update(connection, SET_PASSWORD, &is_version(version), &[&hash]).await
        }
        Change::ResetPassword { token, hash } => {
            let (token, version) = user.take(connection, token, Purpose::allows_reset).await?;
            if !user.lock(connection).await?.is_verified {
                // Another person may have registered the address, and added these.
                factors::remove_all(connection, user_id).await?;
            }
            // Who has opened the link receives mail at the address.
            let set = format!("{SET_PASSWORD}, email_verified_at = coalesce(email_verified_at, {clock})");
            let condition = format!("{} and email = $3 and disabled_at is null", is_version(version));
            user.update(connection, &set, &condition, &[&hash, &token.email]).await
        }
        Change::Email { token } => user.change_email(connection, token).await,
        Change::RestoreEmail { token } => user.restore_email(connection, token).await,
        Change::Delete { version } => user.delete(connection, version).await,
        Change::Factor { change, .. } => user.change_factor(connection, change).await,
        Change::RemoveFactors => {
            let now = user.update(connection, NEXT_VERSION, "true", &[]).await?;
            factors::remove_all(connection, user_id).await?;
            Ok(now)
        }
    }
}

/// The factors that were added in this time before a change of the address is undone are removed: as long as the change
/// can be undone, and three days before it.
const FACTORS_IN_DOUBT: i64 = 6 * 86_400;

const SET_PASSWORD: &str = "password_hash = $2, password_version = password_version + 1";

/// A login that has read what the user signed in with before cannot finish.
const NEXT_VERSION: &str = "password_version = password_version + 1";

fn is_version(version: i64) -> String {
    format!("password_version = {version}")
}

/// The user whose row is changed. `clock` is the expression for the current time.
struct Target<'a> {
    user_id: UserId,
    clock: &'a str,
}

impl Target<'_> {
    /// Updates the row if it satisfies the condition. `values` are the parameters from `$2` on.
    async fn update(
        &self,
        connection: &mut AnyConnection,
        set: &str,
        condition: &str,
        values: &[&str],
    ) -> Result<UnixSeconds, ChangeError> {
        let clock = self.clock;
        let statement = format!(
            "update users set {set} where id = $1 and deleted_at is null and {condition} returning {clock}"
        );
        let mut update = sqlx::query(AssertSqlSafe(statement)).bind(self.user_id.to_string());
        for value in values {
            update = update.bind((*value).to_owned());
        }
        let updated = update.fetch_all(connection).await?;
        Ok(updated.first().ok_or(ChangeError::NotFound)?.try_get(0)?)
    }

    /// Uses up a token of this user. Returns it with the version that the password had. Before the row of the user is
    /// locked: two transactions that each lock both must not do so in different orders.
    async fn take(
        &self,
        connection: &mut AnyConnection,
        id: MailTokenId,
        is_right: impl Fn(Purpose) -> bool,
    ) -> Result<(MailToken, i64), ChangeError> {
        let token = mail_tokens::take(connection, id, self.clock).await?;
        let token = token.filter(|token| is_right(token.purpose)).ok_or(ChangeError::NotFound)?;
        let version = token.user.filter(|(user_id, _)| *user_id == self.user_id).map(|(_, version)| version);
        Ok((token, version.ok_or(ChangeError::NotFound)?))
    }

    /// Adds or removes a factor.
    async fn change_factor(
        &self,
        connection: &mut AnyConnection,
        change: Factor,
    ) -> Result<UnixSeconds, ChangeError> {
        let user_id = self.user_id;
        // An account that was deleted has no live session that could ask for it.
        let locked = users::lock(connection, user_id, self.clock).await?;
        let Locked { password_version, .. } = locked.ok_or(ChangeError::SessionEnded)?;
        if matches!(&change, Factor::AddPasskey(new) if new.password_version != password_version) {
            return Err(ChangeError::NotFound);
        }
        let now = self.update(connection, NEXT_VERSION, "true", &[]).await?;
        let is_changed = match change {
            Factor::AddTotp { secret, step, recovery_codes } => {
                let secret = secret.expose_secret();
                factors::add_totp(connection, user_id, (secret, step), &recovery_codes, self.clock).await?
            }
            Factor::RemoveTotp => factors::remove_totp(connection, user_id).await?,
            Factor::AddPasskey(passkey) => {
                factors::add_passkey(connection, user_id, &passkey, self.clock).await?
            }
            Factor::RemovePasskey(id) => factors::remove_passkey(connection, user_id, id).await?,
        };
        if is_changed { Ok(now) } else { Err(ChangeError::NotFound) }
    }

    /// Makes the address of the token that of the user. The owner of the former one can undo it.
    async fn change_email(
        &self,
        connection: &mut AnyConnection,
        token: MailTokenId,
    ) -> Result<UnixSeconds, ChangeError> {
        let (token, version) =
            self.take(connection, token, |purpose| purpose == Purpose::ChangeEmail).await?;
        let Locked { email: former, is_verified, .. } = self.lock(connection).await?;
        let set = format!(
            "email = $2, email_verified_at = {}, password_version = password_version + 1",
            self.clock
        );
        let condition = format!(
            "{} and disabled_at is null and not exists (select 1 from users where email = $2)",
            is_version(version)
        );
        let now = taken_is_not_found(self.update(connection, &set, &condition, &[&token.email]).await)?;
        // After the update, which has waited for a change that gives the address up.
        if mail_tokens::is_reserved(connection, &token.email, Some(self.user_id), self.clock).await? {
            return Err(ChangeError::NotFound);
        }
        // An address that was never confirmed may be that of a stranger.
        if is_verified {
            let undo = MailToken::of_user(Purpose::RestoreEmail, former.clone(), (self.user_id, version));
            let mail = |token| Mail::EmailChanged { token };
            outbox::add_with_token(connection, &undo, &former, mail, now).await?;
        }
        Ok(now)
    }

    /// Makes the address of the token that of the user again, and the password void. Removes the factors of the last
    /// days.
    async fn restore_email(
        &self,
        connection: &mut AnyConnection,
        token: MailTokenId,
    ) -> Result<UnixSeconds, ChangeError> {
        // Addresses that the account had later must not win over this one.
        mail_tokens::delete_later(connection, self.user_id, Purpose::RestoreEmail, token).await?;
        let (token, _) = self.take(connection, token, |purpose| purpose == Purpose::RestoreEmail).await?;
        let set = format!("{SET_PASSWORD}, email = $3, email_verified_at = {}", self.clock);
        let updated = self.update(connection, &set, "true", &[NO_PASSWORD, &token.email]).await;
        let now = taken_is_not_found(updated)?;
        // A thief may have added a factor before changing the address.
        factors::remove_added_since(connection, self.user_id, now - FACTORS_IN_DOUBT).await?;
        Ok(now)
    }

    /// Removes what is personal, except for the devices of the sessions. The row stays as long as there are sessions, which
    /// name it.
    async fn delete(&self, connection: &mut AnyConnection, version: i64) -> Result<UnixSeconds, ChangeError> {
        let id = self.user_id.to_string();
        let is_postgres = is_postgres(connection);
        if is_postgres {
            // Of two administrators who delete themselves at the same time, one has to stay.
            sqlx::query("select id from users where role = 'admin' order by id for update")
                .fetch_all(&mut *connection)
                .await?;
        }
        let Locked { email: former, now, .. } = self.lock(connection).await?;
        // Before tokens of mails: a wrong code locks these rows in the same order.
        factors::remove_all(connection, self.user_id).await?;
        // A token that is being used locks its row before that of the user.
        let skip = if is_postgres { "for update skip locked" } else { "" };
        let tokens = format!(
            "delete from mail_tokens where id in \
             (select id from mail_tokens where user_id = $1 or email = $2 {skip})"
        );
        sqlx::query(AssertSqlSafe(tokens)).bind(&id).bind(&former).execute(&mut *connection).await?;
        for (table, column, value) in [("account_events", "user_id", &id), ("outbox", "recipient", &former)] {
            let delete = AssertSqlSafe(format!("delete from {table} where {column} = $1"));
            sqlx::query(delete).bind(value).execute(&mut *connection).await?;
        }
        outbox::notify(connection, self.user_id, &Mail::Deleted, now).await?;
        let set = format!(
            "{SET_PASSWORD}, email = $3, role = 'user', email_verified_at = null, last_login_at = null, \
             disabled_at = {clock}, deleted_at = {clock}",
            clock = self.clock
        );
        let condition = format!(
            "{} and (role <> 'admin' or exists (select 1 from users as other \
             where other.role = 'admin' and other.disabled_at is null and other.id <> $1))",
            is_version(version)
        );
        // No address contains a colon outside quotes, so none can be this one.
        self.update(connection, &set, &condition, &[NO_PASSWORD, &format!("deleted:{id}")]).await
    }

    async fn lock(&self, connection: &mut AnyConnection) -> Result<Locked, ChangeError> {
        let locked = users::lock(connection, self.user_id, self.clock).await?;
        locked.ok_or(ChangeError::NotFound)
    }
}

/// An address that another user has registered in the meantime makes the change inapplicable.
fn taken_is_not_found(updated: Result<UnixSeconds, ChangeError>) -> Result<UnixSeconds, ChangeError> {
    updated.map_err(|error| match error {
        ChangeError::Db(DbError::Database(error)) if error.is_unique_violation() => ChangeError::NotFound,
        other => other,
    })
}
