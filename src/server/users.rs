//! The table of users.

use futures::FutureExt;
use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::{CodePointSetData, props::DefaultIgnorableCodePoint};
use sqlx::{AssertSqlSafe, FromRow, Row};

use super::{
    access_tokens::TokenEntry,
    clock::UnixSeconds,
    config::TokenConfig,
    db::{ChangeError, Db, DbError, MANY_TIMEOUT, allow_time},
    events::{self, AccountEvent},
    ids::{SessionId, UserId},
    sessions::{self, NewSession, RevokedSession},
};
use crate::api::{
    error::AuthError,
    types::{EndReason, Role},
};

/// An e-mail address in the one form it is stored and compared in: trimmed, NFC (RFC 6532, 3.1),
/// lower case. Two people cannot register addresses that differ only in these.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Email(String);

impl Email {
    /// # Errors
    /// [`AuthError::InvalidFields`] when it is not an address (RFC 5322, with the Unicode of
    /// RFC 6531), or has more than 254 bytes (RFC 5321, 4.5.3.1.3).
    pub fn parse(text: &str) -> Result<Self, AuthError> {
        let text = text.trim();
        let options = email_address::Options::default().without_display_text().without_domain_literal();
        let address = (text.len() <= 254)
            .then(|| Self::form(text))
            .filter(|text| !text.contains(['"', '\\']) && !text.chars().any(is_invisible))
            .filter(|text| email_address::EmailAddress::parse_with_options(text, options).is_ok());
        match address {
            Some(address) => Ok(Self(address)),
            None => Err(AuthError::invalid_field("email", "Enter an e-mail address, like ann@example.com.")),
        }
    }

