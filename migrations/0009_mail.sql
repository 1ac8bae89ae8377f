-- When the user proved to receive mail at the address; null if they have not.
alter table users add column email_verified_at bigint;
-- When the account was deleted. The row is kept, without anything personal, as long as there are sessions of it.
alter table users add column deleted_at bigint;
create index users_deleted on users (deleted_at) where deleted_at is not null;

-- One-time tokens that were sent by mail and not used. The text of a token is its id and a MAC over it, so nothing here can be
-- used without the keys.
create table mail_tokens (
    id text primary key,
    -- `reset`, `verify`, `register`, and so on.
    purpose text not null,
    -- The address that the token was sent to.
    email text not null,
    -- Null if there is no user with this address (yet).
    user_id text references users (id),
    -- The version that the password had: the token is void after a change.
    password_version bigint,
    -- The password of an account that is made when its address is confirmed.
    password_hash text,
    expires_at bigint not null,
    -- An address has a few slots for each purpose, so that its mailbox cannot be flooded.
    slot bigint not null,
    unique (purpose, email, slot)
);
create index mail_tokens_by_user on mail_tokens (user_id);
create index mail_tokens_by_expiry on mail_tokens (expires_at);

-- Mails that have to be sent. A row is deleted when the mail server has accepted the mail.
create table outbox (
    id text primary key,
    recipient text not null,
    -- What the mail says, as JSON. Its text is made when it is sent.
    mail text not null,
    attempts bigint not null default 0,
    next_attempt_at bigint not null,
    -- From this time on the mail is of no use.
    expires_at bigint not null
);
create index outbox_by_next_attempt on outbox (next_attempt_at);
