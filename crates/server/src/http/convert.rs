//! From rows to public types.

use std::collections::BTreeMap;

use api::build::{Build, BuildBrief, Counts};
use api::cache::{CacheAct, CacheUse, Evicted, KeyedCache, Operation};
use api::job::{
    Artifact, Attempt, AttemptEnd, Cause, Field, Gate, GateAnswered, Job, JobKey, JobState, Report, ReusedFrom, Test,
    outputs_of,
};
use api::test_history::{NEVER_RUN_NAMED_MAX, NeverRun};
use graph::{AttemptReport, JobName};
use store::cache::CacheRow;
use store::rows::{
    ArtifactRow, AttemptRow, BuildRow, Eviction, GateRow, JobRow, JobState as RowState, OperationRow, TestRow,
};

/// A build without its source, which [`super::build::whole`] adds for whoever may know it, and without what it waits for.
pub fn build(row: &BuildRow) -> Build {
    let because = match &row.verdict {
        graph::Verdict::Failed { because } => because.as_ref().map(JobName::to_string),
        graph::Verdict::Diverged { job } => Some(job.to_string()),
        graph::Verdict::Running | graph::Verdict::Passed { .. } | graph::Verdict::Canceled { .. } => None,
    };
    let counts = &row.counts;
    Build {
        id: row.build,
        project: row.origin.project.clone(),
        number: Some(row.origin.number).filter(|number| *number > 0),
        pipeline: row.pipeline.clone(),
        name: row.name.clone(),
        event: (&row.event).into(),
        source: None,
        client: row.client.clone(),
        retry_of: row.retry_of,
        created: row.created.into(),
        started: row.started.map(Into::into),
        finished: row.finished.map(Into::into),
        verdict: (&row.verdict).into(),
        text: api::words::verdict(&row.verdict),
        because,
        canceled_by: row.canceled_by.clone(),
        jobs: row.jobs,
        counts: Counts {
            passed: counts.passed,
            failed: counts.failed,
            canceled: counts.canceled,
            skipped: counts.skipped,
            reused: counts.reused,
        },
        errors: row.errors,
        warnings: row.warnings,
        // A canceled build asks nobody any more.
        open_gates: if row.finished.is_some() { 0 } else { row.open_gates },
        unasked: None,
    }
}

/// A build in short.
pub fn brief(row: &BuildRow) -> BuildBrief {
    let event = &row.event;
    let of_branch = event.pull_request.is_none() && event.tag.is_none();
    BuildBrief {
        id: row.build,
        number: Some(row.origin.number).filter(|number| *number > 0),
        branch: event.branch.clone().filter(|_| of_branch),
        created: row.created.into(),
        started: row.started.map(Into::into),
        finished: row.finished.map(Into::into),
        verdict: (&row.verdict).into(),
        text: api::words::verdict(&row.verdict),
        open_gates: if row.finished.is_some() { 0 } else { row.open_gates },
    }
}

/// A job of the graph, with its row if a fact was about it.
pub fn job(
    build: graph::BuildId,
    name: &JobName,
    spec: Option<&graph::Job>,
    row: Option<&JobRow>,
    usual_ms: Option<u64>,
) -> Job {
    let state = match row.map(|row| row.state) {
        None | Some(RowState::Waiting) => JobState::Waiting,
        Some(RowState::Running) => JobState::Running,
        Some(RowState::Ended) => JobState::Ended,
    };
    let outcome = row.and_then(|row| row.outcome.as_ref());
    Job {
        build,
        name: name.to_string(),
        title: spec.map(|spec| spec.title.to_string()).unwrap_or_default(),
        order: spec.map_or(0, |spec| spec.order),
        state,
        outcome: outcome.map(Into::into),
        cause: outcome.and_then(Cause::of),
        outputs: outcome.map(outputs_of).unwrap_or_default(),
        reused: row.and_then(|row| row.reused.as_ref()).map(|reused| ReusedFrom {
            build: reused.build,
            attempt: reused.attempt.0,
            job: reused.job.to_string(),
        }),
        needs: spec.map(|spec| spec.needs.iter().map(|need| need.job.to_string()).collect()).unwrap_or_default(),
        pool: spec.map(|spec| spec.pool.clone()).unwrap_or_default(),
        gate: spec.is_some_and(|spec| spec.gate.is_some()),
        asking: false,
        allow_failure: spec.is_some_and(|spec| spec.allow_failure),
        attempts: row.map_or(0, |row| row.attempts),
        attempt: row.and_then(|row| row.attempt).map(|attempt| attempt.0),
        operation: row.and_then(|row| row.operation),
        started: row.and_then(|row| row.started).map(Into::into),
        finished: row.and_then(|row| row.finished).map(Into::into),
        retry_at: row.and_then(|row| row.retry_at).map(Into::into),
        child: row.and_then(|row| row.child),
        usual_ms,
        steps: Vec::new(),
    }
}