    /// That form, of a part of an address.
    pub fn form(text: &str) -> String {
        ComposingNormalizerBorrowed::new_nfc().normalize(text.trim()).to_lowercase()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Controls, and what draws nothing or turns the direction of writing: two addresses that differ in
/// these only look like one.
fn is_invisible(character: char) -> bool {
    character.is_control() || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(character)
}

/// A row of the table.
pub struct User {
    pub id: UserId,
    pub email: String,
    pub password_hash: String,
    pub password_version: i64,
    pub disabled_at: Option<UnixSeconds>,
    pub role: Role,
}

#[derive(FromRow)]
struct UserRow {
    id: String,
    email: String,
    password_hash: String,
    password_version: i64,
    disabled_at: Option<i64>,
    role: String,
}

impl TryFrom<UserRow> for User {
    type Error = DbError;

    fn try_from(row: UserRow) -> Result<Self, DbError> {
        Ok(Self {
            id: row.id.parse().map_err(|error| DbError::Decode(Box::new(error)))?,
            email: row.email,
            password_hash: row.password_hash,
            password_version: row.password_version,
            disabled_at: row.disabled_at,
            role: sessions::role(&row.role),
        })
    }
}

/// A user with what an administrator wants to know.
#[derive(FromRow)]
pub struct UserSummary {
    pub id: String,
    pub email: String,
    pub role: String,
    pub disabled_at: Option<UnixSeconds>,
    pub last_login_at: Option<UnixSeconds>,
    pub sessions: i64,
}

/// What became of a new user.
pub enum Added {
    /// With the first access token of their first session, and the time, if one was to be started.
    Done(Option<(TokenEntry, UnixSeconds)>),
    EmailTaken,
}

impl Db {
    /// Adds a user and, with `session`, starts their first session: both or neither. The unique
    /// address decides between two who register at the same instant. `own` is this process's clock.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn add_user(
        &self,
        id: UserId,
        email: &Email,
        password_hash: &str,
        session: Option<(NewSession, &TokenConfig)>,
        own: UnixSeconds,
    ) -> Result<Added, DbError> {
        let clock = self.clock_expression(own);
        let (email, password_hash) = (email.clone(), password_hash.to_owned());
        let session = session.map(|(new, config)| (new, config.clone()));
        self.requests()
            .transaction(move |connection| {
                async move {
                    let added = sqlx::query(AssertSqlSafe(format!(
                    "insert into users (id, email, password_hash, created_at) values ($1, $2, $3, {clock}) \
                     on conflict (email) do nothing returning created_at"
                )))
                .bind(id.to_string())
                .bind(email.as_str())
                .bind(password_hash)
                .fetch_all(&mut *connection)
                .await?;
                    let Some(row) = added.first() else {
                        return Ok(Added::EmailTaken);
                    };
                    let Some((new, config)) = session else {
                        return Ok(Added::Done(None));
                    };
                    let now = row.try_get(0)?;
                    let entry = sessions::start(connection, &new, &config, now).await?;
                    Ok(Added::Done(Some((entry, now))))
                }
                .boxed()
            })
            .await
    }

    pub async fn has_no_users(&self) -> Result<bool, DbError> {
        Ok(sqlx::query("select 1 from users limit 1").fetch_optional(&self.pool).await?.is_none())
    }

    pub async fn find_user(&self, email: &Email) -> Result<Option<User>, DbError> {
        let row: Option<UserRow> = sqlx::query_as(
            "select id, email, password_hash, password_version, disabled_at, role from users where email = $1",
        )
        .bind(email.as_str())
        .fetch_optional(&self.pool)
        .await?;
        row.map(User::try_from).transpose()
    }

    pub async fn find_user_by_id(&self, id: UserId) -> Result<Option<User>, DbError> {
        let row: Option<UserRow> = sqlx::query_as(
            "select id, email, password_hash, password_version, disabled_at, role from users where id = $1",
        )
        .bind(id.to_string())
        .fetch_optional(&self.pool)
        .await?;
        row.map(User::try_from).transpose()
    }

    /// Users whose address has `part` in it, by address, from after `after` on; `count` at the most.
    pub async fn list_users(
        &self,
        part: &str,
        after: &str,
        count: i64,
        config: &TokenConfig,
        now: UnixSeconds,
    ) -> Result<Vec<UserSummary>, DbError> {
        let escaped: String = part
            .chars()
            .flat_map(|c| matches!(c, '%' | '_' | '\\').then_some('\\').into_iter().chain([c]))
            .collect();
        sqlx::query_as(
            "select id, email, role, disabled_at, last_login_at, \
             (select count(*) from sessions where user_id = users.id and revoked_at is null \
              and expires_at > $1 and rotated_at > $2) as sessions \
             from users where email > $3 and email like $4 escape '\\' order by email limit $5",
        )
        .bind(now)
        .bind(now - config.idle_ttl_seconds)
        .bind(after)
        .bind(format!("%{escaped}%"))
        .bind(count)
        .fetch_all(&self.pool)
        .await
    }

    /// Replaces a hash by one of the same password with today's parameters, unless the password
    /// has been changed since it was read.
    pub async fn rehash(&self, user: &User, password_hash: &str) -> Result<(), DbError> {
        sqlx::query("update users set password_hash = $1 where id = $2 and password_version = $3")
            .bind(password_hash)
            .bind(user.id.to_string())
            .bind(user.password_version)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Changes something about the user that their sessions were begun on, revokes these, and
    /// writes it down: all or nothing. Returns the sessions. With `by`, on the authority of that session.
    ///
    /// # Errors
    /// Nothing is changed. [`ChangeError::NotFound`] when there is no such user or `change` does not apply to
    /// them any more; [`ChangeError::SessionEnded`] when `by` has; or the database cannot be used.
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
                    sessions::require_live(connection, by).await?;
                    allow_time(connection, MANY_TIMEOUT).await?;
                    let (event, reason, except) = change.consequences();
                    let set = match &change {
                        Change::Disable => format!("disabled_at = coalesce(disabled_at, {clock})"),
                        Change::Role(role) => format!("role = '{}'", role.as_str()),
                        Change::SetPassword { .. } | Change::Password { .. } => {
                            "password_hash = $2, password_version = password_version + 1".to_owned()
                        }
                    };
                    let if_unchanged = match &change {
                        Change::Password { version, .. } => format!("and password_version = {version}"),
                        _ => String::new(),
                    };
                    let statement =
                        format!("update users set {set} where id = $1 {if_unchanged} returning {clock}");
                    let mut update = sqlx::query(AssertSqlSafe(statement)).bind(user_id.to_string());
                    if let Change::SetPassword { hash } | Change::Password { hash, .. } = change {
                        update = update.bind(hash);
                    }
                    let updated = update.fetch_all(&mut *connection).await?;
                    let now = updated.first().ok_or(ChangeError::NotFound)?.try_get(0)?;
                    events::record(connection, user_id, event, now).await?;
                    Ok(sessions::revoke_all(connection, user_id, except, reason, now).await?)
                }
                .boxed()
            })
            .await
    }

    /// Lets a disabled user sign in again. With `by`, on the authority of that session.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`] when there is no such user; [`ChangeError::SessionEnded`] when `by` has; or the
    /// database cannot be used.
    pub async fn enable_user(
        &self,
        user_id: UserId,
        by: Option<SessionId>,
        own: UnixSeconds,
    ) -> Result<(), ChangeError> {
        let clock = self.clock_expression(own);
        self.requests()
            .transaction(move |connection| {
                async move {
                    sessions::require_live(connection, by).await?;
                    let enabled = sqlx::query(AssertSqlSafe(format!(
                        "update users set disabled_at = null where id = $1 returning {clock}"
                    )))
                    .bind(user_id.to_string())
                    .fetch_all(&mut *connection)
                    .await?;
                    let now = enabled.first().ok_or(ChangeError::NotFound)?.try_get(0)?;
                    Ok(events::record(connection, user_id, AccountEvent::Enabled, now).await?)
                }
                .boxed()
            })
            .await
    }
}

