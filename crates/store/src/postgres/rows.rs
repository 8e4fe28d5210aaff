//! The projected rows in PostgreSQL: how each is written, read and listed.

use graph::{Artifact, AttemptNumber, BuildId, JobName, LeaseId, Origin, WorkerId};
use tokio_postgres::Row;

use super::column::{
    clean, digest, from_json, get, json, maybe_digest, maybe_from_json, maybe_time, maybe_unsigned, number, short,
    time, unsigned, word,
};
use super::session::{Call, Value};
use crate::rows::projection::{History, HistoryKey, Work};
use crate::rows::{ArtifactRow, AttemptEnd, AttemptRow, BuildRow, Counts, GateRow, JobRow, JobState, ReusedFrom};
use crate::store::{BuildFilter, Commits, PAGE_ROWS_MAX, StoreError};
use crate::table::{ATTEMPTS, BUILDS, Cell, GATES, JOBS};

pub(super) fn build_cells(work: &Work) -> Vec<Cell> {
    let row = &work.build.row;
    vec![
        row.build.0.into(),
        row.pipeline.as_str().into(),
        row.event.kind.name().into(),
        row.event.branch.as_deref().into(),
        json(&row.event).into(),
        row.client.as_str().into(),
        row.retry_of.map(|build| build.0).into(),
        row.created.into(),
        row.name.as_str().into(),
        row.started.into(),
        row.finished.into(),
        json(&row.verdict).into(),
        row.verdict.word().into(),
        row.canceled_by.as_deref().into(),
        row.graph.into(),
        work.facts.into(),
        row.jobs.into(),
        row.errors.into(),
        row.warnings.into(),
        row.counts.passed.into(),
        row.counts.failed.into(),
        row.counts.canceled.into(),
        row.counts.skipped.into(),
        row.counts.reused.into(),
        row.open_gates.into(),
        row.origin.project.as_str().into(),
        row.origin.number.into(),
        row.origin.source.into(),
        row.event.commit.as_str().into(),
    ]
}

/// A build's row, and how many of its facts it shows; of a row with the columns of [`BUILDS`].
pub(super) fn build_row(row: &Row) -> Result<(BuildRow, u64), StoreError> {
    let build = BuildRow {
        build: BuildId(unsigned(row, 0)?),
        pipeline: get(row, 1)?,
        event: from_json(row, 4)?,
        client: get(row, 5)?,
        retry_of: maybe_unsigned(row, 6)?.map(BuildId),
        created: time(row, 7)?,
        name: get(row, 8)?,
        started: maybe_time(row, 9)?,
        finished: maybe_time(row, 10)?,
        verdict: from_json(row, 11)?,
        canceled_by: get(row, 13)?,
        graph: maybe_digest(row, 14)?,
        jobs: unsigned(row, 16)?,
        errors: unsigned(row, 17)?,
        warnings: unsigned(row, 18)?,
        counts: Counts {
            passed: unsigned(row, 19)?,
            failed: unsigned(row, 20)?,
            canceled: unsigned(row, 21)?,
            skipped: unsigned(row, 22)?,
            reused: unsigned(row, 23)?,
        },
        open_gates: unsigned(row, 24)?,
        origin: Origin { project: get(row, 25)?, number: unsigned(row, 26)?, source: maybe_digest(row, 27)? },
    };
    Ok((build, unsigned(row, 15)?))
}

/// A row with the columns of [`build_versions`].
pub(super) fn build_version(row: &Row) -> Result<(BuildId, u64), StoreError> {
    Ok((BuildId(unsigned(row, 0)?), unsigned(row, 1)?))
}

pub(super) fn job_cells(row: &JobRow) -> Vec<Cell> {
    let reused = row.reused.as_ref();
    vec![
        row.build.0.into(),
        row.name.as_str().into(),
        row.state.word().into(),
        row.outcome.as_ref().map(json).into(),
        reused.map(|from| from.build.0).into(),
        reused.map(|from| from.attempt.0).into(),
        reused.map(|from| from.job.as_str()).into(),
        row.attempts.into(),
        row.attempt.map(|attempt| attempt.0).into(),
        row.operation.into(),
        row.started.into(),
        row.finished.into(),
        row.retry_at.into(),
        row.child.map(|child| child.0).into(),
    ]
}

pub(super) fn job_row(row: &Row) -> Result<JobRow, StoreError> {
    let reused = match maybe_unsigned(row, 4)? {
        Some(build) => Some(ReusedFrom {
            build: BuildId(build),
            attempt: AttemptNumber(short(row, 5)?),
            job: get::<String>(row, 6)?.into(),
        }),
        None => None,
    };
    let attempt = maybe_unsigned(row, 8)?.is_some().then(|| short(row, 8)).transpose()?;
    Ok(JobRow {
        build: BuildId(unsigned(row, 0)?),
        name: get::<String>(row, 1)?.into(),
        state: word(row, 2, &JobState::ALL, JobState::word)?,
        outcome: maybe_from_json(row, 3)?,
        reused,
        attempts: short(row, 7)?,
        attempt: attempt.map(AttemptNumber),
        operation: maybe_digest(row, 9)?,
        started: maybe_time(row, 10)?,
        finished: maybe_time(row, 11)?,
        retry_at: maybe_time(row, 12)?,
        child: maybe_unsigned(row, 13)?.map(BuildId),
    })
}

