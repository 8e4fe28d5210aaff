//! The projected rows in SQLite: how each is written, read and listed.

use std::collections::BTreeMap;

use graph::{Artifact, AttemptNumber, BuildId, JobName, LeaseId, Origin, WorkerId};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::column::{
    DigestColumn, TimeColumn, from_json, json, maybe_from_json, maybe_time, maybe_unsigned, signed, time, unsigned,
    word,
};
use crate::rows::projection::{History, HistoryKey, Source, Work, Working};
use crate::rows::{ArtifactRow, AttemptEnd, AttemptRow, BuildRow, Counts, GateRow, JobRow, JobState, ReusedFrom};
use crate::store::{BuildFilter, Commits, PAGE_ROWS_MAX, StoreError};

macro_rules! select_builds {
    () => {
        "select id, pipeline, event, client, retry_of, created_at, name, started_at, finished_at, verdict, \
         canceled_by, graph, jobs, errors, warnings, passed, failed, canceled, skipped, reused, open_gates, project, \
         number, source from builds"
    };
}
macro_rules! select_jobs {
    () => {
        "select build, name, state, outcome, reused_build, reused_attempt, reused_job, attempts, attempt, operation, \
         started_at, finished_at, retry_at, child from jobs where build = ?1"
    };
}
macro_rules! select_attempts {
    () => {
        "select build, attempt, job, try_number, lease, worker, leased_at, outcome, started_at, finished_at, tests, \
         tests_failed, fact from attempts where build = ?1"
    };
}
macro_rules! select_gates {
    () => {
        "select build, job, prompt, opened_at, answered from gates where build = ?1"
    };
}
/// The rows of a database as the projection asks for them.
pub(super) struct Stored<'a>(pub &'a Connection);

impl Source for Stored<'_> {
    fn build(&mut self, id: BuildId) -> Result<Option<(BuildRow, u64)>, StoreError> {
        let Some(row) = build(self.0, id)? else { return Ok(None) };
        let mut statement = self.0.prepare_cached("select facts from builds where id = ?1")?;
        let facts = statement.query_row([signed(id.0)], |row| unsigned(row, 0))?;
        Ok(Some((row, facts)))
    }

    fn job(&mut self, build: BuildId, name: &JobName) -> Result<Option<JobRow>, StoreError> {
        let mut statement = self.0.prepare_cached(concat!(select_jobs!(), " and name = ?2"))?;
        Ok(statement.query_row((signed(build.0), name.as_str()), job_row).optional()?)
    }

    fn attempt(&mut self, build: BuildId, attempt: AttemptNumber) -> Result<Option<AttemptRow>, StoreError> {
        let mut statement = self.0.prepare_cached(concat!(select_attempts!(), " and attempt = ?2"))?;
        Ok(statement.query_row((signed(build.0), attempt.0), attempt_row).optional()?)
    }

    fn gate(&mut self, build: BuildId, job: &JobName) -> Result<Option<GateRow>, StoreError> {
        let mut statement = self.0.prepare_cached(concat!(select_gates!(), " and job = ?2"))?;
        Ok(statement.query_row((signed(build.0), job.as_str()), gate_row).optional()?)
    }

    fn history(&mut self, key: &HistoryKey) -> Result<Option<History>, StoreError> {
        history(self.0, &key.project, &key.job)
    }
}

/// Writes every row that changed, once.
pub(super) fn write(connection: &Connection, working: &mut Working) -> Result<(), StoreError> {
    let changes = working.taken();
    for id in &changes.created {
        insert_build(connection, &working.builds[id])?;
    }
    for id in changes.builds.iter().filter(|id| !changes.created.contains(id)) {
        update_build(connection, &working.builds[id])?;
    }
    write_jobs(connection, changes.jobs.iter().map(|(id, name)| &working.builds[id].jobs[name].row))?;
    write_attempts(connection, changes.attempts.iter().map(|(id, number)| &working.builds[id].attempts[number].row))?;
    for (id, job) in &changes.gates {
        write_gate(connection, &working.builds[id].gates[job].row)?;
    }
    for row in &changes.artifacts {
        write_artifact(connection, row)?;
    }
    for key in &changes.histories {
        let sql = "insert into job_histories (project, job, durations) values (?1, ?2, ?3) \
                   on conflict (project, job) do update set durations = excluded.durations";
        let durations = json(&working.histories[key].row.0);
        connection.prepare_cached(sql)?.execute((&key.project, key.job.as_str(), durations))?;
    }
    // What has ended is not written again; should it be, it is read again.
    for id in &changes.builds {
        if working.builds[id].build.row.finished.is_some() {
            working.forget(*id);
        }
    }
    Ok(())
}

