//! From what travels to rows. What a server keeps to itself (leases, places of facts, the digest of a graph) stands as nothing.

use std::collections::BTreeMap;

use api::build::{Build, VerdictWord};
use api::job::{
    Artifact, Attempt, CacheFound, CacheReport, CacheSaved, Cause, Gate, Job, JobState, OutcomeWord, Phase, Step, Test,
    TestOutcome, Usage,
};
use dialects::tree::Sources;
use graph::{
    AttemptNumber, AttemptReport, BuildId, Checkout, Diagnostic, Event, Failure, JobName, LeaseId, Location, Origin,
    Outcome, Parent, Severity, SkipReason, StepReport, TestCase, Verdict, Waits, WorkerId,
};
use serde_json::Value;
use store::rows::{
    ArtifactRow, AttemptEnd, AttemptRow, BuildRow, Counts, GateAnswer, GateRow, JobRow, JobState as RowState,
    ReusedFrom,
};

pub fn build(build: &Build) -> BuildRow {
    let counts = &build.counts;
    BuildRow {
        build: build.id,
        pipeline: build.pipeline.clone(),
        name: build.name.clone(),
        event: event(&build.event),
        client: build.client.clone(),
        retry_of: build.retry_of,
        origin: Origin {
            project: build.project.clone(),
            number: build.number.unwrap_or_default(),
            source: build.source,
        },
        created: build.created.0,
        started: build.started.map(|at| at.0),
        finished: build.finished.map(|at| at.0),
        verdict: verdict(build.verdict, &build.text),
        canceled_by: build.canceled_by.clone(),
        graph: None,
        jobs: build.jobs,
        errors: build.errors,
        warnings: build.warnings,
        counts: Counts {
            passed: counts.passed,
            failed: counts.failed,
            canceled: counts.canceled,
            skipped: counts.skipped,
            reused: counts.reused,
        },
        open_gates: build.open_gates,
    }
}

fn event(event: &api::event::Event) -> Event {
    Event {
        kind: event.kind.into(),
        commit: event.commit.clone().unwrap_or_default(),
        branch: event.branch.clone(),
        tag: event.tag.clone(),
        base: event.base.clone(),
        command: event.command.clone(),
        pull_request: event.pull_request,
        actor: event.actor.clone(),
        message: event.message.clone(),
        time: event.time.0,
        params: event.params.clone(),
        trust: event.trust.into(),
        checkout: if event.local_changes { Checkout::Changed } else { Checkout::AsCommitted },
        parent: event.parent.as_ref().map(|parent| Parent {
            build: parent.build,
            job: JobName::from(parent.job.as_str()),
            depth: 1,
            waits: Waits::ForVerdict,
        }),
    }
}

/// The verdict whose words these are.
pub fn verdict(verdict: VerdictWord, text: &str) -> Verdict {
    match verdict {
        VerdictWord::Running => Verdict::Running,
        VerdictWord::Passed => Verdict::Passed { note: text.strip_prefix("passed: ").map(str::to_owned) },
        VerdictWord::Failed => Verdict::Failed { because: because(text).map(JobName::from) },
        VerdictWord::Canceled => {
            Verdict::Canceled { by: text.strip_prefix("was canceled by ").unwrap_or(text).to_owned() }
        }
        VerdictWord::Diverged => {
            let job = text.split('`').nth(1).unwrap_or_default();
            Verdict::Diverged { job: JobName::from(job) }
        }
    }
}

/// The job that a verdict's words blame.
fn because(text: &str) -> Option<&str> {
    text.strip_prefix("failed because of `")?.strip_suffix('`')
}

/// The outcome whose words these are.
pub fn outcome(outcome: OutcomeWord, cause: Option<&Cause>, outputs: &BTreeMap<String, Value>) -> Outcome {
    let text = || cause.map(|cause| cause.text.clone()).unwrap_or_default();
    let by = || cause.and_then(|cause| cause.by.clone());
    match outcome {
        OutcomeWord::Passed => Outcome::Passed { outputs: outputs.clone() },
        OutcomeWord::Skipped => {
            Outcome::Skipped(cause.map_or_else(|| SkipReason::NotWanted { text: String::new() }, skip_reason))
        }
        OutcomeWord::Canceled => {
            let by = by().unwrap_or_else(|| {
                let text = text();
                text.strip_prefix("canceled by ").unwrap_or(&text).to_owned()
            });
            Outcome::Failed(Failure::Canceled { by })
        }
        OutcomeWord::Failed => {
            Outcome::Failed(cause.map_or_else(|| Failure::Infra { message: String::new() }, failure))
        }
    }
}