pub fn attempt(row: &AttemptRow, report: Option<&AttemptReport>) -> Attempt {
    Attempt {
        build: row.build,
        attempt: row.attempt.0,
        job: row.job.to_string(),
        try_number: row.try_number,
        worker: row.worker.to_string(),
        worker_name: String::new(),
        leased: row.leased.into(),
        partial: report.and_then(|report| report.partial).map(Into::into),
        waited_for: report.and_then(|report| report.waited_for.as_deref()).map(Into::into),
        ended: row.ended.as_ref().map(|end| AttemptEnd {
            outcome: (&end.outcome).into(),
            cause: Cause::of(&end.outcome),
            started: end.started.into(),
            finished: end.finished.into(),
            tests: end.tests,
            tests_failed: end.tests_failed,
            report: report.map(Report::from),
        }),
    }
}

pub fn never_run(job: &JobName, tests: &graph::NeverRun) -> NeverRun {
    let first = tests.tests.iter().take(NEVER_RUN_NAMED_MAX).map(ToString::to_string).collect();
    NeverRun { job: job.to_string(), tests: tests.count, first, passed_in: tests.passed_in }
}

/// A test as it was reported; that it is in quarantine is not known here.
pub fn test(row: &TestRow) -> Test {
    let case = &row.case;
    Test {
        attempt: row.attempt.0,
        job: row.job.to_string(),
        suite: case.suite.clone(),
        name: case.name.clone(),
        outcome: case.outcome.into(),
        duration_ms: case.duration_ms,
        message: case.message.clone(),
        output: case.output.clone(),
        quarantine: None,
    }
}

pub fn artifact(row: &ArtifactRow) -> Artifact {
    Artifact {
        job: row.job.to_string(),
        attempt: row.attempt.0,
        name: row.name.clone(),
        digest: row.artifact.digest,
        files: row.artifact.files,
        bytes: row.artifact.bytes,
    }
}

pub fn gate(row: &GateRow, spec: Option<&graph::Gate>) -> Gate {
    let fields: BTreeMap<String, Field> = spec
        .map(|gate| gate.fields.iter().map(|(name, field)| (name.clone(), field.into())).collect())
        .unwrap_or_default();
    Gate {
        build: row.build,
        job: row.job.to_string(),
        prompt: row.prompt.clone(),
        fields,
        opened: row.opened.into(),
        answered: row.answered.as_ref().map(|answered| GateAnswered {
            approved: answered.answer.is_some(),
            fields: answered.answer.clone().unwrap_or_default(),
            by: answered.by.clone(),
            reason: answered.reason.clone(),
            at: answered.at.into(),
        }),
    }
}

fn evicted(eviction: Option<&Eviction>) -> Option<Evicted> {
    eviction.map(|eviction| Evicted { at: eviction.at.into(), reason: eviction.reason.clone() })
}

pub fn operation(row: &OperationRow) -> Operation {
    Operation {
        digest: row.digest,
        job: row.job.to_string(),
        build: row.build,
        attempt: row.attempt.0,
        trust: row.trust.into(),
        outcome: (&row.outcome).into(),
        artifacts: row.artifacts.keys().cloned().collect(),
        bytes: row.artifacts.values().map(|artifact| artifact.bytes).sum(),
        at: row.at.into(),
        used_at: row.used_at.into(),
        evicted: evicted(row.evicted.as_ref()),
    }
}

pub fn cache_use(used: &store::cache::CacheUse) -> CacheUse {
    use store::cache::CacheAct as Act;
    let (act, found, bytes) = match &used.act {
        Act::Read { found } => (CacheAct::Read, found.clone(), None),
        Act::Missed => (CacheAct::Missed, String::new(), None),
        Act::Written { bytes } => (CacheAct::Written, String::new(), Some(*bytes)),
        Act::Kept => (CacheAct::Kept, String::new(), None),
    };
    CacheUse {
        scope: used.scope.clone(),
        key: used.key.clone(),
        act,
        found,
        bytes,
        by: JobKey { build: used.by.build, job: used.by.job.to_string() },
        at: used.at.into(),
    }
}

pub fn keyed_cache(row: &CacheRow) -> KeyedCache {
    KeyedCache {
        scope: row.scope.clone(),
        key: row.key.clone(),
        bytes: row.bytes,
        written_by: JobKey { build: row.written_by.build, job: row.written_by.job.to_string() },
        at: row.at.into(),
        used_at: row.used_at.into(),
        evicted: evicted(row.evicted.as_ref()),
    }
}