fn insert_build(connection: &Connection, work: &Work) -> Result<(), StoreError> {
    let row = &work.build.row;
    let sql = "insert into builds (id, pipeline, kind, branch, event, client, retry_of, created_at, name, verdict, \
               verdict_word, facts, jobs, errors, warnings, passed, failed, canceled, skipped, reused, open_gates, \
               project, number, source, commit_id) \
               values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, '', '', '', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ?9, ?10, ?11, ?12)";
    connection.prepare_cached(sql)?.execute(params![
        signed(row.build.0),
        row.pipeline,
        row.event.kind.name(),
        row.event.branch,
        json(&row.event),
        row.client,
        row.retry_of.map(|build| signed(build.0)),
        TimeColumn(row.created),
        row.origin.project,
        signed(row.origin.number),
        row.origin.source.map(DigestColumn),
        row.event.commit,
    ])?;
    update_build(connection, work)
}

fn update_build(connection: &Connection, work: &Work) -> Result<(), StoreError> {
    let row = &work.build.row;
    let sql = "update builds set name = ?2, started_at = ?3, finished_at = ?4, verdict = ?5, verdict_word = ?6, \
               canceled_by = ?7, graph = ?8, jobs = ?9, errors = ?10, warnings = ?11, passed = ?12, failed = ?13, \
               canceled = ?14, skipped = ?15, reused = ?16, open_gates = ?17, \
               facts = ?18 where id = ?1";
    connection.prepare_cached(sql)?.execute(params![
        signed(row.build.0),
        row.name,
        row.started.map(TimeColumn),
        row.finished.map(TimeColumn),
        json(&row.verdict),
        row.verdict.word(),
        row.canceled_by,
        row.graph.map(DigestColumn),
        signed(row.jobs),
        signed(row.errors),
        signed(row.warnings),
        signed(row.counts.passed),
        signed(row.counts.failed),
        signed(row.counts.canceled),
        signed(row.counts.skipped),
        signed(row.counts.reused),
        signed(row.open_gates),
        signed(work.facts),
    ])?;
    Ok(())
}

fn write_jobs<'a>(connection: &Connection, rows: impl Iterator<Item = &'a JobRow>) -> Result<(), StoreError> {
    let sql = "insert into jobs (build, name, state, outcome, reused_build, reused_attempt, reused_job, attempts, \
               attempt, operation, started_at, finished_at, retry_at, child) \
               values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) \
               on conflict (build, name) do update set state = excluded.state, outcome = excluded.outcome, \
               reused_build = excluded.reused_build, reused_attempt = excluded.reused_attempt, \
               reused_job = excluded.reused_job, attempts = excluded.attempts, attempt = excluded.attempt, \
               operation = excluded.operation, started_at = excluded.started_at, \
               finished_at = excluded.finished_at, retry_at = excluded.retry_at, child = excluded.child";
    let mut statement = connection.prepare_cached(sql)?;
    for row in rows {
        let reused = row.reused.as_ref();
        statement.execute(params![
            signed(row.build.0),
            row.name.as_str(),
            row.state.word(),
            row.outcome.as_ref().map(json),
            reused.map(|from| signed(from.build.0)),
            reused.map(|from| from.attempt.0),
            reused.map(|from| from.job.as_str()),
            row.attempts,
            row.attempt.map(|attempt| attempt.0),
            row.operation.map(DigestColumn),
            row.started.map(TimeColumn),
            row.finished.map(TimeColumn),
            row.retry_at.map(TimeColumn),
            row.child.map(|child| signed(child.0)),
        ])?;
    }
    Ok(())
}

