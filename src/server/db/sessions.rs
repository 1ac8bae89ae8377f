//! The table of sessions, the source of truth about which sessions are live. Rotation and revocation update
//! one row, so that the database orders them.

use std::time::Duration;

use futures::{FutureExt, TryStreamExt};
use hallpass_allowlist::{MAX_TOKEN_LIFE, Recorded, RevokedSession, TokenRecord};
use sqlx::{AnyConnection, AssertSqlSafe, Connection, FromRow, Row};
use tokio::time;

use crate::{
    api::types::{EndReason, Role},
    server::{
        client_info::Device,
        clock::UnixSeconds,
        config::TokenConfig,
        db::{
            ChangeError, Db, DbError, Lane, MANY_TIMEOUT,
            access_tokens::{self, ROW_TIMEOUT},
            allow_time, decode,
            events::{self, AccountEvent},
            is_postgres,
            outbox::{self, Mail},
        },
        ids::{SessionId, TokenId, UserId},
        sign_in_method::SignInMethod,
    },
};

/// The maximum number of live sessions of a user: one more revokes the least recently used one. No more than
/// these are listed.
pub const MAX_LIVE_SESSIONS: i64 = 1000;

/// The maximum number of sessions in an export.
const MAX_EXPORTED: i64 = 100_000;

/// The number of sessions beyond the maximum that a login revokes: the sessions of a user who had more before
/// there was a limit are revoked little by little.
const ENDED_BY_A_LOGIN: i64 = 100;

/// How long after its last rotation, in seconds, a session may still have a live access token: the longest
/// life of a token, the longest grace in which a refresh is answered again, and two hours for instances whose
/// clocks are behind.
const TOKENS_MAY_LIVE: i64 = MAX_TOKEN_LIFE.as_secs().cast_signed() + 60 + 7200;

/// How long after its expiry, in seconds, an access token is still deleted from the list in Redis.
const LISTED_BEYOND_EXPIRY: i64 = 60;

/// The maximum number of tokens that one revocation deletes from the list in Redis. The others cost a lookup
/// but are not accepted, and disappear when they expire.
const MAX_DELISTED: i64 = 1000;

/// The timeout for revoking the sessions of all users.
const EVERYONE_TIMEOUT: Duration = Duration::from_mins(10);

/// The timeout for reading the revoked sessions.
const REVOKED_SESSIONS_TIMEOUT: Duration = Duration::from_secs(10);

/// A session that was started.
#[derive(Debug)]
pub struct Started {
    /// The first access token of the session.
    pub entry: TokenRecord,
    /// The start of the session, by the clock that all instances share.
    pub now: UnixSeconds,
    /// The user's sessions beyond the maximum, which were revoked for this one.
    pub displaced: Vec<RevokedSession>,
}

/// A session to be started.
#[derive(Debug, Clone)]
pub struct NewSession {
    pub session_id: SessionId,
    pub user_id: UserId,
    pub token_id: TokenId,
    pub device: Device,
    pub method: SignInMethod,
}

/// When and how the user of a session has signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignIn {
    pub at: UnixSeconds,
    pub method: SignInMethod,
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

/// All that is kept about a session, for its user.
#[derive(Debug, FromRow)]
pub struct SessionRecord {
    pub id: String,
    #[sqlx(flatten)]
    pub device: Device,
    pub created_at: UnixSeconds,
    pub rotated_at: UnixSeconds,
    pub expires_at: UnixSeconds,
    pub revoked_at: Option<UnixSeconds>,
    pub revoke_reason: Option<String>,
}

/// The state of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// The session's current refresh token would be accepted.
    Live,
    Ended(EndReason),
    /// There is no such session, or it ended so long ago that it was deleted.
    Unknown,
}

/// A refresh token that was presented.
pub struct Presented {
    pub session_id: SessionId,
    /// What it counts.
    pub counter: i64,
    /// The id for the access token that is to come with its successor.
    pub token_id: TokenId,
    /// The device that presented it.
    pub device: Device,
}

