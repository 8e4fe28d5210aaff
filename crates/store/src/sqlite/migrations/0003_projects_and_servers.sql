-- What a server needs: projects, the order of appends, records, the audit, pieces of logs.
--
-- Programs of version 2 read and write a database of version 3: every new column has a default, and they know none of the
-- new tables.

-- The oldest version of a program that may use a database to which this step was applied.
alter table migrations add column readable_from integer not null default 0;

alter table builds add column project text not null default '';
alter table builds add column number integer not null default 0;
alter table builds add column source blob;
alter table builds add column commit_id text not null default '';
update builds set commit_id = coalesce(json_extract(event, '$.commit'), '');

create index builds_project on builds (project, id) where project <> '';
create index builds_project_branch on builds (project, branch, id) where project <> '';
create index builds_project_verdict on builds (project, verdict_word, id) where project <> '';
create index builds_project_branch_verdict on builds (project, branch, verdict_word, id) where project <> '';
create index builds_number on builds (project, number) where project <> '';
create index builds_commit on builds (commit_id, project, id) where commit_id <> '';
create index builds_source on builds (source) where source is not null;

-- The appends of all builds in order. `spans` says as JSON which facts: [[build, place of the first, how many], ...].
create table journal (
    sequence integer not null primary key,
    spans text not null
) strict;

create table records (
    kind text not null,
    key text not null,
    version integer not null,
    body blob not null,
    at integer not null,
    primary key (kind, key)
) strict;

create table audit (
    number integer not null primary key,
    at integer not null,
    who text not null,
    verb text not null,
    target text not null,
    project text not null,
    origin text not null,
    detail text not null
) strict;
create index audit_project on audit (project, number);
create index audit_who on audit (who, number);
create index audit_at on audit (at);

create table log_chunks (
    build integer not null,
    number integer not null,
    body blob not null,
    primary key (build, number)
) strict;
