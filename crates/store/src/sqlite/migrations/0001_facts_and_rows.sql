-- Facts, the rows projected from them, operations and keyed caches.
--
-- The common subset of SQLite and PostgreSQL: numbers are 64 bits (times in microseconds since 1970), JSON is text,
-- digests are 32 bytes. No default reads a clock.

create table counters (
    name text not null primary key,
    value integer not null
) strict;

-- Facts in the order in which they were appended, several to a row as lines of JSON. `position` is
-- build * 2^32 + the place of the first of them in its build.
create table facts (
    position integer not null primary key,
    facts integer not null,
    body text not null,
    -- The graph of an evaluation, which then is the row's only fact and stands in `body` without its graph.
    graph blob
) strict;
create index facts_graph on facts (graph) where graph is not null;

-- Graphs as packed JSON, each once.
create table graphs (
    digest blob not null primary key,
    body blob not null
) strict;

create table builds (
    id integer not null primary key,
    pipeline text not null,
    kind text not null,
    branch text,
    event text not null,
    client text not null,
    retry_of integer,
    created_at integer not null,
    name text not null,
    started_at integer,
    finished_at integer,
    verdict text not null,
    verdict_word text not null,
    canceled_by text,
    graph blob,
    -- How many of its facts the rows of the build and of its parts show. Rows follow facts, some behind.
    facts integer not null,
    jobs integer not null,
    errors integer not null,
    warnings integer not null,
    passed integer not null,
    failed integer not null,
    canceled integer not null,
    skipped integer not null,
    reused integer not null,
    open_gates integer not null
) strict;
create index builds_unfinished on builds (id) where finished_at is null;
create index builds_branch on builds (branch, id);
create index builds_verdict on builds (verdict_word, id);

create table jobs (
    build integer not null,
    name text not null,
    state text not null,
    outcome text,
    reused_build integer,
    reused_attempt integer,
    reused_job text,
    attempts integer not null,
    attempt integer,
    operation blob,
    started_at integer,
    finished_at integer,
    retry_at integer,
    primary key (build, name)
) strict, without rowid;

create table attempts (
    build integer not null,
    attempt integer not null,
    job text not null,
    try_number integer not null,
    lease integer not null,
    worker text not null,
    leased_at integer not null,
    outcome text,
    started_at integer,
    finished_at integer,
    tests integer,
    tests_failed integer,
    fact integer,
    primary key (build, attempt)
) strict, without rowid;

create table gates (
    build integer not null,
    job text not null,
    prompt text not null,
    opened_at integer not null,
    answered text,
    primary key (build, job)
) strict, without rowid;

create table artifacts (
    build integer not null,
    job text not null,
    attempt integer not null,
    name text not null,
    digest blob not null,
    files integer not null,
    bytes integer not null,
    primary key (build, job, attempt, name)
) strict, without rowid;
create index artifacts_digest on artifacts (digest);

-- The running times of the last attempts at a job that passed, in milliseconds, as JSON, the newest last.
create table histories (
    job text not null primary key,
    durations text not null
) strict, without rowid;

create table operations (
    digest blob not null,
    trust text not null,
    build integer not null,
    attempt integer not null,
    job text not null,
    job_id text not null,
    outcome text not null,
    artifacts text not null,
    artifact_bytes integer not null,
    at integer not null,
    used_at integer not null,
    evicted_at integer,
    evicted_reason text,
    primary key (digest, trust)
) strict, without rowid;
create index operations_job on operations (job_id, at);
create index operations_at on operations (at);

-- What operations are made of, as JSON: plain if short, else packed.
create table manifests (
    digest blob not null primary key,
    body blob not null
) strict, without rowid;

-- The blobs of live operations.
create table operation_blobs (
    operation blob not null,
    trust text not null,
    blob blob not null,
    primary key (operation, trust, blob)
) strict, without rowid;
create index operation_blobs_blob on operation_blobs (blob);

create table caches (
    scope text not null,
    key text not null,
    blobs text not null,
    bytes integer not null,
    build integer not null,
    job text not null,
    at integer not null,
    used_at integer not null,
    evicted_at integer,
    evicted_reason text,
    primary key (scope, key)
) strict, without rowid;

create table cache_reads (
    scope text not null,
    key text not null,
    build integer not null,
    job text not null,
    at integer not null,
    primary key (scope, key, build, job)
) strict, without rowid;
create index cache_reads_build on cache_reads (build);

-- The blobs of live entries.
create table cache_blobs (
    scope text not null,
    key text not null,
    blob blob not null,
    primary key (scope, key, blob)
) strict, without rowid;
create index cache_blobs_blob on cache_blobs (blob);
