//! The table of sessions: the truth about who is signed in. Rotation and revocation are updates of one
//! row, so that the database orders them.

use std::collections::HashMap;

use sqlx::{AnyConnection, Connection, FromRow};

use super::{
    access_tokens::{self, CLOCK_MARGIN, TokenEntry, TokenRow},
    clock::UnixSeconds,
    config::TokenConfig,
    db::{Db, DbError},
    ids::{SessionId, TokenId, UserId},
    users::User,
};
use crate::api::types::{EndReason, Role};

const DAY: i64 = 86_400;

/// No more live sessions than this are listed.
const MAX_LISTED: i64 = 1000;

/// A session that has been revoked, with what the others need to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedSession {
    pub session_id: SessionId,
    pub user_id: UserId,
    /// Its access tokens that may still be alive somewhere.
    pub tokens: Vec<TokenId>,
}

/// What is kept of the browser or program that signed in.
#[derive(Debug, Clone, Default, PartialEq, Eq, FromRow)]
pub struct Device {
    /// What it says it is.
    pub user_agent: String,
    /// The network it came from.
    pub address: String,
}

/// A session as its user sees it.
#[derive(Debug, Clone, FromRow)]
pub struct LiveSession {
    pub id: String,
    #[sqlx(flatten)]
    pub device: Device,
    pub created_at: UnixSeconds,
    /// When the session began or was last refreshed.
    pub rotated_at: UnixSeconds,
}

/// How a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// Its current refresh token would be accepted.
    Live,
    Ended(EndReason),
    /// Never was, or ended so long ago that nothing is left of it.
    Unknown,
}

/// What became of a refresh token that was presented.
#[derive(Debug, PartialEq, Eq)]
pub enum Rotation {
    /// It was the current one, or the one before within the grace: the session goes on.
    Done(Rotated),
    /// It had been used before: stolen, or replayed (RFC 9700, 4.14.2). With the time.
    Reused(UnixSeconds),
    /// Its session has ended.
    Ended(EndReason),
    /// Its session never was, or nothing is left of it.
    Unknown,
}

/// The next step of a session.
#[derive(Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The new access token's.
    pub entry: TokenEntry,
    pub email: String,
    pub role: Role,
    /// What the refresh token that is current now counts.
    pub counter: i64,
    /// No refresh is accepted after this, unless another one comes before.
    pub idle_at: UnixSeconds,
    /// When it happened.
    pub now: UnixSeconds,
}

#[derive(FromRow)]
struct SessionRow {
    user_id: String,
    counter: i64,
    rotated_at: i64,
    expires_at: i64,
    revoked_at: Option<i64>,
    revoke_reason: Option<String>,
}

impl SessionRow {
    /// Why it has ended, if it has.
    fn ended(&self, config: &TokenConfig, now: UnixSeconds) -> Option<EndReason> {
        if self.revoked_at.is_some() {
            Some(reason(self.revoke_reason.as_deref().unwrap_or_default()))
        } else if now >= self.expires_at || now >= self.rotated_at + config.idle_ttl_seconds {
            Some(EndReason::Expired)
        } else {
            None
        }
    }
}

/// A reason as it is written in the table.
pub fn reason(text: &str) -> EndReason {
    let known = EndReason::ALL.iter().find(|(_, known)| *known == text);
    known.map_or(EndReason::SignedOut, |(reason, _)| *reason)
}

/// A role as it is written in the table; what it does not know may do the least.
pub fn role(text: &str) -> Role {
    if text == Role::Admin.as_str() { Role::Admin } else { Role::User }
}

pub(super) fn parse<T: std::str::FromStr<Err = super::ids::InvalidId>>(text: &str) -> Result<T, DbError> {
    text.parse().map_err(|error| DbError::Decode(Box::new(error)))
}

