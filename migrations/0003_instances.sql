-- The running instances, and what each takes for granted (JSON): a process whose facts differ from
-- those of a live one does not start. `beat` grows while the process lives.
create table instances (
    id text primary key,
    name text not null,
    beat bigint not null default 0,
    facts text not null
);

-- Each instance reads the sessions revoked lately, when it starts to follow events and every half minute.
create index sessions_revoked on sessions (rotated_at) where revoked_at is not null;
