-- The built files of the site, by version: during an upgrade an instance serves the files of pages that another version
-- has drawn. In base64, because the databases have no common type for bytes.
create table site_versions (
    version text primary key,
    -- Grows with each start of an instance; that of the last start with this version.
    last_start bigint not null
);
create table site_files (
    version text not null references site_versions (version) on delete cascade,
    path text not null,
    contents text not null,
    primary key (version, path)
);
