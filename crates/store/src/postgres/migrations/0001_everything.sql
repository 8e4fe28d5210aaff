-- All that version 3 of the SQLite schema has, in the same tables and columns (`table.rs`); see there what they mean.
--
-- Numbers are 64 bits, texts are compared byte by byte, times are microseconds since 1970. No default reads a clock.

create table counters (
    name text collate "C" not null primary key,
    value bigint not null
);

create table facts (
    position bigint not null primary key,
    facts bigint not null,
    body text not null,
    graph bytea
);
create index facts_graph on facts (graph) where graph is not null;

create table graphs (
    digest bytea not null primary key,
    body bytea not null
);

create table builds (
    id bigint not null primary key,
    pipeline text collate "C" not null,
    kind text collate "C" not null,
    branch text collate "C",
    event text not null,
    client text not null,
    retry_of bigint,
    created_at bigint not null,
    name text not null,
    started_at bigint,
    finished_at bigint,
    verdict text not null,
    verdict_word text collate "C" not null,
    canceled_by text,
    graph bytea,
    facts bigint not null,
    jobs bigint not null,
    errors bigint not null,
    warnings bigint not null,
    passed bigint not null,
    failed bigint not null,
    canceled bigint not null,
    skipped bigint not null,
    reused bigint not null,
    open_gates bigint not null,
    project text collate "C" not null,
    number bigint not null,
    source bytea,
    commit_id text collate "C" not null
);
create index builds_unfinished on builds (id) where finished_at is null;
-- Branches come from outside; an index cannot hold any length.
create index builds_branch on builds (left(branch, 256), id);
create index builds_verdict on builds (verdict_word, id);
create index builds_project on builds (project, id);
create index builds_project_branch on builds (project, left(branch, 256), id);
create index builds_project_verdict on builds (project, verdict_word, id);
create index builds_project_branch_verdict on builds (project, left(branch, 256), verdict_word, id);
create index builds_number on builds (project, number);
create index builds_commit on builds (commit_id, project, id) where commit_id <> '';
create index builds_source on builds (source) where source is not null;

create table jobs (
    build bigint not null,
    name text collate "C" not null,
    state text not null,
    outcome text,
    reused_build bigint,
    reused_attempt bigint,
    reused_job text,
    attempts bigint not null,
    attempt bigint,
    operation bytea,
    started_at bigint,
    finished_at bigint,
    retry_at bigint,
    primary key (build, name)
);

create table attempts (
    build bigint not null,
    attempt bigint not null,
    job text collate "C" not null,
    try_number bigint not null,
    lease bigint not null,
    worker text not null,
    leased_at bigint not null,
    outcome text,
    started_at bigint,
    finished_at bigint,
    tests bigint,
    tests_failed bigint,
    fact bigint,
    primary key (build, attempt)
);

create table gates (
    build bigint not null,
    job text collate "C" not null,
    prompt text not null,
    opened_at bigint not null,
    answered text,
    primary key (build, job)
);

create table artifacts (
    build bigint not null,
    job text collate "C" not null,
    attempt bigint not null,
    name text collate "C" not null,
    digest bytea not null,
    files bigint not null,
    bytes bigint not null,
    primary key (build, job, attempt, name)
);
create index artifacts_digest on artifacts (digest);

create table histories (
    job text collate "C" not null primary key,
    durations text not null
);

create table operations (
    digest bytea not null,
    trust text collate "C" not null,
    build bigint not null,
    attempt bigint not null,
    job text collate "C" not null,
    job_id text collate "C" not null,
    outcome text not null,
    artifacts text not null,
    artifact_bytes bigint not null,
    at bigint not null,
    used_at bigint not null,
    evicted_at bigint,
    evicted_reason text,
    replaced_build bigint,
    replaced_at bigint,
    replaced_reason text,
    primary key (digest, trust)
);
create index operations_job on operations (job_id, at);
create index operations_at on operations (at);
create index operations_used on operations (used_at) where evicted_at is null;
create index operations_evicted on operations (evicted_at) where evicted_at is not null;

create table manifests (
    digest bytea not null primary key,
    body bytea not null
);

create table operation_blobs (
    operation bytea not null,
    trust text collate "C" not null,
    blob bytea not null,
    primary key (operation, trust, blob)
);
create index operation_blobs_blob on operation_blobs (blob);

create table tried (
    digest bytea not null primary key,
    at bigint not null
);
create index tried_at on tried (at);

create table caches (
    scope text collate "C" not null,
    key text collate "C" not null,
    blobs text not null,
    bytes bigint not null,
    build bigint not null,
    job text not null,
    at bigint not null,
    used_at bigint not null,
    evicted_at bigint,
    evicted_reason text,
    primary key (scope, key)
);

create table cache_reads (
    scope text collate "C" not null,
    key text collate "C" not null,
    build bigint not null,
    job text collate "C" not null,
    at bigint not null,
    primary key (scope, key, build, job)
);
create index cache_reads_build on cache_reads (build);

create table cache_blobs (
    scope text collate "C" not null,
    key text collate "C" not null,
    blob bytea not null,
    primary key (scope, key, blob)
);
create index cache_blobs_blob on cache_blobs (blob);

create table journal (
    sequence bigint not null primary key,
    spans text not null
);

create table records (
    kind text collate "C" not null,
    key text collate "C" not null,
    version bigint not null,
    body bytea not null,
    at bigint not null,
    primary key (kind, key)
);

create table audit (
    number bigint not null primary key,
    at bigint not null,
    who text collate "C" not null,
    verb text not null,
    target text not null,
    project text collate "C" not null,
    origin text not null,
    detail text not null
);
create index audit_project on audit (project, number);
create index audit_who on audit (who, number);
create index audit_at on audit (at);

create table log_chunks (
    build bigint not null,
    number bigint not null,
    body bytea not null,
    primary key (build, number)
);

-- The number of the last append, in both senses: of the journal, and of all changes to builds. See `postgres/facts.rs`.
insert into counters (name, value) values ('journal', 0);
