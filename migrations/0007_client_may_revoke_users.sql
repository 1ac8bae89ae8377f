-- Whether the client may end all sessions of a user (global token revocation): 0 or 1.
alter table clients add column may_revoke_users bigint not null default 0;
