-- Which device an event came from, where the event is about one: as in `sessions`.
alter table account_events add column user_agent text not null default '';
alter table account_events add column address text not null default '';
