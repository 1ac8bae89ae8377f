//! What a sign-in records: the session that it begins, or that it was refused.

use futures::FutureExt;
use sqlx::{AssertSqlSafe, Row};

use crate::server::{
    client_info::Device,
    clock::UnixSeconds,
    config::TokenConfig,
    db::{
        Db, DbError,
        events::{self, AccountEvent},
        factors::{self, Proof},
        mail_tokens::{MailToken, Purpose},
        outbox::{self, Mail},
        sessions::{self, NewSession, Started},
        users::{self, Locked, User},
    },
};

/// The reason why no session was started. Nothing was recorded.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    #[error("the database: {0}")]
    Db(#[from] DbError),
    #[error("the user may not sign in, or not in this way any more")]
    NotEntitled,
    /// A code, the answer of a passkey.
    #[error("what was to be used up was used before")]
    ProofUsed,
}

impl Db {
    /// Starts a session for a user who has proved that they are the user. If the user does not know the device, they get a
    /// notice. `own` is the time by this process's clock.
    ///
    /// # Errors
    /// [`NotStarted::NotEntitled`] if the user has been disabled since they were read, or their password, role, address or
    /// a factor has changed; [`NotStarted::ProofUsed`]; or the database cannot be used.
    pub async fn start_session(
        &self,
        new: NewSession,
        user: &User,
        proof: Proof,
        is_known_device: bool,
        config: &TokenConfig,
        own: UnixSeconds,
    ) -> Result<Started, NotStarted> {
        let clock = self.clock_expression(own);
        // Before the address is confirmed, others may have registered it.
        let notice = (!is_known_device && user.email_verified_at.is_some()).then(|| {
            MailToken::of_user(Purpose::SignedIn, user.email.clone(), (user.id, user.password_version))
        });
        let (password_version, role, config) = (user.password_version, user.role, config.clone());
        self.requests()
            .transaction(move |connection| {
                async move {
                    // A write before the insert locks the row of the user, so that disabling the user either
                    // comes first and is seen here, or comes after and revokes this session too.
                    let entitled = sqlx::query(AssertSqlSafe(format!(
                        "update users set last_login_at = {clock} \
                     where id = $1 and password_version = $2 and role = $3 and disabled_at is null \
                     returning last_login_at"
                    )))
                    .bind(new.user_id.to_string())
                    .bind(password_version)
                    .bind(role.as_str())
                    .fetch_all(&mut *connection)
                    .await?;
                    let Some(row) = entitled.first() else {
                        return Err(NotStarted::NotEntitled);
                    };
                    let now = row.try_get(0)?;
                    if !factors::use_up(connection, new.user_id, &proof, now).await? {
                        return Err(NotStarted::ProofUsed);
                    }
                    let entry = sessions::start(connection, &new, &config, now).await?;
                    let displaced = sessions::displace(connection, new.user_id, &config, now).await?;
                    if let Some(notice) = notice {
                        let (device, address) = (new.device.label(), new.device.address);
                        let mail = |_| Mail::SignedIn { device, address, at: now };
                        outbox::add_with_token(connection, &notice, &notice.email, mail, now).await?;
                    }
                    Ok(Started { entry, now, displaced })
                }
                .boxed()
            })
            .await
    }

    /// Records that a user's password was entered with a wrong code, and sends the user a notice, three in an hour at most.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn record_wrong_code(
        &self,
        user: &User,
        device: Device,
        own: UnixSeconds,
    ) -> Result<(), DbError> {
        let clock = self.clock_expression(own);
        let user_id = user.id;
        let notice = user.email_verified_at.is_some().then(|| {
            let version = (user_id, user.password_version);
            MailToken::of_user(Purpose::WrongCode, user.email.clone(), version)
        });
        self.requests()
            .transaction(move |connection| {
                async move {
                    let Some(Locked { now, .. }) = users::lock(connection, user_id, &clock).await? else {
                        return Ok(());
                    };
                    sqlx::query("update totp set failures = failures + 1 where user_id = $1")
                        .bind(user_id.to_string())
                        .execute(&mut *connection)
                        .await?;
                    let event = AccountEvent::SecondFactorMissed;
                    events::record(connection, user_id, event, Some(&device), now).await?;
                    if let Some(notice) = notice {
                        let (label, address) = (device.label(), device.address);
                        let mail = |_| Mail::WrongCode { device: label, address };
                        outbox::add_with_token(connection, &notice, &notice.email, mail, now).await?;
                    }
                    Ok(())
                }
                .boxed()
            })
            .await
    }
}
