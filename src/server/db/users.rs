//! The table of users.

use futures::FutureExt;
use hallpass_allowlist::TokenRecord;
use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::{CodePointSetData, props::DefaultIgnorableCodePoint};
use sqlx::{AnyConnection, AssertSqlSafe, FromRow, Row};

use crate::{
    api::{error::ApiError, types::Role},
    server::{
        clock::UnixSeconds,
        config::TokenConfig,
        db::{
            ChangeError, Db, DbError, decode,
            events::{self, AccountEvent},
            mail_tokens::{self, MailToken, Purpose},
            outbox::{self, Mail},
            sessions::{self, NewSession},
        },
        ids::{SessionId, UserId},
    },
};

/// An e-mail address in the form in which it is stored and compared: trimmed, NFC (RFC 6532, 3.1), lower
/// case, with the domain in Unicode (RFC 5891), which some browsers send in ASCII. Two users cannot register
/// addresses that differ only in these respects.
#[derive(Debug, Clone)]
pub struct Email {
    form: String,
    /// The forms in which earlier versions may have stored it; the first is that of the text that was typed
    /// here.
    earlier: [String; 3],
}

impl PartialEq for Email {
    fn eq(&self, other: &Self) -> bool {
        self.form == other.form
    }
}

impl Email {
    /// # Errors
    /// [`ApiError::InvalidFields`] when it is not an address (RFC 5322, with the Unicode of
    /// RFC 6531), or has more than 254 bytes (RFC 5321, 4.5.3.1.3).
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let text = text.trim();
        let options = email_address::Options::default().without_display_text().without_domain_literal();
        let address = (text.len() <= 254)
            .then(|| Self::form(text))
            .filter(|typed| !typed.contains(['"', '\\']) && !typed.chars().any(is_invisible))
            .map(|typed| (in_unicode(&typed), typed))
            .filter(|(form, _)| email_address::EmailAddress::parse_with_options(form, options).is_ok());
        match address {
            Some((form, typed)) => {
                let earlier = [nfc(text).to_lowercase(), in_ascii(&typed), typed];
                Ok(Self { form, earlier })
            }
            None => Err(ApiError::invalid_field("email", "Enter an e-mail address, like ann@example.com.")),
        }
    }

    /// The form of a part of an address, for a search. The lower case of a composed character need not be
    /// composed, so NFC is also the last step.
    pub fn form(text: &str) -> String {
        nfc(&nfc(text.trim()).to_lowercase())
    }

    pub fn as_str(&self) -> &str {
        &self.form
    }
}

fn nfc(text: &str) -> String {
    ComposingNormalizerBorrowed::new_nfc().normalize(text).into_owned()
}

/// The address, or the part of one, with its domain in ASCII if the domain is valid.
pub fn in_ascii(address: &str) -> String {
    let (local, domain) = address.split_at(address.rfind('@').map_or(0, |at| at + 1));
    idna::domain_to_ascii(domain).map_or_else(|_| address.to_owned(), |domain| format!("{local}{domain}"))
}

/// The address, or the part of one, with its domain in Unicode if the domain is valid and has no invisible
/// characters.
fn in_unicode(address: &str) -> String {
    let ascii = in_ascii(address);
    let (local, domain) = ascii.split_at(ascii.rfind('@').map_or(0, |at| at + 1));
    match idna::domain_to_unicode(domain) {
        (domain, Ok(())) if !domain.chars().any(is_invisible) => format!("{local}{domain}"),
        _ => ascii,
    }
}

/// Whether the character is a control, is not drawn, or changes the direction of writing. Addresses that
/// differ only in such characters look the same.
fn is_invisible(character: char) -> bool {
    character.is_control() || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(character)
}

/// An authenticator app that is in use.
#[derive(Clone)]
pub struct Totp {
    /// As base32.
    pub secret: String,
    /// The time step of the last code that was accepted.
    pub last_step: i64,
}

