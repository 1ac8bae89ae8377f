//! The history of an account, for its user. Logins and ends of sessions are read from the table of sessions;
//! all other events have a table of their own.

use sqlx::{AnyConnection, FromRow};

use crate::{
    api::types::{EventKind, SecurityEvent},
    server::{
        client_info::Device,
        clock::UnixSeconds,
        db::{Db, DbError, decode},
        ids::{EventId, UserId},
    },
};

/// The number of events that are shown.
const SHOWN: i64 = 50;

/// How long events are kept, in seconds: 90 days. Events from the table of sessions are deleted with the
/// session.
pub(super) const KEPT: i64 = 90 * 86_400;

/// An event that is recorded in the table of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountEvent {
    PasswordChanged,
    PasswordSet,
    PasswordReset,
    EmailChanged,
    EmailRestored,
    RoleChanged,
    Disabled,
    Enabled,
    /// A refresh was repeated within the grace, from another device or network.
    RefreshedElsewhere,
    TotpAdded,
    TotpRemoved,
    PasskeyAdded,
    PasskeyRemoved,
    RecoveryCodesRenewed,
    /// An operator has removed all factors.
    FactorsRemoved,
    RecoveryCodeUsed,
    /// The password was entered with a wrong code.
    SecondFactorMissed,
}

impl AccountEvent {
    const ALL: [(Self, &str, EventKind); 17] = [
        (Self::PasswordChanged, "password_changed", EventKind::PasswordChanged),
        (Self::PasswordSet, "password_set", EventKind::PasswordSet),
        (Self::PasswordReset, "password_reset", EventKind::PasswordReset),
        (Self::EmailChanged, "email_changed", EventKind::EmailChanged),
        (Self::EmailRestored, "email_restored", EventKind::EmailRestored),
        (Self::RoleChanged, "role_changed", EventKind::RoleChanged),
        (Self::Disabled, "disabled", EventKind::Disabled),
        (Self::Enabled, "enabled", EventKind::Enabled),
        (Self::RefreshedElsewhere, "refreshed_elsewhere", EventKind::RefreshedElsewhere),
        (Self::TotpAdded, "totp_added", EventKind::TotpAdded),
        (Self::TotpRemoved, "totp_removed", EventKind::TotpRemoved),
        (Self::PasskeyAdded, "passkey_added", EventKind::PasskeyAdded),
        (Self::PasskeyRemoved, "passkey_removed", EventKind::PasskeyRemoved),
        (Self::RecoveryCodesRenewed, "recovery_codes_renewed", EventKind::RecoveryCodesRenewed),
        (Self::FactorsRemoved, "factors_removed", EventKind::FactorsRemoved),
        (Self::RecoveryCodeUsed, "recovery_code_used", EventKind::RecoveryCodeUsed),
        (Self::SecondFactorMissed, "second_factor_missed", EventKind::SecondFactorMissed),
    ];

    fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(event, ..)| *event == self).map_or("", |(_, text, _)| text)
    }
}

/// Records an event in the same transaction as the change that it is about. `device` is the device that the
/// event came from, if it is about one.
pub async fn record(
    connection: &mut AnyConnection,
    user_id: UserId,
    event: AccountEvent,
    device: Option<&Device>,
    now: UnixSeconds,
) -> Result<(), DbError> {
    let (user_agent, address) = device.map_or(("", ""), |device| (&device.user_agent, &device.address));
    let statement = "insert into account_events (id, user_id, at, kind, user_agent, address) \
                     values ($1, $2, $3, $4, $5, $6)";
    sqlx::query(statement)
        .bind(EventId::random().to_string())
        .bind(user_id.to_string())
        .bind(now)
        .bind(event.as_str())
        .bind(user_agent)
        .bind(address)
        .execute(connection)
        .await?;
    Ok(())
}

#[derive(FromRow)]
struct EventRow {
    at: i64,
    /// The source of the event, and its order among events of the same second: later ones have a higher rank.
    rank: i64,
    kind: String,
    #[sqlx(flatten)]
    device: Device,
}

const BEGAN: i64 = 0;
const ACCOUNT: i64 = 1;
const ENDED: i64 = 2;

impl EventRow {
    fn read(self) -> Option<SecurityEvent> {
        let kind = match self.rank {
            BEGAN => EventKind::SignedIn,
            ENDED => EventKind::SessionEnded(decode::reason(&self.kind)),
            _ => AccountEvent::ALL.iter().find(|(_, text, _)| *text == self.kind)?.2,
        };
        let has_device = self.rank != ACCOUNT || !self.device.user_agent.is_empty();
        let device = if has_device { self.device.label() } else { String::new() };
        Some(SecurityEvent { at: self.at, kind, device, address: self.device.address })
    }
}

impl Db {
    /// The events of the account that have a row of their own, newest first.
    pub async fn recorded_events_of(&self, user_id: UserId) -> Result<Vec<SecurityEvent>, DbError> {
        let rows: Vec<EventRow> = sqlx::query_as(
            "select at, $2 as rank, kind, user_agent, address from account_events where user_id = $1 \
             order by at desc, id",
        )
        .bind(user_id.to_string())
        .bind(ACCOUNT)
        .fetch_all(&mut *self.pool.acquire().await?)
        .await?;
        Ok(rows.into_iter().filter_map(EventRow::read).collect())
    }

    /// The most recent events of the account, newest first.
    pub async fn events_of(&self, user_id: UserId) -> Result<Vec<SecurityEvent>, DbError> {
        let rows: Vec<EventRow> = sqlx::query_as(
            "select created_at as at, $2 as rank, '' as kind, user_agent, address \
             from sessions where user_id = $1 \
             union all select revoked_at, $3, revoke_reason, user_agent, address \
             from sessions where user_id = $1 and revoked_at is not null \
             union all select at, $4, kind, user_agent, address from account_events where user_id = $1 \
             order by 1 desc, 2 desc limit $5",
        )
        .bind(user_id.to_string())
        .bind(BEGAN)
        .bind(ENDED)
        .bind(ACCOUNT)
        .bind(SHOWN)
        .fetch_all(&mut *self.pool.acquire().await?)
        .await?;
        Ok(rows.into_iter().filter_map(EventRow::read).collect())
    }
}