/// Starts a session, in the same transaction as what entitles the user to it.
pub async fn start(
    connection: &mut AnyConnection,
    entry: &TokenEntry,
    device: &Device,
    session_expires_at: UnixSeconds,
    now: UnixSeconds,
) -> Result<(), DbError> {
    sqlx::query(
        "insert into sessions (id, user_id, rotated_at, created_at, expires_at, user_agent, address) \
         values ($1, $2, $3, $3, $4, $5, $6)",
    )
    .bind(entry.session_id.to_string())
    .bind(entry.user_id.to_string())
    .bind(now)
    .bind(session_expires_at)
    .bind(&device.user_agent)
    .bind(&device.address)
    .execute(&mut *connection)
    .await?;
    access_tokens::record(connection, entry).await
}

/// Revokes the sessions of a user whose row the caller's transaction holds; of everyone, where no
/// user is named. Returns those that it has revoked, and those revoked before whose tokens may still
/// be alive.
pub async fn revoke_all(
    connection: &mut AnyConnection,
    user_id: Option<UserId>,
    except: Option<SessionId>,
    reason: EndReason,
    now: UnixSeconds,
) -> Result<Vec<RevokedSession>, DbError> {
    let (update, select) = match user_id {
        Some(_) => (
            "update sessions set revoked_at = $1, revoke_reason = $2 \
             where revoked_at is null and id <> $3 and user_id = $4 returning id, user_id",
            "select access_tokens.id, session_id, user_id, access_tokens.expires_at \
             from access_tokens join sessions on sessions.id = session_id \
             where revoked_at is not null and access_tokens.expires_at > $1 and user_id = $2",
        ),
        None => (
            "update sessions set revoked_at = $1, revoke_reason = $2 \
             where revoked_at is null and id <> $3 returning id, user_id",
            "select access_tokens.id, session_id, user_id, access_tokens.expires_at \
             from access_tokens join sessions on sessions.id = session_id \
             where revoked_at is not null and access_tokens.expires_at > $1",
        ),
    };
    let user_id = user_id.map(|id| id.to_string());
    let mut revoking = sqlx::query_as(update)
        .bind(now)
        .bind(reason.as_str())
        .bind(except.map(|id| id.to_string()).unwrap_or_default());
    let mut listing = sqlx::query_as::<_, TokenRow>(select).bind(now - CLOCK_MARGIN);
    if let Some(user_id) = &user_id {
        revoking = revoking.bind(user_id);
        listing = listing.bind(user_id);
    }
    let mut sessions: HashMap<SessionId, RevokedSession> = HashMap::new();
    let revoked: Vec<(String, String)> = revoking.fetch_all(&mut *connection).await?;
    for (session_id, user_id) in revoked {
        let (session_id, user_id) = (parse(&session_id)?, parse(&user_id)?);
        sessions.insert(session_id, RevokedSession { session_id, user_id, tokens: Vec::new() });
    }
    for row in listing.fetch_all(&mut *connection).await? {
        let (session_id, user_id) = (parse(&row.session_id)?, parse(&row.user_id)?);
        let session = RevokedSession { session_id, user_id, tokens: Vec::new() };
        sessions.entry(session_id).or_insert(session).tokens.push(parse(&row.id)?);
    }
    Ok(sessions.into_values().collect())
}

async fn find_session(
    connection: &mut AnyConnection,
    session_id: SessionId,
) -> Result<Option<SessionRow>, DbError> {
    sqlx::query_as(
        "select user_id, counter, rotated_at, expires_at, revoked_at, revoke_reason from sessions where id = $1",
    )
    .bind(session_id.to_string())
    .fetch_optional(connection)
    .await
}