pub(super) fn attempt_cells(row: &AttemptRow) -> Vec<Cell> {
    let end = row.ended.as_ref();
    vec![
        row.build.0.into(),
        row.attempt.0.into(),
        row.job.as_str().into(),
        row.try_number.into(),
        row.lease.0.into(),
        (&*row.worker.0).into(),
        row.leased.into(),
        end.map(|end| json(&end.outcome)).into(),
        end.map(|end| end.started).into(),
        end.map(|end| end.finished).into(),
        end.map(|end| end.tests).into(),
        end.map(|end| end.tests_failed).into(),
        end.map(|end| end.fact).into(),
    ]
}

pub(super) fn attempt_row(row: &Row) -> Result<AttemptRow, StoreError> {
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
        attempt: AttemptNumber(short(row, 1)?),
        job: get::<String>(row, 2)?.into(),
        try_number: short(row, 3)?,
        lease: LeaseId(unsigned(row, 4)?),
        worker: WorkerId(get::<String>(row, 5)?.into()),
        leased: time(row, 6)?,
        ended,
    })
}

pub(super) fn gate_cells(row: &GateRow) -> Vec<Cell> {
    vec![
        row.build.0.into(),
        row.job.as_str().into(),
        row.prompt.as_str().into(),
        row.opened.into(),
        row.answered.as_ref().map(json).into(),
    ]
}

pub(super) fn gate_row(row: &Row) -> Result<GateRow, StoreError> {
    Ok(GateRow {
        build: BuildId(unsigned(row, 0)?),
        job: get::<String>(row, 1)?.into(),
        prompt: get(row, 2)?,
        opened: time(row, 3)?,
        answered: maybe_from_json(row, 4)?,
    })
}

pub(super) fn artifact_cells(row: &ArtifactRow) -> Vec<Cell> {
    vec![
        row.build.0.into(),
        row.job.as_str().into(),
        row.attempt.0.into(),
        row.name.as_str().into(),
        row.artifact.digest.into(),
        row.artifact.files.into(),
        row.artifact.bytes.into(),
    ]
}

pub(super) fn artifact_row(row: &Row) -> Result<ArtifactRow, StoreError> {
    Ok(ArtifactRow {
        build: BuildId(unsigned(row, 0)?),
        job: get::<String>(row, 1)?.into(),
        attempt: AttemptNumber(short(row, 2)?),
        name: get(row, 3)?,
        artifact: Artifact { digest: digest(row, 4)?, files: unsigned(row, 5)?, bytes: unsigned(row, 6)? },
    })
}

pub(super) fn history_row(row: &Row) -> Result<(HistoryKey, History), StoreError> {
    let key = HistoryKey { project: get(row, 0)?, job: get::<String>(row, 1)?.into() };
    Ok((key, History(from_json(row, 2)?)))
}

pub(super) fn builds(filter: &BuildFilter, before: Option<BuildId>, limit: u32) -> Call {
    listing(&BUILDS.names(), filter, before, limit)
}

/// As [`builds`], of each its id and how many facts its rows show.
pub(super) fn build_versions(filter: &BuildFilter, before: Option<BuildId>, limit: u32) -> Call {
    listing("id, facts", filter, before, limit)
}

fn listing(columns: &str, filter: &BuildFilter, before: Option<BuildId>, limit: u32) -> Call {
    let mut sql = format!("select {columns} from builds where id < $1");
    let mut values = vec![before.map_or(Value::Integer(i64::MAX), |before| number(before.0))];
    let mut add = |condition: &str, value: Option<&str>| {
        if let Some(value) = value {
            values.push(Value::Text(clean(value)));
            sql.push_str(&condition.replace('?', &format!("${}::text", values.len())));
        }
    };
    add(" and left(branch, 256) = left(?, 256) and branch = ?", filter.branch.as_deref());
    add(" and kind = ?", filter.kind.map(graph::EventKind::name));
    add(" and verdict_word = ?", filter.verdict.map(crate::rows::VerdictWord::word));
    add(" and pipeline = ?", filter.pipeline.as_deref());
    add(" and project = ?", filter.project.as_deref());
    // The index of commits does not hold builds without one.
    match filter.commits() {
        Some(Commits::Whole("")) => add(" and commit_id = ?", Some("")),
        Some(Commits::Whole(commit)) => add(" and commit_id = ? and commit_id <> ''", Some(commit)),
        Some(Commits::From(from, to)) => {
            add(" and commit_id >= ? and commit_id <> ''", Some(from));
            add(" and commit_id < ?", Some(&to));
        }
        None => {}
    }
    values.push(number(limit.min(PAGE_ROWS_MAX).into()));
    sql.push_str(&format!(" order by id desc limit ${}", values.len()));
    Call::new(sql, values)
}

pub(super) fn jobs(build: BuildId) -> Call {
    Call::new(format!("select {} from jobs where build = $1 order by name", JOBS.names()), [number(build.0)])
}

pub(super) fn attempts(build: BuildId, job: Option<&JobName>) -> Call {
    let sql = format!(
        "select {} from attempts where build = $1 and ($2::text is null or job = $2) order by attempt",
        ATTEMPTS.names()
    );
    Call::new(sql, [number(build.0), Value::MaybeText(job.map(|job| clean(job.as_str())))])
}

pub(super) fn gates(build: BuildId) -> Call {
    Call::new(format!("select {} from gates where build = $1 order by job", GATES.names()), [number(build.0)])
}