fn failure(cause: &Cause) -> Failure {
    match (cause.kind.as_str(), cause.step, cause.exit, cause.limit_ms) {
        ("step", Some(step), Some(exit), _) => {
            // Without a message the text names nothing but the step and its code.
            let message = Some(cause.text.clone()).filter(|text| !text.starts_with("a step "));
            Failure::Step { step, exit, message }
        }
        ("timeout", step, _, Some(limit_ms)) => Failure::Timeout { step, limit_ms },
        ("lost", ..) => Failure::Lost,
        ("setup", ..) => Failure::Setup { message: cause.text.clone() },
        _ => Failure::Infra { message: cause.text.clone() },
    }
}

fn skip_reason(cause: &Cause) -> SkipReason {
    let condition = || cause.text.strip_prefix('`')?.strip_suffix("` does not hold");
    match (cause.kind.as_str(), &cause.because, &cause.by) {
        ("need", Some(because), _) => SkipReason::Need { because: JobName::from(because.as_str()) },
        ("rejected" | "refused", _, Some(by)) => SkipReason::Rejected { by: by.clone() },
        ("dropped", ..) => SkipReason::Dropped,
        ("condition", ..) if condition().is_some() => {
            SkipReason::Condition { text: condition().unwrap_or_default().to_owned() }
        }
        _ => SkipReason::NotWanted { text: cause.text.clone() },
    }
}

/// `None` if nothing has happened to the job.
pub fn job(job: &Job) -> Option<JobRow> {
    let is_untouched = job.state == JobState::Waiting
        && job.attempts == 0
        && job.operation.is_none()
        && job.retry_at.is_none()
        && job.started.is_none();
    (!is_untouched).then(|| JobRow {
        build: job.build,
        name: JobName::from(job.name.as_str()),
        state: match job.state {
            JobState::Waiting => RowState::Waiting,
            JobState::Running => RowState::Running,
            JobState::Ended => RowState::Ended,
        },
        outcome: job.outcome.map(|word| outcome(word, job.cause.as_ref(), &job.outputs)),
        reused: job.reused.as_ref().map(|reused| ReusedFrom {
            build: reused.build,
            attempt: AttemptNumber(reused.attempt),
            job: JobName::from(reused.job.as_str()),
        }),
        attempts: job.attempts,
        attempt: job.attempt.map(AttemptNumber),
        operation: job.operation,
        started: job.started.map(|at| at.0),
        finished: job.finished.map(|at| at.0),
        retry_at: job.retry_at.map(|at| at.0),
        child: job.child,
    })
}

pub fn attempt(attempt: &Attempt) -> AttemptRow {
    AttemptRow {
        build: attempt.build,
        attempt: AttemptNumber(attempt.attempt),
        job: JobName::from(attempt.job.as_str()),
        try_number: attempt.try_number,
        lease: LeaseId(0),
        worker: WorkerId(attempt.worker.as_str().into()),
        leased: attempt.leased.0,
        ended: attempt.ended.as_ref().map(|end| AttemptEnd {
            outcome: outcome(end.outcome, end.cause.as_ref(), &BTreeMap::new()),
            started: end.started.0,
            finished: end.finished.0,
            tests: end.tests,
            tests_failed: end.tests_failed,
            fact: 0,
        }),
    }
}

/// What the worker said, with these tests; `None` if it has not.
pub fn report(attempt: &Attempt, tests: Vec<TestCase>) -> Option<AttemptReport> {
    let end = attempt.ended.as_ref()?;
    let report = end.report.as_ref()?;
    Some(AttemptReport {
        started: end.started.0,
        finished: end.finished.0,
        steps: report.steps.iter().map(step).collect(),
        usage: usage(report.usage),
        tests,
        summary: report.summary.clone(),
        notes: report.notes.clone(),
        caches: report.caches.iter().map(cache).collect(),
        phases: report.phases.iter().map(phase).collect(),
        partial: report.partial.map(Into::into),
        waited_for: attempt.waited_for.as_ref().map(|it| Box::new(it.into())),
        ..AttemptReport::of(outcome(end.outcome, end.cause.as_ref(), &report.outputs), end.finished.0)
    })
}

fn phase(phase: &Phase) -> graph::Phase {
    graph::Phase {
        what: phase.what.clone(),
        name: phase.name.clone(),
        started: phase.started.0,
        finished: phase.finished.0,
    }
}