/// A user, as a row of the table.
pub struct User {
    pub id: UserId,
    pub email: String,
    pub password_hash: String,
    /// Grows with each change of the password, the address or a factor, so that a login that read the former ones cannot
    /// finish.
    pub password_version: i64,
    pub disabled_at: Option<UnixSeconds>,
    pub role: Role,
    /// When the user proved to receive mail at the address.
    pub email_verified_at: Option<UnixSeconds>,
    pub created_at: UnixSeconds,
    pub last_login_at: Option<UnixSeconds>,
    /// The authenticator app, if one is in use: the password is then not enough.
    pub totp: Option<Totp>,
    pub has_passkey: bool,
}

const COLUMNS: &str = "id, email, password_hash, password_version, disabled_at, role, email_verified_at, created_at, last_login_at, \
     (select secret from totp where user_id = users.id and added_at is not null) as totp_secret, \
     (select last_step from totp where user_id = users.id and added_at is not null) as totp_last_step, \
     (select count(*) from passkeys where user_id = users.id) as passkeys";

#[derive(FromRow)]
struct UserRow {
    id: String,
    email: String,
    password_hash: String,
    password_version: i64,
    disabled_at: Option<i64>,
    role: String,
    email_verified_at: Option<i64>,
    created_at: i64,
    last_login_at: Option<i64>,
    totp_secret: Option<String>,
    totp_last_step: Option<i64>,
    passkeys: i64,
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
            role: decode::role(&row.role),
            email_verified_at: row.email_verified_at,
            created_at: row.created_at,
            last_login_at: row.last_login_at,
            totp: row
                .totp_secret
                .zip(row.totp_last_step)
                .map(|(secret, last_step)| Totp { secret, last_step }),
            has_passkey: row.passkeys > 0,
        })
    }
}

/// A user in the list for administrators.
#[derive(FromRow)]
pub struct UserSummary {
    pub id: String,
    pub email: String,
    pub role: String,
    pub disabled_at: Option<UnixSeconds>,
    pub last_login_at: Option<UnixSeconds>,
    pub sessions: i64,
}

/// The result of adding a user.
pub enum Added {
    /// The user was added. With the first access token of their first session and its start, if one was
    /// requested.
    Done(Option<(TokenRecord, UnixSeconds)>),
    EmailTaken,
}

/// What the row of a user said when it was locked.
pub struct Locked {
    pub email: String,
    pub is_verified: bool,
    pub password_version: i64,
    pub now: UnixSeconds,
}

/// Locks the row of a user; `None` if the account was deleted. Every change of what a user signs in with begins with this,
/// and locks the rows of sessions, factors and mails after it, in this order.
pub async fn lock(
    connection: &mut AnyConnection,
    id: UserId,
    clock: &str,
) -> Result<Option<Locked>, DbError> {
    let rows: Vec<(String, Option<i64>, i64, i64)> = sqlx::query_as(AssertSqlSafe(format!(
        "update users set id = id where id = $1 and deleted_at is null \
         returning email, email_verified_at, password_version, {clock}"
    )))
    .bind(id.to_string())
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().next().map(|(email, verified_at, password_version, now)| Locked {
        email,
        is_verified: verified_at.is_some(),
        password_version,
        now,
    }))
}

/// The password hash of a user who has to choose a password first. No password is known to match it, and none is accepted.
pub const NO_PASSWORD: &str =
    "$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Adds the row of a user. Returns the time by the clock of the database, which is also the first version of the password:
/// no earlier account with this address had it. `None` if the address is taken, or its former owner can still have it back.
pub(super) async fn insert(
    connection: &mut AnyConnection,
    id: UserId,
    email: &str,
    password_hash: &str,
    is_verified: bool,
    clock: &str,
) -> Result<Option<UnixSeconds>, DbError> {
    let verified_at = if is_verified { clock } else { "cast(null as bigint)" };
    let added = sqlx::query(AssertSqlSafe(format!(
        "insert into users (id, email, password_hash, password_version, created_at, email_verified_at) \
         values ($1, $2, $3, {clock}, {clock}, {verified_at}) on conflict (email) do nothing \
         returning password_version"
    )))
    .bind(id.to_string())
    .bind(email)
    .bind(password_hash)
    .fetch_all(&mut *connection)
    .await?;
    let Some(row) = added.first() else { return Ok(None) };
    // After the insert, which has waited for a change that gives the address up.
    if mail_tokens::is_reserved(connection, email, None, clock).await? {
        sqlx::query("delete from users where id = $1").bind(id.to_string()).execute(connection).await?;
        return Ok(None);
    }
    row.try_get(0).map(Some)
}