fn write_attempts<'a>(connection: &Connection, rows: impl Iterator<Item = &'a AttemptRow>) -> Result<(), StoreError> {
    let sql = "insert into attempts (build, attempt, job, try_number, lease, worker, leased_at, outcome, started_at, \
               finished_at, tests, tests_failed, fact) \
               values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) \
               on conflict (build, attempt) do update set job = excluded.job, try_number = excluded.try_number, \
               lease = excluded.lease, worker = excluded.worker, leased_at = excluded.leased_at, \
               outcome = excluded.outcome, started_at = excluded.started_at, finished_at = excluded.finished_at, \
               tests = excluded.tests, tests_failed = excluded.tests_failed, fact = excluded.fact";
    let mut statement = connection.prepare_cached(sql)?;
    for row in rows {
        let end = row.ended.as_ref();
        statement.execute(params![
            signed(row.build.0),
            row.attempt.0,
            row.job.as_str(),
            row.try_number,
            signed(row.lease.0),
            &*row.worker.0,
            TimeColumn(row.leased),
            end.map(|end| json(&end.outcome)),
            end.map(|end| TimeColumn(end.started)),
            end.map(|end| TimeColumn(end.finished)),
            end.map(|end| signed(end.tests)),
            end.map(|end| signed(end.tests_failed)),
            end.map(|end| signed(end.fact)),
        ])?;
    }
    Ok(())
}

fn write_gate(connection: &Connection, row: &GateRow) -> Result<(), StoreError> {
    let sql = "insert into gates (build, job, prompt, opened_at, answered) values (?1, ?2, ?3, ?4, ?5) \
               on conflict (build, job) do update set prompt = excluded.prompt, opened_at = excluded.opened_at, \
               answered = excluded.answered";
    connection.prepare_cached(sql)?.execute(params![
        signed(row.build.0),
        row.job.as_str(),
        row.prompt,
        TimeColumn(row.opened),
        row.answered.as_ref().map(json),
    ])?;
    Ok(())
}

fn write_artifact(connection: &Connection, row: &ArtifactRow) -> Result<(), StoreError> {
    let sql = "insert into artifacts (build, job, attempt, name, digest, files, bytes) \
               values (?1, ?2, ?3, ?4, ?5, ?6, ?7) on conflict (build, job, attempt, name) do update set \
               digest = excluded.digest, files = excluded.files, bytes = excluded.bytes";
    connection.prepare_cached(sql)?.execute(params![
        signed(row.build.0),
        row.job.as_str(),
        row.attempt.0,
        row.name,
        DigestColumn(row.artifact.digest),
        signed(row.artifact.files),
        signed(row.artifact.bytes),
    ])?;
    Ok(())
}

fn build_row(row: &Row<'_>) -> rusqlite::Result<BuildRow> {
    Ok(BuildRow {
        build: BuildId(unsigned(row, 0)?),
        pipeline: row.get(1)?,
        event: from_json(row, 2)?,
        client: row.get(3)?,
        retry_of: maybe_unsigned(row, 4)?.map(BuildId),
        created: time(row, 5)?,
        name: row.get(6)?,
        started: maybe_time(row, 7)?,
        finished: maybe_time(row, 8)?,
        verdict: from_json(row, 9)?,
        canceled_by: row.get(10)?,
        graph: row.get::<_, Option<DigestColumn>>(11)?.map(|digest| digest.0),
        jobs: unsigned(row, 12)?,
        errors: unsigned(row, 13)?,
        warnings: unsigned(row, 14)?,
        counts: Counts {
            passed: unsigned(row, 15)?,
            failed: unsigned(row, 16)?,
            canceled: unsigned(row, 17)?,
            skipped: unsigned(row, 18)?,
            reused: unsigned(row, 19)?,
        },
        open_gates: unsigned(row, 20)?,
        origin: Origin {
            project: row.get(21)?,
            number: unsigned(row, 22)?,
            source: row.get::<_, Option<DigestColumn>>(23)?.map(|digest| digest.0),
        },
    })
}

