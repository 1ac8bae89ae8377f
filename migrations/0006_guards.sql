-- The client as which a guard has recorded itself; null for an instance. A client changes the rows of its own guards only.
alter table instances add column client_id text;
