-- Portable between SQLite and PostgreSQL: text ids, bigint Unix seconds.

create table users (
    id text primary key,
    -- Normalised: trimmed, NFC, lower case.
    email text not null unique,
    -- A PHC string (Argon2id).
    password_hash text not null,
    -- Counts changes of the password, so that a log-in that verified an old one cannot finish.
    password_version bigint not null default 0,
    created_at bigint not null,
    disabled_at bigint,
    last_login_at bigint
);

-- One sign-in on one device. Never deleted while a token of it could still be presented.
create table sessions (
    id text primary key,
    user_id text not null references users (id),
    -- The refresh token that is current: `id.counter.HMAC`. It only ever grows.
    counter bigint not null default 0,
    rotated_at bigint not null,
    created_at bigint not null,
    -- No refresh goes beyond this.
    expires_at bigint not null,
    revoked_at bigint,
    revoke_reason text
);

create index sessions_by_user on sessions (user_id);
create index sessions_by_expiry on sessions (expires_at);

-- Every access token that was issued and has not expired: the allowlist's truth.
create table access_tokens (
    id text primary key,
    session_id text not null references sessions (id),
    expires_at bigint not null
);

create index access_tokens_by_session on access_tokens (session_id);
create index access_tokens_by_expiry on access_tokens (expires_at);
