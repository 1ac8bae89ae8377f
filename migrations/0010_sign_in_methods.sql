-- How the user signed in when the session began: `password`, `password_and_code` or `passkey`.
alter table sessions add column sign_in_method text not null default 'password';

-- The authenticator app of a user (RFC 6238).
create table totp (
    user_id text primary key references users (id),
    -- The secret as base32. Codes are made from it, so it cannot be kept as a hash.
    secret text not null,
    begun_at bigint not null,
    -- When the first code was entered; null until then, and no code is asked for.
    added_at bigint,
    -- The time step of the last code that was accepted: earlier ones are not, and none is accepted twice.
    last_step bigint not null,
    -- The number of wrong codes in a row.
    failures bigint not null default 0
);

-- The recovery codes that were not used.
create table recovery_codes (
    -- The SHA-256 of a random code of 120 bits.
    hash text primary key,
    user_id text not null references users (id)
);
create index recovery_codes_by_user on recovery_codes (user_id);

create table passkeys (
    id text primary key,
    user_id text not null references users (id),
    credential_id text not null unique,
    name text not null,
    -- The public key, the counter and the flags, as JSON.
    credential text not null,
    -- How many signatures the passkey has made, as it says; 0 if it does not count.
    signatures bigint not null,
    created_at bigint not null,
    last_used_at bigint
);
create index passkeys_by_user on passkeys (user_id);

-- The passkey ceremonies that were completed: none is completed twice.
create table completed_ceremonies (
    id text primary key,
    expires_at bigint not null
);
create index completed_ceremonies_by_expiry on completed_ceremonies (expires_at);