/// How far the refresh tokens of a session have come.
#[derive(Debug, Clone, Copy)]
pub struct RefreshState {
    /// What the current one counts.
    pub counter: i64,
    /// When it was issued.
    pub rotated_at: UnixSeconds,
}

/// What a presented refresh token is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshDecision {
    /// Its successor is issued.
    Advance,
    /// Its successor has been issued, and is given again.
    Repeat,
    /// It was used before, and too long ago.
    Reused,
    /// It was never issued.
    Unknown,
}

/// The result of presenting a refresh token.
#[derive(Debug, PartialEq, Eq)]
pub enum Rotation {
    /// The token was the current one, or the previous one within the grace. The session continues.
    Done(Box<Rotated>),
    /// The token was used before: it was stolen or replayed (RFC 9700, 4.14.2). With the time of this
    /// finding.
    Reused(UnixSeconds),
    /// The session of the token has ended.
    Ended(EndReason),
    /// The token was never issued, or its session was deleted.
    Unknown,
}

/// The result of an accepted refresh.
#[derive(Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The new access token.
    pub entry: TokenRecord,
    pub email: String,
    pub role: Role,
    pub sign_in: SignIn,
    /// The counter of the refresh token that is now current.
    pub counter: i64,
    /// The end of the session if it is not refreshed again before.
    pub idle_at: UnixSeconds,
    /// The time of the refresh, by the clock that all instances share.
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
    user_agent: String,
    address: String,
    created_at: i64,
    sign_in_method: String,
}

impl SessionRow {
    /// The reason why the session has ended, if it has.
    fn ended(&self, config: &TokenConfig, now: UnixSeconds) -> Option<EndReason> {
        if self.revoked_at.is_some() {
            Some(decode::reason(self.revoke_reason.as_deref().unwrap_or_default()))
        } else if now >= self.expires_at || now >= self.rotated_at + config.idle_ttl_seconds {
            Some(EndReason::Expired)
        } else {
            None
        }
    }

    fn is_of(&self, device: &Device) -> bool {
        self.user_agent == device.user_agent && self.address == device.address
    }
}

/// A session that has just been revoked.
#[derive(FromRow)]
struct RevokedRow {
    user_id: String,
    revoked_at: i64,
    #[sqlx(flatten)]
    device: Device,
}

/// Starts a session at `now`, in the same transaction as the check that entitles the user to it.
pub async fn start(
    connection: &mut AnyConnection,
    new: &NewSession,
    config: &TokenConfig,
    now: UnixSeconds,
) -> Result<TokenRecord, DbError> {
    sqlx::query(
        "insert into sessions (id, user_id, rotated_at, created_at, expires_at, user_agent, address, sign_in_method) \
         values ($1, $2, $3, $3, $4, $5, $6, $7)",
    )
    .bind(new.session_id.to_string())
    .bind(new.user_id.to_string())
    .bind(now)
    .bind(now + config.refresh_ttl_seconds)
    .bind(&new.device.user_agent)
    .bind(&new.device.address)
    .bind(new.method.as_str())
    .execute(&mut *connection)
    .await?;
    let entry = TokenRecord {
        token_id: new.token_id,
        session_id: new.session_id,
        user_id: new.user_id,
        expires_at: now + config.access_ttl_seconds,
    };
    access_tokens::record(connection, &entry).await?;
    Ok(entry)
}

/// Whether the session that authorizes a change is not revoked; `None` if it is not in SQL. Its row is
/// locked until the transaction ends, so that a revocation of the session either comes before the change and
/// prevents it, or comes after it.
async fn still_holds(connection: &mut AnyConnection, by: SessionId) -> Result<Option<bool>, DbError> {
    let rows: Vec<(Option<i64>,)> =
        sqlx::query_as("update sessions set counter = counter where id = $1 returning revoked_at")
            .bind(by.to_string())
            .fetch_all(connection)
            .await?;
    Ok(rows.first().map(|(revoked_at,)| revoked_at.is_none()))
}

