//! The tables of authenticator apps, recovery codes and passkeys: what a user signs in with besides the password.
//!
//! Whatever works once (a code, a ceremony) is used up in the transaction that begins the session, by one statement, so
//! that of two sign-ins with it, on whichever instances, one begins a session.

use futures::FutureExt;
use sqlx::{AnyConnection, AssertSqlSafe, FromRow};

use super::{
    ChangeError, Db, DbError, decode,
    events::{self, AccountEvent},
    outbox::{self, FactorChange, Mail},
    users::{self, Locked},
};
use crate::server::{
    clock::UnixSeconds,
    ids::{CeremonyId, PasskeyId, SessionId, UserId},
    sign_in_method::SignInMethod,
};

/// The most passkeys of a user.
pub const MAX_PASSKEYS: i64 = 20;

/// How long after a secret was made the app can be taken into use, in seconds.
const TOTP_LIFE: i64 = 900;

/// The wrong codes in a row after which no code of the authenticator app is accepted until the user has signed in with a
/// recovery code or a passkey (NIST SP 800-63B-4, 3.2.2).
const MAX_FAILURES: i64 = 100;

/// What a user has shown, besides being entitled to sign in. Its check is complete except for what must be used up.
#[derive(Debug, Clone)]
pub enum Proof {
    Password,
    /// The password, and the code of this time step.
    Totp {
        step: i64,
    },
    /// The password, and a recovery code with this hash.
    RecoveryCode {
        hash: String,
    },
    Passkey(PasskeyUse),
}

impl Proof {
    pub fn method(&self) -> SignInMethod {
        match self {
            Self::Password => SignInMethod::Password,
            Self::Totp { .. } | Self::RecoveryCode { .. } => SignInMethod::PasswordAndCode,
            Self::Passkey(_) => SignInMethod::Passkey,
        }
    }
}

/// The valid answer of a passkey.
#[derive(Debug, Clone)]
pub struct PasskeyUse {
    pub id: PasskeyId,
    pub ceremony: Ceremony,
    /// The passkey as JSON, with the counter and the flags of the answer.
    pub credential: String,
    pub signatures: i64,
}

/// A ceremony that is completed at most once.
#[derive(Debug, Clone, Copy)]
pub struct Ceremony {
    pub id: CeremonyId,
    pub expires_at: UnixSeconds,
}

/// A passkey that is to be added.
#[derive(Debug, Clone)]
pub struct NewPasskey {
    pub ceremony: Ceremony,
    pub credential_id: String,
    pub name: String,
    /// As JSON.
    pub credential: String,
    pub signatures: i64,
    /// The version of the password when the ceremony began: a change since then makes it void.
    pub password_version: i64,
}

/// A passkey, as a row of the table.
#[derive(FromRow)]
pub struct PasskeyRow {
    pub id: String,
    pub name: String,
    pub credential: String,
    pub signatures: i64,
    pub created_at: UnixSeconds,
    pub last_used_at: Option<UnixSeconds>,
}

const PASSKEY_COLUMNS: &str = "id, name, credential, signatures, created_at, last_used_at";

/// Uses up what works once. Returns whether it was not used before; if it was, the caller rolls back. The caller's
/// transaction holds the row of the user.
pub async fn use_up(
    connection: &mut AnyConnection,
    user_id: UserId,
    proof: &Proof,
    now: UnixSeconds,
) -> Result<bool, DbError> {
    let user = user_id.to_string();
    let used = match proof {
        Proof::Password => return Ok(true),
        Proof::Totp { step } => {
            sqlx::query(
                "update totp set last_step = $1, failures = 0 \
                 where user_id = $2 and added_at is not null and last_step < $1 and failures < $3",
            )
            .bind(*step)
            .bind(user)
            .bind(MAX_FAILURES)
            .execute(connection)
            .await?
        }
        Proof::RecoveryCode { hash } => {
            let deleted = sqlx::query("delete from recovery_codes where hash = $1 and user_id = $2")
                .bind(hash)
                .bind(user)
                .execute(&mut *connection)
                .await?;
            if deleted.rows_affected() > 0 {
                forget_failures(connection, user_id).await?;
                events::record(connection, user_id, AccountEvent::RecoveryCodeUsed, None, now).await?;
                outbox::notify(connection, user_id, &Mail::RecoveryCodeUsed, now).await?;
            }
            deleted
        }
        Proof::Passkey(passkey) => {
            if !complete(connection, passkey.ceremony).await? {
                return Ok(false);
            }
            forget_failures(connection, user_id).await?;
            // A counter that does not grow may be that of a copy (WebAuthn Level 3, 6.1.1), also if two answers arrive at
            // the same time.
            sqlx::query(
                "update passkeys set credential = $1, signatures = $2, last_used_at = $3 \
                 where id = $4 and user_id = $5 and (signatures < $2 or (signatures = 0 and $2 = 0))",
            )
            .bind(&passkey.credential)
            .bind(passkey.signatures)
            .bind(now)
            .bind(passkey.id.to_string())
            .bind(user)
            .execute(connection)
            .await?
        }
    };
    Ok(used.rows_affected() > 0)
}