fn job_row(row: &Row<'_>) -> rusqlite::Result<JobRow> {
    let reused = match maybe_unsigned(row, 4)? {
        Some(build) => Some(ReusedFrom {
            build: BuildId(build),
            attempt: AttemptNumber(row.get(5)?),
            job: row.get::<_, String>(6)?.into(),
        }),
        None => None,
    };
    Ok(JobRow {
        build: BuildId(unsigned(row, 0)?),
        name: row.get::<_, String>(1)?.into(),
        state: word(row, 2, &JobState::ALL, JobState::word)?,
        outcome: maybe_from_json(row, 3)?,
        reused,
        attempts: row.get(7)?,
        attempt: row.get::<_, Option<u32>>(8)?.map(AttemptNumber),
        operation: row.get::<_, Option<DigestColumn>>(9)?.map(|digest| digest.0),
        started: maybe_time(row, 10)?,
        finished: maybe_time(row, 11)?,
        retry_at: maybe_time(row, 12)?,
        child: maybe_unsigned(row, 13)?.map(BuildId),
    })
}

fn attempt_row(row: &Row<'_>) -> rusqlite::Result<AttemptRow> {
    let ended = match maybe_from_json(row, 7)? {
        Some(outcome) => Some(AttemptEnd {
            outcome,
            started: time(row, 8)?,
            finished: time(row, 9)?,
            tests: unsigned(row, 10)?,
            tests_failed: unsigned(row, 11)?,
            fact: unsigned(row, 12)?,
        }),
        None => None,
    };
    Ok(AttemptRow {
        build: BuildId(unsigned(row, 0)?),
        attempt: AttemptNumber(row.get(1)?),
        job: row.get::<_, String>(2)?.into(),
        try_number: row.get(3)?,
        lease: LeaseId(unsigned(row, 4)?),
        worker: WorkerId(row.get::<_, String>(5)?.into()),
        leased: time(row, 6)?,
        ended,
    })
}

fn gate_row(row: &Row<'_>) -> rusqlite::Result<GateRow> {
    Ok(GateRow {
        build: BuildId(unsigned(row, 0)?),
        job: row.get::<_, String>(1)?.into(),
        prompt: row.get(2)?,
        opened: time(row, 3)?,
        answered: maybe_from_json(row, 4)?,
    })
}

fn artifact_row(row: &Row<'_>) -> rusqlite::Result<ArtifactRow> {
    Ok(ArtifactRow {
        build: BuildId(unsigned(row, 0)?),
        job: row.get::<_, String>(1)?.into(),
        attempt: AttemptNumber(row.get(2)?),
        name: row.get(3)?,
        artifact: Artifact {
            digest: row.get::<_, DigestColumn>(4)?.0,
            files: unsigned(row, 5)?,
            bytes: unsigned(row, 6)?,
        },
    })
}