/// Locks the live sessions of a user and these two, in the order of their ids, so that two transactions that
/// each lock several do not deadlock. SQLite needs no locks, because it has one writer.
pub async fn lock_in_order(
    connection: &mut AnyConnection,
    user_id: Option<UserId>,
    sessions: [Option<SessionId>; 2],
) -> Result<(), DbError> {
    if !is_postgres(connection) {
        return Ok(());
    }
    let [one, other] = sessions.map(|id| id.map(|id| id.to_string()).unwrap_or_default());
    sqlx::query(
        "select id from sessions where (user_id = $1 and revoked_at is null) or id in ($2, $3) \
         order by id for update",
    )
    .bind(user_id.map(|id| id.to_string()).unwrap_or_default())
    .bind(one)
    .bind(other)
    .fetch_all(connection)
    .await?;
    Ok(())
}

/// Checks that the session that authorizes a change is still live when the transaction commits. `None` is the
/// command line. Call this when the row of the changed user is locked: a change that waits for that row must
/// not hold a lock that the revocation of this session needs.
///
/// # Errors
/// [`ChangeError::SessionEnded`].
pub async fn require_live(connection: &mut AnyConnection, by: Option<SessionId>) -> Result<(), ChangeError> {
    match by {
        Some(by) if still_holds(connection, by).await? != Some(true) => Err(ChangeError::SessionEnded),
        _ => Ok(()),
    }
}

/// Checks that the session that authorizes a revocation is not revoked itself. Unlike [`require_live`], this
/// accepts a session that SQL has lost: a revocation only takes access away.
async fn require_not_revoked(
    connection: &mut AnyConnection,
    by: Option<SessionId>,
) -> Result<(), ChangeError> {
    match by {
        Some(by) if still_holds(connection, by).await? == Some(false) => Err(ChangeError::SessionEnded),
        _ => Ok(()),
    }
}

/// Revokes the sessions of a user, except `except`. The caller's transaction holds the row of the user.
/// Returns the sessions that it has revoked, and those revoked before whose tokens may still be live on an
/// instance.
pub async fn revoke_all(
    connection: &mut AnyConnection,
    user_id: UserId,
    except: Option<SessionId>,
    reason: EndReason,
    now: UnixSeconds,
) -> Result<Vec<RevokedSession>, DbError> {
    sqlx::query(
        "update sessions set revoked_at = $1, revoke_reason = $2 \
         where revoked_at is null and id <> $3 and user_id = $4",
    )
    .bind(now)
    .bind(reason.as_str())
    .bind(except.map(|id| id.to_string()).unwrap_or_default())
    .bind(user_id.to_string())
    .execute(&mut *connection)
    .await?;
    let rows: Vec<(String,)> = sqlx::query_as(
        "select id from sessions where user_id = $1 and revoked_at is not null and rotated_at > $2",
    )
    .bind(user_id.to_string())
    .bind(now - TOKENS_MAY_LIVE)
    .fetch_all(&mut *connection)
    .await?;
    let mut sessions = Vec::with_capacity(rows.len());
    for (id,) in &rows {
        sessions.push(RevokedSession {
            session_id: decode::parse(id)?,
            user_id: Some(user_id),
            tokens: Vec::new(),
        });
    }
    let tokens: Vec<(String,)> = sqlx::query_as(
        "select access_tokens.id from access_tokens join sessions on sessions.id = session_id \
         where user_id = $1 and revoked_at is not null and access_tokens.expires_at > $2 \
         order by access_tokens.expires_at desc limit $3",
    )
    .bind(user_id.to_string())
    .bind(now - LISTED_BEYOND_EXPIRY)
    .bind(MAX_DELISTED)
    .fetch_all(&mut *connection)
    .await?;
    // The session of each token does not matter: all are deleted from the list of one partition.
    if let Some(first) = sessions.first_mut() {
        first.tokens = tokens.iter().map(|(id,)| decode::parse(id)).collect::<Result<_, _>>()?;
    }
    Ok(sessions)
}