fn cache(cache: &CacheReport) -> graph::CacheReport {
    graph::CacheReport {
        key: cache.key.clone(),
        found: match cache.found {
            CacheFound::Key => graph::CacheFound::Key,
            CacheFound::Prefix => graph::CacheFound::Prefix,
            CacheFound::Nothing => graph::CacheFound::Nothing,
            CacheFound::Refused => graph::CacheFound::Refused,
        },
        found_key: cache.found_key.clone(),
        found_bytes: cache.found_bytes,
        saved: match cache.saved {
            CacheSaved::Not => graph::CacheSaved::Not,
            CacheSaved::Written => graph::CacheSaved::Written,
            CacheSaved::Kept => graph::CacheSaved::Kept,
            CacheSaved::Refused => graph::CacheSaved::Refused,
        },
        saved_bytes: cache.saved_bytes,
        put_bytes: cache.put_bytes,
    }
}

fn step(step: &Step) -> StepReport {
    StepReport {
        name: step.name.clone(),
        exit: step.exit,
        signal: step.signal,
        result: step.result.into(),
        started: step.started.0,
        finished: step.finished.0,
        usage: usage(step.usage),
        outputs: step.outputs.clone(),
        lines: step.lines,
    }
}

fn usage(usage: Usage) -> graph::Usage {
    graph::Usage {
        peak_memory_bytes: usage.peak_memory_bytes,
        cpu_user_us: usage.cpu_user_us,
        cpu_system_us: usage.cpu_system_us,
    }
}

pub fn test(test: Test) -> TestCase {
    TestCase {
        suite: test.suite,
        name: test.name,
        outcome: match test.outcome {
            TestOutcome::Passed => graph::TestOutcome::Passed,
            TestOutcome::Failed => graph::TestOutcome::Failed,
            TestOutcome::Errored => graph::TestOutcome::Errored,
            TestOutcome::Skipped => graph::TestOutcome::Skipped,
        },
        duration_ms: test.duration_ms,
        message: test.message,
        output: test.output,
    }
}

pub fn artifact(build: BuildId, artifact: Artifact) -> ArtifactRow {
    ArtifactRow {
        build,
        job: JobName::from(artifact.job.as_str()),
        attempt: AttemptNumber(artifact.attempt),
        name: artifact.name,
        artifact: graph::Artifact { digest: artifact.digest, files: artifact.files, bytes: artifact.bytes },
    }
}

pub fn gate(gate: Gate) -> GateRow {
    GateRow {
        build: gate.build,
        job: JobName::from(gate.job.as_str()),
        prompt: gate.prompt,
        opened: gate.opened.0,
        answered: gate.answered.map(|answered| GateAnswer {
            answer: answered.approved.then_some(answered.fields),
            by: answered.by,
            reason: answered.reason,
            at: answered.at.0,
        }),
    }
}

/// A place as it travels: file, line, column, how many characters are meant.
type Place<'a> = (&'a str, u32, u32, Option<u32>);
/// The lines that travelled, by file and number.
type Lines = BTreeMap<String, BTreeMap<u32, String>>;

/// Faults with those lines of their files that travelled: texts that are empty but for them, in which the faults have their places.
pub fn diagnostics(found: Vec<api::build::Diagnostic>) -> (Vec<Diagnostic>, Sources) {
    let mut lines = Lines::new();
    let mut keep = |file: &str, line: u32, text: &Option<String>| {
        if let (1..=LINES_MAX, Some(text)) = (line, text) {
            lines.entry(file.to_owned()).or_default().insert(line, text.replace(['\n', '\r'], " "));
        }
    };
    for found in &found {
        keep(found.file.as_deref().unwrap_or_default(), found.line.unwrap_or_default(), &found.text);
        found.related.iter().for_each(|related| keep(&related.file, related.line, &related.text));
    }
    let mut sources = Sources::new();
    for (file, lines) in &lines {
        let last = lines.keys().next_back().copied().unwrap_or_default();
        let text: Vec<&str> = (1..=last).map(|line| lines.get(&line).map_or("", String::as_str)).collect();
        sources.add(file, text.join("\n").into());
    }
    (found.into_iter().map(|found| diagnostic(found, &lines)).collect(), sources)
}

/// The highest number of a line that is shown.
const LINES_MAX: u32 = 1_000_000;

/// The place with its bytes in the text that [`diagnostics`] makes of the lines; they are zero without a line.
fn location((file, line, column, length): Place<'_>, lines: &Lines) -> Location {
    let bytes = || {
        let lines = lines.get(file)?;
        let text = lines.get(&line)?;
        let above: usize = lines.range(..line).map(|(_, text)| text.len()).sum::<usize>() + line as usize - 1;
        let byte = |column: u32| text.char_indices().nth(column as usize).map_or(text.len(), |(byte, _)| byte);
        let first = column.saturating_sub(1);
        let (start, end) = (byte(first), byte(first.saturating_add(length.unwrap_or(1))));
        Some((u32::try_from(above + start).ok()?, u32::try_from(above + end).ok()?))
    };
    let (start, end) = bytes().unwrap_or_default();
    Location { file: file.into(), line, column, start, end }
}

