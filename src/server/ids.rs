//! The ids of devices, events and mails, and those of the allowlist.

use hallpass_allowlist::define_id;
pub use hallpass_allowlist::{InstanceId, InvalidId, SessionId, TokenId, UserId};

define_id!(
    /// The id of a browser in which a user has logged in.
    DeviceId
);
define_id!(
    /// The random part of the id of a client ([`clients`](crate::server::auth::clients)).
    ClientNumber
);
define_id!(
    /// The id of an event in the history of an account.
    EventId
);
define_id!(
    /// The id of a one-time token that is sent by mail ([`mail_token`](crate::server::auth::mail_token)).
    MailTokenId
);
define_id!(
    /// The id of a passkey.
    PasskeyId
);
define_id!(
    /// The id of a passkey ceremony ([`passkeys`](crate::server::auth::passkeys)).
    CeremonyId
);
define_id!(
    /// The id of a mail in the outbox.
    MailId
);