impl Db {
    /// Starts a session for a user as they were when their password was verified. False when they
    /// have been disabled since, or their password or role has changed.
    pub async fn start_session(
        &self,
        entry: &TokenEntry,
        user: &User,
        device: &Device,
        session_expires_at: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<bool, DbError> {
        let mut transaction = self.pool.begin().await?;
        // A write, and before the insert: it holds the user's row, so that disabling the user
        // either comes first and is seen here, or comes after and ends this session too.
        let entitled = sqlx::query(
            "update users set last_login_at = $1 \
             where id = $2 and password_version = $3 and role = $4 and disabled_at is null",
        )
        .bind(now)
        .bind(entry.user_id.to_string())
        .bind(user.password_version)
        .bind(user.role.as_str())
        .execute(&mut *transaction)
        .await?;
        if entitled.rows_affected() == 0 {
            return Ok(false);
        }
        start(&mut transaction, entry, device, session_expires_at, now).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Exchanges the refresh token that counts `presented` for the next: the session's counter goes
    /// up, and the access token that goes with it is recorded. Presented again within `grace`
    /// seconds of its use, it is answered as before, because an answer can be lost.
    ///
    /// The clock is read when the session's row is held, so that waiting for it costs no grace.
    pub async fn rotate(
        &self,
        session_id: SessionId,
        presented: i64,
        token_id: TokenId,
        config: &TokenConfig,
        clock: impl Fn() -> UnixSeconds,
    ) -> Result<Rotation, DbError> {
        let mut transaction = self.pool.begin().await?;
        // A write that changes nothing: it holds the row, so that neither another rotation nor a
        // revocation comes between what is read next and what is written on the strength of it.
        sqlx::query("update sessions set counter = counter where id = $1")
            .bind(session_id.to_string())
            .execute(&mut *transaction)
            .await?;
        let now = clock();
        let Some(mut session) = find_session(&mut transaction, session_id).await? else {
            return Ok(Rotation::Unknown);
        };
        if let Some(reason) = session.ended(config, now) {
            return Ok(Rotation::Ended(reason));
        }
        let answer_was_lost =
            presented == session.counter - 1 && now - session.rotated_at <= config.refresh_grace_seconds;
        if presented == session.counter {
            session.counter += 1;
            sqlx::query("update sessions set counter = $1, rotated_at = $2 where id = $3")
                .bind(session.counter)
                .bind(now)
                .bind(session_id.to_string())
                .execute(&mut *transaction)
                .await?;
        } else if presented > session.counter {
            return Ok(Rotation::Unknown);
        } else if !answer_was_lost {
            return Ok(Rotation::Reused(now));
        }
        let (email, role_text): (String, String) =
            sqlx::query_as("select email, role from users where id = $1")
                .bind(&session.user_id)
                .fetch_one(&mut *transaction)
                .await?;
        let entry = TokenEntry {
            token_id,
            session_id,
            user_id: parse(&session.user_id)?,
            expires_at: session.expires_at.min(now + config.access_ttl_seconds),
        };
        access_tokens::record(&mut transaction, &entry).await?;
        transaction.commit().await?;
        Ok(Rotation::Done(Rotated {
            entry,
            email,
            role: role(&role_text),
            counter: session.counter,
            idle_at: session.expires_at.min(now + config.idle_ttl_seconds),
            now,
        }))
    }

    /// Revokes a session. Revoking one that has ended changes nothing; `None` if it never was, or
    /// ended so long ago that nothing is left of it.
    pub async fn revoke_session(
        &self,
        session_id: SessionId,
        reason: EndReason,
        now: UnixSeconds,
    ) -> Result<Option<RevokedSession>, DbError> {
        let mut connection = self.pool.acquire().await?;
        // All rows of one: only at the end is it known that the change was committed.
        let users: Vec<(String,)> = sqlx::query_as(
            "update sessions set revoked_at = coalesce(revoked_at, $1), \
             revoke_reason = coalesce(revoke_reason, $2) where id = $3 returning user_id",
        )
        .bind(now)
        .bind(reason.as_str())
        .bind(session_id.to_string())
        .fetch_all(&mut *connection)
        .await?;
        let Some((user_id,)) = users.first() else {
            return Ok(None);
        };
        // None is added any more: a refresh either came before, or finds the session revoked.
        let tokens: Vec<(String,)> =
            sqlx::query_as("select id from access_tokens where session_id = $1 and expires_at > $2")
                .bind(session_id.to_string())
                .bind(now - CLOCK_MARGIN)
                .fetch_all(&mut *connection)
                .await?;
        let tokens = tokens.iter().map(|(id,)| parse(id)).collect::<Result<_, _>>()?;
        Ok(Some(RevokedSession { session_id, user_id: parse(user_id)?, tokens }))
    }

    /// Revokes all sessions of the user, but for `except`. Returns those that have been revoked,
    /// now or before, and whose tokens may still be alive.
    pub async fn revoke_sessions_of(
        &self,
        user_id: UserId,
        except: Option<SessionId>,
        reason: EndReason,
        now: UnixSeconds,
    ) -> Result<Vec<RevokedSession>, DbError> {
        let mut transaction = self.pool.begin().await?;
        // A write that changes nothing: it holds the user's row, so that a log-in beside this
        // either comes before and is ended too, or comes after.
        sqlx::query("update users set id = id where id = $1")
            .bind(user_id.to_string())
            .execute(&mut *transaction)
            .await?;
        let revoked = revoke_all(&mut transaction, Some(user_id), except, reason, now).await?;
        transaction.commit().await?;
        Ok(revoked)
    }

    /// Revokes all sessions of everyone.
    pub async fn revoke_every_session(
        &self,
        reason: EndReason,
        now: UnixSeconds,
    ) -> Result<Vec<RevokedSession>, DbError> {
        let mut connection = self.patient_connection().await?;
        let mut transaction = connection.begin().await?;
        let revoked = revoke_all(&mut transaction, None, None, reason, now).await?;
        transaction.commit().await?;
        connection.close().await?;
        Ok(revoked)
    }

    /// How the session is, and whose.
    pub async fn session_state(
        &self,
        session_id: SessionId,
        config: &TokenConfig,
        now: UnixSeconds,
    ) -> Result<SessionState, DbError> {
        let mut connection = self.pool.acquire().await?;
        Ok(match find_session(&mut connection, session_id).await? {
            None => SessionState::Unknown,
            Some(session) => session.ended(config, now).map_or(SessionState::Live, SessionState::Ended),
        })
    }

    /// Whose session this is, and when it began; `None` if it never was.
    pub async fn session_owner(
        &self,
        session_id: SessionId,
    ) -> Result<Option<(UserId, UnixSeconds)>, DbError> {
        let row: Option<(String, i64)> =
            sqlx::query_as("select user_id, created_at from sessions where id = $1")
                .bind(session_id.to_string())
                .fetch_optional(&self.pool)
                .await?;
        row.map(|(user_id, created_at)| Ok((parse(&user_id)?, created_at))).transpose()
    }

    /// The user's live sessions, `first` first and then those that were used last; a thousand at the
    /// most.
    pub async fn live_sessions_of(
        &self,
        user_id: UserId,
        first: Option<SessionId>,
        config: &TokenConfig,
        now: UnixSeconds,
    ) -> Result<Vec<LiveSession>, DbError> {
        sqlx::query_as(
            "select id, user_agent, address, created_at, rotated_at from sessions \
             where user_id = $1 and revoked_at is null and expires_at > $2 and rotated_at > $3 \
             order by case when id = $4 then 0 else 1 end, rotated_at desc, created_at desc limit $5",
        )
        .bind(user_id.to_string())
        .bind(now)
        .bind(now - config.idle_ttl_seconds)
        .bind(first.map(|id| id.to_string()).unwrap_or_default())
        .bind(MAX_LISTED)
        .fetch_all(&self.pool)
        .await
    }

    /// Deletes the access tokens and the sessions that expired more than a day before `now`. They
    /// are dead with or without their row; the day is for a clock that is set wrong for a while.
    pub async fn forget_expired(&self, now: UnixSeconds) -> Result<(), DbError> {
        let now = now - DAY;
        sqlx::query("delete from access_tokens where expires_at <= $1").bind(now).execute(&self.pool).await?;
        sqlx::query(
            "delete from sessions where expires_at <= $1 \
             and not exists (select 1 from access_tokens where session_id = sessions.id)",
        )
        .bind(now)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