fn diagnostic(found: api::build::Diagnostic, lines: &Lines) -> Diagnostic {
    let place =
        found.file.as_deref().map(|file| (file, found.line.unwrap_or(1), found.column.unwrap_or(1), found.length));
    let related = found.related.iter().map(|related| {
        let place = (&*related.file, related.line, related.column, related.length);
        (location(place, lines), related.remark.clone())
    });
    Diagnostic {
        code: found.code.into(),
        severity: match found.severity {
            api::build::SeverityWord::Error => Severity::Error,
            api::build::SeverityWord::Warning => Severity::Warning,
        },
        message: found.message,
        location: place.map(|place| location(place, lines)),
        label: found.label,
        help: found.help.unwrap_or_default(),
        related: related.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_a_server_are_shown_with_their_lines() {
        let text = "one\n    needs: [\u{e9}t\u{e9}, nope]\nthree\n";
        let start = text.find("nope").expect("it is there") as u32;
        let location = Location { file: "p.yaml".into(), line: 2, column: 18, start, end: start + 4 };
        let further = Location { file: "p.yaml".into(), line: 3, column: 1, start: start + 6, end: start + 11 };
        let fault = Diagnostic::error("unknown-need", "no such job").at(location, "here").help("name one");
        let fault = fault.related(further, "the first one");
        let mut sent = api::build::Diagnostic::from(&fault).with_line_of(text, start, start + 4);
        let related = sent.related.remove(0).with_line_of(text, start + 6, start + 11);
        assert_eq!((related.text.as_deref(), related.length), (Some("three"), Some(5)));
        sent.related.push(related);
        assert_eq!((sent.text.as_deref(), sent.length), (Some("    needs: [\u{e9}t\u{e9}, nope]"), Some(4)));
        let (found, sources) = diagnostics(vec![sent.clone(), sent]);
        let shown = dialects::report::text(&found[..1], &sources, dialects::report::Color::Never);
        assert!(shown.contains("2 |     needs: [\u{e9}t\u{e9}, nope]"), "{shown}");
        assert!(shown.contains("^^^^ here"), "{shown}");
        assert!(shown.contains("3 | three\n  | ----- the first one"), "{shown}");
        // Bytes of another text show nothing.
        let sent =
            api::build::Diagnostic::from(&fault).with_line_of("nothing of that\nstands here, in this text\n", 5, 9);
        assert_eq!(sent.text, None);
    }

    #[test]
    fn outcomes_come_back_as_they_went() {
        let by = || "ada".to_owned();
        for there in [
            Outcome::Passed { outputs: BTreeMap::from([("a".to_owned(), Value::from(1))]) },
            Outcome::Failed(Failure::Step { step: 2, exit: 101, message: None }),
            Outcome::Failed(Failure::Timeout { step: Some(1), limit_ms: 90_000 }),
            Outcome::Failed(Failure::Timeout { step: None, limit_ms: 5 }),
            Outcome::Failed(Failure::Infra { message: "the disk is full".to_owned() }),
            Outcome::Failed(Failure::Lost),
            Outcome::Failed(Failure::Setup { message: "no secret".to_owned() }),
            Outcome::Failed(Failure::Canceled { by: by() }),
            Outcome::Skipped(SkipReason::Condition { text: "a == `b`".to_owned() }),
            Outcome::Skipped(SkipReason::Need { because: "build".into() }),
            Outcome::Skipped(SkipReason::NotWanted { text: "not asked for".to_owned() }),
            Outcome::Skipped(SkipReason::Dropped),
            Outcome::Skipped(SkipReason::Rejected { by: by() }),
        ] {
            let (word, cause) = (OutcomeWord::from(&there), Cause::of(&there));
            assert_eq!(outcome(word, cause.as_ref(), &api::job::outputs_of(&there)), there);
        }
    }

    #[test]
    fn verdicts_come_back_as_they_went() {
        for there in [
            Verdict::Running,
            Verdict::Passed { note: None },
            Verdict::Passed { note: Some("nothing to do".to_owned()) },
            Verdict::Failed { because: Some("a/b".into()) },
            Verdict::Failed { because: None },
            Verdict::Canceled { by: "ada".to_owned() },
            Verdict::Diverged { job: "a".into() },
        ] {
            assert_eq!(verdict(VerdictWord::from(&there), &api::words::verdict(&there)), there);
        }
    }
}
