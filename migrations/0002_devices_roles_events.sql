-- What a person needs to recognise a session by. The address is coarse: the network, not the host.
alter table sessions add column user_agent text not null default '';
alter table sessions add column address text not null default '';

-- `user` or `admin`. A change of it ends the user's sessions, so that a token never says more than is true.
alter table users add column role text not null default 'user';

-- What happened to an account besides sessions beginning and ending, which `sessions` itself tells.
create table account_events (
    id text primary key,
    user_id text not null references users (id),
    at bigint not null,
    kind text not null
);

create index account_events_by_user on account_events (user_id);
create index account_events_by_age on account_events (at);