async fn forget_failures(connection: &mut AnyConnection, user_id: UserId) -> Result<(), DbError> {
    sqlx::query("update totp set failures = 0 where user_id = $1")
        .bind(user_id.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// Completes a ceremony. Returns whether it was not completed before.
async fn complete(connection: &mut AnyConnection, ceremony: Ceremony) -> Result<bool, DbError> {
    let added = sqlx::query(
        "insert into completed_ceremonies (id, expires_at) values ($1, $2) on conflict (id) do nothing",
    )
    .bind(ceremony.id.to_string())
    .bind(ceremony.expires_at)
    .execute(connection)
    .await?;
    Ok(added.rows_affected() > 0)
}

/// Takes the authenticator app into use that [`Db::begin_totp`] has recorded. Returns whether it was not in use.
pub async fn add_totp(
    connection: &mut AnyConnection,
    user_id: UserId,
    (secret, step): (&str, i64),
    recovery_codes: &[String],
    clock: &str,
) -> Result<bool, DbError> {
    let added = sqlx::query(AssertSqlSafe(format!(
        "update totp set added_at = {clock}, last_step = $1 \
         where user_id = $2 and secret = $3 and added_at is null and begun_at > {clock} - {TOTP_LIFE}"
    )))
    .bind(step)
    .bind(user_id.to_string())
    .bind(secret)
    .execute(&mut *connection)
    .await?;
    replace_recovery_codes(connection, user_id, recovery_codes).await?;
    Ok(added.rows_affected() > 0)
}

/// Removes the authenticator app and the recovery codes. Returns whether there was one.
pub async fn remove_totp(connection: &mut AnyConnection, user_id: UserId) -> Result<bool, DbError> {
    replace_recovery_codes(connection, user_id, &[]).await?;
    let removed = sqlx::query("delete from totp where user_id = $1 and added_at is not null")
        .bind(user_id.to_string())
        .execute(connection)
        .await?;
    Ok(removed.rows_affected() > 0)
}

async fn replace_recovery_codes(
    connection: &mut AnyConnection,
    user_id: UserId,
    hashes: &[String],
) -> Result<(), DbError> {
    sqlx::query("delete from recovery_codes where user_id = $1")
        .bind(user_id.to_string())
        .execute(&mut *connection)
        .await?;
    for hash in hashes {
        sqlx::query("insert into recovery_codes (hash, user_id) values ($1, $2)")
            .bind(hash)
            .bind(user_id.to_string())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Adds a passkey. Returns whether it was added: its ceremony was not completed before, it is not known, and the user has
/// not too many.
pub async fn add_passkey(
    connection: &mut AnyConnection,
    user_id: UserId,
    new: &NewPasskey,
    clock: &str,
) -> Result<bool, DbError> {
    if !complete(connection, new.ceremony).await? {
        return Ok(false);
    }
    let added = sqlx::query(AssertSqlSafe(format!(
        "insert into passkeys (id, user_id, credential_id, name, credential, signatures, created_at) \
         select $1, $2, $3, $4, $5, $6, {clock} \
         where (select count(*) from passkeys where user_id = $2) < {MAX_PASSKEYS} \
         on conflict (credential_id) do nothing"
    )))
    .bind(PasskeyId::random().to_string())
    .bind(user_id.to_string())
    .bind(&new.credential_id)
    .bind(&new.name)
    .bind(&new.credential)
    .bind(new.signatures)
    .execute(connection)
    .await?;
    Ok(added.rows_affected() > 0)
}

/// Removes a passkey. Returns whether the user had it.
pub async fn remove_passkey(
    connection: &mut AnyConnection,
    user_id: UserId,
    id: PasskeyId,
) -> Result<bool, DbError> {
    let removed = sqlx::query("delete from passkeys where id = $1 and user_id = $2")
        .bind(id.to_string())
        .bind(user_id.to_string())
        .execute(connection)
        .await?;
    Ok(removed.rows_affected() > 0)
}

/// Removes all that a user signs in with besides the password.
pub async fn remove_all(connection: &mut AnyConnection, user_id: UserId) -> Result<(), DbError> {
    for table in ["totp", "recovery_codes", "passkeys"] {
        sqlx::query(AssertSqlSafe(format!("delete from {table} where user_id = $1")))
            .bind(user_id.to_string())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Removes the authenticator app and the passkeys that were added since then, and all recovery codes.
pub async fn remove_added_since(
    connection: &mut AnyConnection,
    user_id: UserId,
    since: UnixSeconds,
) -> Result<(), DbError> {
    // They may have been renewed since then.
    replace_recovery_codes(connection, user_id, &[]).await?;
    for delete in [
        "delete from totp where user_id = $1 and added_at >= $2",
        "delete from passkeys where user_id = $1 and created_at >= $2",
    ] {
        sqlx::query(delete).bind(user_id.to_string()).bind(since).execute(&mut *connection).await?;
    }
    Ok(())
}

impl Db {
    /// Records the secret of an authenticator app that is to be added; an earlier one that was not taken into use is
    /// replaced. The session `by` authorizes it. Returns whether there is no app in use.
    ///
    /// # Errors
    /// [`ChangeError::SessionEnded`]; or the database cannot be used.
    pub async fn begin_totp(
        &self,
        user_id: UserId,
        secret: &str,
        by: SessionId,
        own: UnixSeconds,
    ) -> Result<bool, ChangeError> {
        let (clock, secret) = (self.clock_expression(own), secret.to_owned());
        self.requests()
            .transaction(move |connection| {
                async move {
                    let locked = users::lock_on_authority(connection, user_id, by, &clock).await?;
                    let recorded = sqlx::query(
                        "insert into totp (user_id, secret, begun_at, last_step) values ($1, $2, $3, 0) \
                         on conflict (user_id) do update set \
                             secret = excluded.secret, begun_at = excluded.begun_at, last_step = 0, failures = 0 \
                         where totp.added_at is null",
                    )
                    .bind(user_id.to_string())
                    .bind(secret)
                    .bind(locked.now)
                    .execute(connection)
                    .await?;
                    Ok(recorded.rows_affected() > 0)
                }
                .boxed()
            })
            .await
    }

    /// The secret of the authenticator app of a user, and when it was added: `None` if it is not in use yet.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn totp_of(&self, user_id: UserId) -> Result<Option<(String, Option<UnixSeconds>)>, DbError> {
        sqlx::query_as("select secret, added_at from totp where user_id = $1")
            .bind(user_id.to_string())
            .fetch_optional(&mut *self.pool.acquire().await?)
            .await
    }

    /// The number of recovery codes that a user has not used.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn count_recovery_codes(&self, user_id: UserId) -> Result<i64, DbError> {
        sqlx::query_scalar("select count(*) from recovery_codes where user_id = $1")
            .bind(user_id.to_string())
            .fetch_one(&mut *self.pool.acquire().await?)
            .await
    }

    /// The passkeys of a user, the oldest first.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn passkeys_of(&self, user_id: UserId) -> Result<Vec<PasskeyRow>, DbError> {
        sqlx::query_as(AssertSqlSafe(format!(
            "select {PASSKEY_COLUMNS} from passkeys where user_id = $1 order by created_at, id"
        )))
        .bind(user_id.to_string())
        .fetch_all(&mut *self.pool.acquire().await?)
        .await
    }

    /// The passkey with this credential id, and its user.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn find_passkey(&self, credential_id: &str) -> Result<Option<(UserId, PasskeyRow)>, DbError> {
        #[derive(FromRow)]
        struct Row {
            user_id: String,
            #[sqlx(flatten)]
            passkey: PasskeyRow,
        }
        let row: Option<Row> = sqlx::query_as(AssertSqlSafe(format!(
            "select user_id, {PASSKEY_COLUMNS} from passkeys where credential_id = $1"
        )))
        .bind(credential_id)
        .fetch_optional(&mut *self.pool.acquire().await?)
        .await?;
        row.map(|row| Ok((decode::parse(&row.user_id)?, row.passkey))).transpose()
    }

    /// Replaces the recovery codes of a user with an authenticator app, on the authority of the session `by`.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`] without an app; [`ChangeError::SessionEnded`]; or the database cannot be used.
    pub async fn renew_recovery_codes(
        &self,
        user_id: UserId,
        hashes: Vec<String>,
        by: SessionId,
        own: UnixSeconds,
    ) -> Result<(), ChangeError> {
        let clock = self.clock_expression(own);
        self.requests()
            .transaction(move |connection| {
                async move {
                    let Locked { now, .. } =
                        users::lock_on_authority(connection, user_id, by, &clock).await?;
                    let has_app = "select 1 from totp where user_id = $1 and added_at is not null";
                    let app = sqlx::query(has_app).bind(user_id.to_string()).fetch_all(&mut *connection);
                    if app.await?.is_empty() {
                        return Err(ChangeError::NotFound);
                    }
                    replace_recovery_codes(connection, user_id, &hashes).await?;
                    let event = AccountEvent::RecoveryCodesRenewed;
                    events::record(connection, user_id, event, None, now).await?;
                    let change = FactorChange::RecoveryCodesRenewed;
                    Ok(outbox::notify(connection, user_id, &Mail::FactorsChanged { change }, now).await?)
                }
                .boxed()
            })
            .await
    }

    /// Gives a passkey another name. Returns whether the user has it.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn rename_passkey(&self, user_id: UserId, id: PasskeyId, name: &str) -> Result<bool, DbError> {
        let name = name.to_owned();
        self.requests()
            .transaction(move |connection| {
                async move {
                    let renamed = sqlx::query("update passkeys set name = $1 where id = $2 and user_id = $3")
                        .bind(name)
                        .bind(id.to_string())
                        .bind(user_id.to_string())
                        .execute(connection)
                        .await?;
                    Ok(renamed.rows_affected() > 0)
                }
                .boxed()
            })
            .await
    }
}
