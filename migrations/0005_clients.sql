-- Other services that may ask about tokens and revoke them. The secret itself is not kept.
create table clients (
    id text primary key,
    name text not null,
    secret_hash text not null,
    created_at bigint not null
);