/// What may be changed about a user. Each ends their sessions.
#[derive(Clone)]
pub enum Change {
    /// They cannot sign in any more.
    Disable,
    Role(Role),
    /// By an administrator.
    SetPassword {
        hash: String,
    },
    /// By the user, in a session that goes on, if the password is still the one of that version.
    Password {
        hash: String,
        version: i64,
        except: SessionId,
    },
}

impl Change {
    /// What it is written down as, why it ends sessions, and which it does not end.
    fn consequences(&self) -> (AccountEvent, EndReason, Option<SessionId>) {
        match self {
            Self::Disable => (AccountEvent::Disabled, EndReason::Disabled, None),
            Self::Role(_) => (AccountEvent::RoleChanged, EndReason::RoleChanged, None),
            Self::SetPassword { .. } => (AccountEvent::PasswordSet, EndReason::PasswordSet, None),
            Self::Password { except, .. } => {
                (AccountEvent::PasswordChanged, EndReason::PasswordChanged, Some(*except))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_form() {
        for text in ["ann@example.com", " Ann@Example.COM ", "ANN@EXAMPLE.COM\t"] {
            assert_eq!(Email::parse(text).unwrap().as_str(), "ann@example.com");
        }
        // The same name, composed and decomposed.
        assert_eq!(Email::parse("ren\u{e9}e@example.com"), Email::parse("rene\u{301}e@example.com"));
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        let long = format!("{}@example.com", "a".repeat(243));
        assert_eq!(long.len(), 255);
        for text in [
            "",
            "ann",
            "ann@",
            "@example.com",
            "a b@example.com",
            "ann@exam ple.com",
            "Ann <ann@example.com>",
            "ann@[127.0.0.1]",
            "ann\r\n@example.com",
            "ann\u{200b}@example.com",
            "ann\u{202e}@example.com",
            "\"a b\"@example.com",
            "ann@example.com, bob@example.com",
            &long,
        ] {
            assert!(Email::parse(text).is_err(), "{text:?}");
        }
    }
}