/// Forgets on which devices the sessions of a user were. The caller has locked the live ones.
pub async fn forget_devices(connection: &mut AnyConnection, user_id: UserId) -> Result<(), DbError> {
    sqlx::query("update sessions set user_agent = '', address = '' where user_id = $1")
        .bind(user_id.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// Revokes sessions of a user that are not among the [`MAX_LIVE_SESSIONS`] most recently used ones, at most
/// 100 at a time.
pub async fn displace(
    connection: &mut AnyConnection,
    user_id: UserId,
    config: &TokenConfig,
    now: UnixSeconds,
) -> Result<Vec<RevokedSession>, DbError> {
    let rows: Vec<(String,)> = sqlx::query_as(
        "update sessions set revoked_at = $1, revoke_reason = $2 where id in \
         (select id from sessions where user_id = $3 and revoked_at is null and expires_at > $1 \
          and rotated_at > $4 order by rotated_at desc, created_at desc limit $5 offset $6) returning id",
    )
    .bind(now)
    .bind(EndReason::Displaced.as_str())
    .bind(user_id.to_string())
    .bind(now - config.idle_ttl_seconds)
    .bind(ENDED_BY_A_LOGIN)
    .bind(MAX_LIVE_SESSIONS)
    .fetch_all(connection)
    .await?;
    let session = |id: &str| {
        Ok(RevokedSession { session_id: decode::parse(id)?, user_id: Some(user_id), tokens: Vec::new() })
    };
    rows.iter().map(|(id,)| session(id)).collect()
}

const SESSION_COLUMNS: &str = "user_id, counter, rotated_at, expires_at, revoked_at, revoke_reason, user_agent, address, created_at, sign_in_method";

async fn find_session(
    connection: &mut AnyConnection,
    session_id: SessionId,
) -> Result<Option<SessionRow>, DbError> {
    sqlx::query_as(AssertSqlSafe(format!("select {SESSION_COLUMNS} from sessions where id = $1")))
        .bind(session_id.to_string())
        .fetch_optional(connection)
        .await
}

impl Db {
    /// Exchanges a refresh token for the next, as `decide` says about a session that has not ended: increments
    /// the counter of the session, and records the new access token.
    ///
    /// The time is read when the row of the session is locked, so that the wait for the lock uses up no
    /// grace. It is that of the clock that all instances share, so that differing clocks neither shorten nor
    /// lengthen the grace. A response that is repeated to another device is recorded as an event.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn rotate(
        &self,
        presented: Presented,
        config: &TokenConfig,
        clock: impl Fn() -> UnixSeconds,
        decide: impl FnOnce(RefreshState, UnixSeconds) -> RefreshDecision + Send + 'static,
    ) -> Result<Rotation, DbError> {
        let Presented { session_id, token_id, device, .. } = presented;
        // SQLite has one process, so its own clock will do. The transaction waits for the writer before it
        // has read anything.
        let clock = self.clock_expression(clock());
        let config = config.clone();
        self.requests()
            .transaction(move |connection| {
                async move {
                    // A write that changes nothing locks the row, so that neither another rotation nor a
                    // revocation comes between this read and the writes that depend on it.
                    let rows = sqlx::query(AssertSqlSafe(format!(
                        "update sessions set counter = counter where id = $1 \
                     returning {clock} as now, {SESSION_COLUMNS}"
                    )))
                    .bind(session_id.to_string())
                    .fetch_all(&mut *connection)
                    .await?;
                    let Some(row) = rows.first() else {
                        return Ok(Rotation::Unknown);
                    };
                    let (now, mut session): (i64, _) = (row.try_get("now")?, SessionRow::from_row(row)?);
                    if let Some(reason) = session.ended(&config, now) {
                        return Ok(Rotation::Ended(reason));
                    }
                    let user_id = decode::parse(&session.user_id)?;
                    let state = RefreshState { counter: session.counter, rotated_at: session.rotated_at };
                    match decide(state, now) {
                        RefreshDecision::Advance => {
                            session.counter += 1;
                            sqlx::query("update sessions set counter = $1, rotated_at = $2 where id = $3")
                                .bind(session.counter)
                                .bind(now)
                                .bind(session_id.to_string())
                                .execute(&mut *connection)
                                .await?;
                        }
                        RefreshDecision::Repeat if session.is_of(&device) => {}
                        RefreshDecision::Repeat => {
                            let event = AccountEvent::RefreshedElsewhere;
                            events::record(connection, user_id, event, Some(&device), now).await?;
                        }
                        RefreshDecision::Reused => return Ok(Rotation::Reused(now)),
                        RefreshDecision::Unknown => return Ok(Rotation::Unknown),
                    }
                    let (email, role_text): (String, String) =
                        sqlx::query_as("select email, role from users where id = $1")
                            .bind(&session.user_id)
                            .fetch_one(&mut *connection)
                            .await?;
                    let entry = TokenRecord {
                        token_id,
                        session_id,
                        user_id,
                        expires_at: session.expires_at.min(now + config.access_ttl_seconds),
                    };
                    access_tokens::record(connection, &entry).await?;
                    Ok(Rotation::Done(Box::new(Rotated {
                        entry,
                        email,
                        role: decode::role(&role_text),
                        sign_in: SignIn {
                            at: session.created_at,
                            method: decode::sign_in_method(&session.sign_in_method),
                        },
                        counter: session.counter,
                        idle_at: session.expires_at.min(now + config.idle_ttl_seconds),
                        now,
                    })))
                }
                .boxed()
            })
            .await
    }

    /// Revokes a session. A session that is revoked already is not changed. Returns `None` if there is no
    /// such session, or it was deleted. With `by`, that session authorizes the revocation.
    ///
    /// # Errors
    /// [`ChangeError::SessionEnded`] if `by` was revoked; or the database cannot be used.
    pub async fn revoke_session(
        &self,
        session_id: SessionId,
        by: Option<SessionId>,
        reason: EndReason,
        own: UnixSeconds,
    ) -> Result<Option<Recorded>, ChangeError> {
        let clock = self.clock_expression(own);
        self.revocation()
            .transaction(move |connection| {
                async move {
                    if by.is_some_and(|by| by != session_id) {
                        lock_in_order(connection, None, [Some(session_id), by]).await?;
                        require_not_revoked(connection, by).await?;
                    }
                    let revoked: Vec<RevokedRow> = sqlx::query_as(AssertSqlSafe(format!(
                        "update sessions set revoked_at = {clock}, revoke_reason = $1 \
                     where id = $2 and revoked_at is null returning user_id, revoked_at, user_agent, address"
                    )))
                    .bind(reason.as_str())
                    .bind(session_id.to_string())
                    .fetch_all(&mut *connection)
                    .await?;
                    let user_id = match revoked.first() {
                        Some(row) => row.user_id.clone(),
                        None => match find_session(connection, session_id).await? {
                            Some(session) => session.user_id,
                            None => return Ok(None),
                        },
                    };
                    // No token is added from here on: a refresh either came before, or finds the session
                    // revoked.
                    let tokens: Vec<(String,)> = sqlx::query_as(AssertSqlSafe(format!(
                        "select id from access_tokens where session_id = $1 and expires_at > {clock} - $2 \
                     order by expires_at desc limit $3"
                    )))
                    .bind(session_id.to_string())
                    .bind(LISTED_BEYOND_EXPIRY)
                    .bind(MAX_DELISTED)
                    .fetch_all(&mut *connection)
                    .await?;
                    let tokens = tokens.iter().map(|(id,)| decode::parse(id)).collect::<Result<_, _>>()?;
                    let user_id = decode::parse(&user_id)?;
                    if let (EndReason::TokenReused, Some(row)) = (reason, revoked.first()) {
                        let (device, address) = (row.device.label(), row.device.address.clone());
                        let notice = Mail::TokenReused { device, address };
                        outbox::notify(connection, user_id, &notice, row.revoked_at).await?;
                    }
                    let session = RevokedSession { session_id, user_id: Some(user_id), tokens };
                    Ok(Some(Recorded { session, is_new: !revoked.is_empty() }))
                }
                .boxed()
            })
            .await
    }

    /// Revokes all sessions of the user, except `except`. Returns the sessions that are revoked, now or
    /// before, and whose tokens may still be live. With `by`, that session authorizes the revocation.
    ///
    /// # Errors
    /// [`ChangeError::SessionEnded`] if `by` was revoked; or the database cannot be used.
    pub async fn revoke_sessions_of(
        &self,
        user_id: UserId,
        except: Option<SessionId>,
        by: Option<SessionId>,
        reason: EndReason,
        own: UnixSeconds,
    ) -> Result<Vec<RevokedSession>, ChangeError> {
        let clock = self.clock_expression(own);
        self.revocation_of_many()
            .transaction(move |connection| {
                async move {
                    allow_time(connection, MANY_TIMEOUT).await?;
                    // A write that changes nothing locks the row of the user, so that a concurrent login
                    // either comes before and is revoked too, or comes after.
                    let held = sqlx::query(AssertSqlSafe(format!(
                        "update users set id = id where id = $1 returning {clock}"
                    )))
                    .bind(user_id.to_string())
                    .fetch_all(&mut *connection)
                    .await?;
                    let Some(row) = held.first() else {
                        return Ok(Vec::new());
                    };
                    lock_in_order(connection, Some(user_id), [by, None]).await?;
                    require_not_revoked(connection, by).await?;
                    Ok(revoke_all(connection, user_id, except, reason, row.try_get(0)?).await?)
                }
                .boxed()
            })
            .await
    }

    /// Revokes all sessions of all users. Returns the sessions that are revoked, now or before, and whose
    /// tokens may still be live. With `by`, that session authorizes the revocation.
    ///
    /// # Errors
    /// [`ChangeError::SessionEnded`] if `by` was revoked; or the database cannot be used.
    pub async fn revoke_every_session(
        &self,
        by: Option<SessionId>,
        reason: EndReason,
        own: UnixSeconds,
    ) -> Result<Vec<RevokedSession>, ChangeError> {
        let now = self.clock(own).await?;
        let mut connection = self.unlimited_connection().await?;
        let revoking = async {
            let mut transaction = connection.begin().await?;
            require_not_revoked(&mut transaction, by).await?;
            sqlx::query("update sessions set revoked_at = $1, revoke_reason = $2 where revoked_at is null")
                .bind(now)
                .bind(reason.as_str())
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok::<_, ChangeError>(())
        };
        time::timeout(EVERYONE_TIMEOUT, revoking).await.map_err(|_| DbError::PoolTimedOut)??;
        let mut sessions = Vec::new();
        let mut rows = sqlx::query_as::<_, (String, String)>(
            "select id, user_id from sessions where revoked_at is not null and rotated_at > $1",
        )
        .bind(now - TOKENS_MAY_LIVE)
        .fetch(&mut connection);
        while let Some((id, user_id)) =
            time::timeout(ROW_TIMEOUT, rows.try_next()).await.map_err(|_| DbError::PoolTimedOut)??
        {
            let user_id = Some(decode::parse(&user_id)?);
            // The tokens stay in Redis until they expire, because there would be too many to delete.
            sessions.push(RevokedSession { session_id: decode::parse(&id)?, user_id, tokens: Vec::new() });
        }
        drop(rows);
        connection.close().await?;
        Ok(sessions)
    }

    /// Calls `each` with every revoked session that may still have a live access token on an instance.
    ///
    /// This needs no rows of tokens and, with PostgreSQL, not this process's clock. The transaction begins
    /// with a write, so that no proxy in front of the database can have a standby answer.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn revoked_sessions(
        &self,
        own: UnixSeconds,
        each: impl FnMut(SessionId) + Send + 'static,
    ) -> Result<(), DbError> {
        self.read_revoked_sessions(self.reserved(REVOKED_SESSIONS_TIMEOUT), own, each).await
    }

    /// As [`Db::revoked_sessions`], on a connection for requests.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn revoked_sessions_for_a_guard(
        &self,
        own: UnixSeconds,
        each: impl FnMut(SessionId) + Send + 'static,
    ) -> Result<(), DbError> {
        let lane = Lane { timeout: REVOKED_SESSIONS_TIMEOUT, ..self.requests() };
        self.read_revoked_sessions(lane, own, each).await
    }

    async fn read_revoked_sessions(
        &self,
        lane: Lane<'_>,
        own: UnixSeconds,
        mut each: impl FnMut(SessionId) + Send + 'static,
    ) -> Result<(), DbError> {
        let clock = self.clock_expression(own);
        lane.transaction(move |connection| {
            async move {
                allow_time(connection, REVOKED_SESSIONS_TIMEOUT).await?;
                sqlx::query("update users set id = id where id = ''").execute(&mut *connection).await?;
                let mut rows = sqlx::query_as::<_, (String,)>(AssertSqlSafe(format!(
                    "select id from sessions where revoked_at is not null and rotated_at > {clock} - $1"
                )))
                .bind(TOKENS_MAY_LIVE)
                .fetch(connection);
                while let Some((id,)) = rows.try_next().await? {
                    each(decode::parse(&id)?);
                }
                Ok(())
            }
            .boxed()
        })
        .await
    }

    /// The state of the session.
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

    /// The counter of the session's current refresh token; `None` if there is no such session.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn refresh_counter(&self, session_id: SessionId) -> Result<Option<i64>, DbError> {
        sqlx::query_scalar("select counter from sessions where id = $1")
            .bind(session_id.to_string())
            .fetch_optional(&mut *self.pool.acquire().await?)
            .await
    }

    /// The role of the session's user; `None` if there is no such session.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn role_in(&self, session_id: SessionId) -> Result<Option<Role>, DbError> {
        let role: Option<String> = sqlx::query_scalar(
            "select role from users where id = (select user_id from sessions where id = $1)",
        )
        .bind(session_id.to_string())
        .fetch_optional(&mut *self.pool.acquire().await?)
        .await?;
        Ok(role.map(|role| decode::role(&role)))
    }

    /// The user of the session; `None` if there is no such session.
    pub async fn session_owner(&self, session_id: SessionId) -> Result<Option<UserId>, DbError> {
        let row: Option<(String,)> = sqlx::query_as("select user_id from sessions where id = $1")
            .bind(session_id.to_string())
            .fetch_optional(&mut *self.pool.acquire().await?)
            .await?;
        row.map(|(user_id,)| decode::parse(&user_id)).transpose()
    }

    /// When and how the user of a session has signed in.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn sign_in_of(&self, session_id: SessionId) -> Result<Option<SignIn>, DbError> {
        let row: Option<(i64, String)> =
            sqlx::query_as("select created_at, sign_in_method from sessions where id = $1")
                .bind(session_id.to_string())
                .fetch_optional(&mut *self.pool.acquire().await?)
                .await?;
        Ok(row.map(|(at, method)| SignIn { at, method: decode::sign_in_method(&method) }))
    }

    /// The sessions of the user that are kept, live or not, the latest first, at most 100,000.
    pub async fn all_sessions_of(&self, user_id: UserId) -> Result<Vec<SessionRecord>, DbError> {
        sqlx::query_as(
            "select id, user_agent, address, created_at, rotated_at, expires_at, revoked_at, revoke_reason \
             from sessions where user_id = $1 order by created_at desc, id limit $2",
        )
        .bind(user_id.to_string())
        .bind(MAX_EXPORTED)
        .fetch_all(&mut *self.pool.acquire().await?)
        .await
    }

    /// The user's live sessions: `first` first, then the most recently used ones, at most a thousand.
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
        .bind(MAX_LIVE_SESSIONS)
        .fetch_all(&mut *self.pool.acquire().await?)
        .await
    }
}
