//! The table of users.

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::{CodePointSetData, props::DefaultIgnorableCodePoint};
use sqlx::{AnyConnection, FromRow};

use super::{
    clock::UnixSeconds,
    db::{Db, DbError},
    ids::UserId,
    sessions::{self, RevokedSession, TokenEntry},
};
use crate::api::error::AuthError;

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
            .then(|| ComposingNormalizerBorrowed::new_nfc().normalize(text).to_lowercase())
            .filter(|text| !text.contains(['"', '\\']) && !text.chars().any(is_invisible))
            .filter(|text| email_address::EmailAddress::parse_with_options(text, options).is_ok());
        match address {
            Some(address) => Ok(Self(address)),
            None => Err(AuthError::invalid_field("email", "Enter an e-mail address, like ann@example.com.")),
        }
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
}

#[derive(FromRow)]
struct UserRow {
    id: String,
    email: String,
    password_hash: String,
    password_version: i64,
    disabled_at: Option<i64>,
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
        })
    }
}

/// What became of a new user.
pub enum Added {
    Done,
    EmailTaken,
}

impl Db {
    /// Adds a user and, with `session`, starts their first session: both or neither. The unique
    /// address decides between two who register at the same instant.
    pub async fn add_user(
        &self,
        id: UserId,
        email: &Email,
        password_hash: &str,
        session: Option<(&TokenEntry, UnixSeconds)>,
        now: UnixSeconds,
    ) -> Result<Added, DbError> {
        let mut transaction = self.pool.begin().await?;
        let added =
            sqlx::query("insert into users (id, email, password_hash, created_at) values ($1, $2, $3, $4)")
                .bind(id.to_string())
                .bind(email.as_str())
                .bind(password_hash)
                .bind(now)
                .execute(&mut *transaction)
                .await;
        match added {
            Ok(_) => {}
            Err(DbError::Database(error)) if error.is_unique_violation() => {
                return Ok(Added::EmailTaken);
            }
            Err(error) => return Err(error),
        }
        if let Some((entry, expires_at)) = session {
            sessions::start(&mut transaction, entry, expires_at, now).await?;
        }
        transaction.commit().await?;
        Ok(Added::Done)
    }

    pub async fn has_no_users(&self) -> Result<bool, DbError> {
        Ok(sqlx::query("select 1 from users limit 1").fetch_optional(&self.pool).await?.is_none())
    }

    pub async fn find_user(&self, email: &Email) -> Result<Option<User>, DbError> {
        let row: Option<UserRow> = sqlx::query_as(
            "select id, email, password_hash, password_version, disabled_at from users where email = $1",
        )
        .bind(email.as_str())
        .fetch_optional(&self.pool)
        .await?;
        row.map(User::try_from).transpose()
    }

    /// Every user, by address.
    pub async fn list_users(&self) -> Result<Vec<User>, DbError> {
        let rows: Vec<UserRow> = sqlx::query_as(
            "select id, email, password_hash, password_version, disabled_at from users order by email",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(User::try_from).collect()
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

    /// Disables the user and revokes all of their sessions, in one transaction; returns these.
    /// `None` when there is no such user.
    pub async fn disable_user(
        &self,
        email: &Email,
        now: UnixSeconds,
    ) -> Result<Option<Vec<RevokedSession>>, DbError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query("update users set disabled_at = coalesce(disabled_at, $1) where email = $2")
            .bind(now)
            .bind(email.as_str())
            .execute(&mut *transaction)
            .await?;
        let revoked = revoke_all_of(&mut transaction, email, "user disabled", now).await?;
        transaction.commit().await?;
        Ok(revoked)
    }

    /// Sets the password and revokes all sessions of the user, in one transaction; returns these.
    /// `None` when there is no such user.
    pub async fn set_password(
        &self,
        email: &Email,
        password_hash: &str,
        now: UnixSeconds,
    ) -> Result<Option<Vec<RevokedSession>>, DbError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query(
            "update users set password_hash = $1, password_version = password_version + 1 where email = $2",
        )
        .bind(password_hash)
        .bind(email.as_str())
        .execute(&mut *transaction)
        .await?;
        let revoked = revoke_all_of(&mut transaction, email, "password set", now).await?;
        transaction.commit().await?;
        Ok(revoked)
    }
}

async fn revoke_all_of(
    connection: &mut AnyConnection,
    email: &Email,
    reason: &str,
    now: UnixSeconds,
) -> Result<Option<Vec<RevokedSession>>, DbError> {
    let user: Option<(String,)> = sqlx::query_as("select id from users where email = $1")
        .bind(email.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    let Some((id,)) = user else {
        return Ok(None);
    };
    let user_id = id.parse().map_err(|error| DbError::Decode(Box::new(error)))?;
    sessions::revoke_all(connection, user_id, None, reason, now).await.map(Some)
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