/// The same, for a change that the session `by` of this user authorizes.
///
/// # Errors
/// [`ChangeError::SessionEnded`], also if the account was deleted: it has no live session.
pub async fn lock_on_authority(
    connection: &mut AnyConnection,
    id: UserId,
    by: SessionId,
    clock: &str,
) -> Result<Locked, ChangeError> {
    let locked = lock(connection, id, clock).await?.ok_or(ChangeError::SessionEnded)?;
    sessions::require_live(connection, Some(by)).await?;
    Ok(locked)
}

impl Db {
    /// Adds a user and, with `session`, starts their first session and asks them by mail to confirm their address:
    /// all or nothing. Without, the address counts as confirmed. The unique address decides between two concurrent
    /// registrations. `own` is the time by this process's clock.
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
        // The address may be stored in a form of an earlier version, which the unique index does not cover.
        if self.find_user(email).await?.is_some() {
            return Ok(Added::EmailTaken);
        }
        let clock = self.clock_expression(own);
        let (email, password_hash) = (email.clone(), password_hash.to_owned());
        let session = session.map(|(new, config)| (new, config.clone()));
        self.requests()
            .transaction(move |connection| {
                async move {
                    let is_verified = session.is_none();
                    let added = insert(connection, id, email.as_str(), &password_hash, is_verified, &clock);
                    let Some(now) = added.await? else { return Ok(Added::EmailTaken) };
                    let Some((new, config)) = session else { return Ok(Added::Done(None)) };
                    let entry = sessions::start(connection, &new, &config, now).await?;
                    let email = email.as_str();
                    let token = MailToken::of_user(Purpose::Verify, email.to_owned(), (id, now));
                    outbox::add_with_token(connection, &token, email, |token| Mail::Verify { token }, now)
                        .await?;
                    Ok(Added::Done(Some((entry, now))))
                }
                .boxed()
            })
            .await
    }

    pub async fn has_no_users(&self) -> Result<bool, DbError> {
        Ok(sqlx::query("select 1 from users limit 1")
            .fetch_optional(&mut *self.pool.acquire().await?)
            .await?
            .is_none())
    }

    /// The user with this address, also if an earlier version stored it in another form. If an earlier
    /// version accepted two forms as two users, each is found by their own.
    pub async fn find_user(&self, email: &Email) -> Result<Option<User>, DbError> {
        let [typed, ascii, lower] = &email.earlier;
        let row: Option<UserRow> = sqlx::query_as(AssertSqlSafe(format!(
            "select {COLUMNS} from users \
             where email in ($1, $2, $3, $4) order by case email when $1 then 1 when $2 then 2 else 3 end limit 1",
        )))
        .bind(typed)
        .bind(email.as_str())
        .bind(ascii)
        .bind(lower)
        .fetch_optional(&mut *self.pool.acquire().await?)
        .await?;
        row.map(User::try_from).transpose()
    }

    pub async fn find_user_by_id(&self, id: UserId) -> Result<Option<User>, DbError> {
        let select = format!("select {COLUMNS} from users where id = $1 and deleted_at is null");
        let row: Option<UserRow> = sqlx::query_as(AssertSqlSafe(select))
            .bind(id.to_string())
            .fetch_optional(&mut *self.pool.acquire().await?)
            .await?;
        row.map(User::try_from).transpose()
    }

    /// The users whose address contains `part`, ordered by address, from after `after` on; at most `count`.
    pub async fn list_users(
        &self,
        part: &str,
        after: &str,
        count: i64,
        config: &TokenConfig,
        now: UnixSeconds,
    ) -> Result<Vec<UserSummary>, DbError> {
        let pattern = |part: &str| {
            let escaped = part
                .chars()
                .flat_map(|c| matches!(c, '%' | '_' | '\\').then_some('\\').into_iter().chain([c]));
            format!("%{}%", escaped.collect::<String>())
        };
        sqlx::query_as(
            "select id, email, role, disabled_at, last_login_at, \
             (select count(*) from sessions where user_id = users.id and revoked_at is null \
              and expires_at > $1 and rotated_at > $2) as sessions \
             from users where deleted_at is null and email > $3 and (email like $4 escape '\\' or email like $5 escape '\\' \
             or email like $6 escape '\\') order by email limit $7",
        )
        .bind(now)
        .bind(now - config.idle_ttl_seconds)
        .bind(after)
        .bind(pattern(part))
        .bind(pattern(&in_unicode(part)))
        .bind(pattern(&in_ascii(part)))
        .bind(count)
        .fetch_all(&mut *self.pool.acquire().await?)
        .await
    }

    /// Replaces a hash by one of the same password with the current parameters, unless the password has been
    /// changed since it was read.
    pub async fn rehash(&self, user: &User, password_hash: &str) -> Result<(), DbError> {
        sqlx::query("update users set password_hash = $1 where id = $2 and password_version = $3")
            .bind(password_hash)
            .bind(user.id.to_string())
            .bind(user.password_version)
            .execute(&mut *self.pool.acquire().await?)
            .await?;
        Ok(())
    }

    /// Enables a disabled user. With `by`, that session authorizes the change.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`] if there is no such user; [`ChangeError::SessionEnded`] if `by` has ended;
    /// or the database cannot be used.
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
                    let enabled = sqlx::query(AssertSqlSafe(format!(
                        "update users set disabled_at = null where id = $1 and deleted_at is null returning {clock}"
                    )))
                    .bind(user_id.to_string())
                    .fetch_all(&mut *connection)
                    .await?;
                    let now = enabled.first().ok_or(ChangeError::NotFound)?.try_get(0)?;
                    sessions::require_live(connection, by).await?;
                    Ok(events::record(connection, user_id, AccountEvent::Enabled, None, now).await?)
                }
                .boxed()
            })
            .await
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
    fn an_international_domain_has_one_form() {
        for text in [
            "ann@b\u{fc}cher.example",
            "ann@xn--bcher-kva.example",
            "Ann@B\u{dc}CHER.Example",
            "ann@bu\u{308}cher.example",
            "ann@XN--BCHER-KVA.example",
            "ann@b\u{fc}cher\u{3002}example",
            "ann@\u{ff42}\u{fc}cher.example",
        ] {
            let email = Email::parse(text).unwrap();
            assert_eq!(email.as_str(), "ann@b\u{fc}cher.example", "{text}");
            assert!(email.earlier.contains(&"ann@xn--bcher-kva.example".to_owned()), "{text}");
        }
        assert_eq!(Email::parse("j\u{30c}an@example.com"), Email::parse("J\u{30c}an@example.com"));
        assert_eq!(Email::parse("\u{1f0}an@example.com"), Email::parse("J\u{30c}an@example.com"));
    }

    /// Checks all characters of the basic plane and some beyond, alone and with combining marks; those of the
    /// scripts with upper case also in addresses.
    #[test]
    fn the_form_of_a_form_is_itself() {
        const MARKS: [&str; 10] = [
            "",
            "\u{30c}",
            "\u{300}",
            "\u{301}",
            "\u{307}",
            "\u{308}",
            "\u{30a}",
            "\u{331}",
            "\u{345}",
            "\u{342}\u{345}",
        ];
        let letters =
            (0..0x1_1000).chain(0x1_d400..0x1_d800).chain(0x1_e900..0x1_e960).filter_map(char::from_u32);
        let mut addresses = 0;
        for letter in letters {
            for (index, mark) in MARKS.into_iter().enumerate() {
                let text = format!("{letter}{mark}");
                let form = Email::form(&text);
                assert_eq!(Email::form(&form), form, "{text:?}");
                if index > 1 || letter > '\u{21ff}' {
                    continue;
                }
                for address in [format!("{text}@example.com"), format!("a@x{text}y.example")] {
                    let Ok(email) = Email::parse(&address) else { continue };
                    addresses += 1;
                    for spelling in email.earlier.iter().chain([&email.form]) {
                        assert_eq!(Email::parse(spelling).unwrap(), email, "{address:?} {spelling:?}");
                    }
                }
            }
        }
        assert!(addresses > 10_000, "{addresses}");
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