pub(super) fn unfinished(connection: &Connection) -> Result<Vec<BuildId>, StoreError> {
    let mut statement = connection.prepare_cached("select id from builds where finished_at is null order by id")?;
    let ids = statement.query_map([], |row| Ok(BuildId(unsigned(row, 0)?)))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

pub(super) fn build(connection: &Connection, id: BuildId) -> Result<Option<BuildRow>, StoreError> {
    let mut statement = connection.prepare_cached(concat!(select_builds!(), " where id = ?1"))?;
    Ok(statement.query_row([signed(id.0)], build_row).optional()?)
}

pub(super) fn builds(
    connection: &Connection,
    filter: &BuildFilter,
    before: Option<BuildId>,
    limit: u32,
) -> Result<Vec<BuildRow>, StoreError> {
    let (sql, values) = builds_query(filter, before, limit);
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), build_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn build_versions(
    connection: &Connection,
    filter: &BuildFilter,
    before: Option<BuildId>,
    limit: u32,
) -> Result<Vec<(BuildId, u64)>, StoreError> {
    let (sql, values) = listing("select id, facts from builds", filter, before, limit);
    let mut statement = connection.prepare_cached(&sql)?;
    let rows =
        statement.query_map(params_from_iter(values), |row| Ok((BuildId(unsigned(row, 0)?), unsigned(row, 1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The statement that lists builds, and its values.
pub(super) fn builds_query(filter: &BuildFilter, before: Option<BuildId>, limit: u32) -> (String, Vec<Value>) {
    listing(select_builds!(), filter, before, limit)
}

fn listing(select: &str, filter: &BuildFilter, before: Option<BuildId>, limit: u32) -> (String, Vec<Value>) {
    let commits = filter.commits();
    // Few builds are of the commits that begin alike: they are found by the index and sorted, which SQLite would not choose by itself.
    let index = if matches!(commits, Some(Commits::From(..))) { " indexed by builds_commit" } else { "" };
    let mut sql = format!("{select}{index} where id < ?");
    // The indexes of projects and of commits do not hold builds without one.
    if filter.project.as_ref().is_some_and(|project| !project.is_empty()) {
        sql.push_str(" and project <> ''");
    }
    if filter.commit.as_ref().is_some_and(|commit| !commit.is_empty()) {
        sql.push_str(" and commit_id <> ''");
    }
    let mut values = vec![Value::from(before.map_or(i64::MAX, |before| signed(before.0)))];
    let (whole, from, to) = match &commits {
        Some(Commits::Whole(commit)) => (Some(*commit), None, None),
        Some(Commits::From(from, to)) => (None, Some(*from), Some(to.as_str())),
        None => (None, None, None),
    };
    let conditions = [
        (" and branch = ?", filter.branch.as_deref()),
        (" and kind = ?", filter.kind.map(graph::EventKind::name)),
        (" and verdict_word = ?", filter.verdict.map(crate::rows::VerdictWord::word)),
        (" and pipeline = ?", filter.pipeline.as_deref()),
        (" and project = ?", filter.project.as_deref()),
        (" and commit_id = ?", whole),
        (" and commit_id >= ?", from),
        (" and commit_id < ?", to),
    ];
    for (condition, value) in conditions {
        if let Some(value) = value {
            sql.push_str(condition);
            values.push(Value::from(value.to_owned()));
        }
    }
    sql.push_str(" order by id desc limit ?");
    values.push(Value::from(limit.min(PAGE_ROWS_MAX)));
    (sql, values)
}

pub(super) fn numbered(connection: &Connection, project: &str, number: u64) -> Result<Option<BuildId>, StoreError> {
    let sql = "select id from builds where project = ?1 and number = ?2 and project <> '' order by id limit 1";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row((project, signed(number)), |row| Ok(BuildId(unsigned(row, 0)?)));
    Ok(found.optional()?)
}

pub(super) fn jobs(connection: &Connection, build: BuildId) -> Result<Vec<JobRow>, StoreError> {
    let mut statement = connection.prepare_cached(concat!(select_jobs!(), " order by name"))?;
    let rows = statement.query_map([signed(build.0)], job_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn attempts(
    connection: &Connection,
    build: BuildId,
    job: Option<&JobName>,
) -> Result<Vec<AttemptRow>, StoreError> {
    // A build's attempts lie together; reading past those of other jobs costs less than an index on every write.
    let sql = concat!(select_attempts!(), " and (?2 is null or job = ?2) order by attempt");
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map((signed(build.0), job.map(JobName::as_str)), attempt_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn gates(connection: &Connection, build: BuildId) -> Result<Vec<GateRow>, StoreError> {
    let mut statement = connection.prepare_cached(concat!(select_gates!(), " order by job"))?;
    let rows = statement.query_map([signed(build.0)], gate_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn artifacts(connection: &Connection, build: BuildId) -> Result<Vec<ArtifactRow>, StoreError> {
    let sql = "select build, job, attempt, name, digest, files, bytes from artifacts where build = ?1 \
               order by job, attempt, name";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([signed(build.0)], artifact_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn history(connection: &Connection, project: &str, job: &JobName) -> Result<Option<History>, StoreError> {
    let sql = "select durations from job_histories where project = ?1 and job = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_row([project, job.as_str()], |row| Ok(History(from_json(row, 0)?))).optional()?)
}

pub(super) fn durations(
    connection: &Connection,
    project: &str,
    names: &[JobName],
) -> Result<BTreeMap<JobName, u64>, StoreError> {
    let mut durations = BTreeMap::new();
    for name in names {
        if let Some(usual_ms) = history(connection, project, name)?.and_then(|history| history.usual_ms()) {
            durations.insert(name.clone(), usual_ms);
        }
    }
    Ok(durations)
}
