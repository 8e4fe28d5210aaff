//! Logs that are nowhere: of builds that have ended and whose reports name lines. Nothing here reads a log.
//!
//! What removes a log removes its build with it, so that one whose build is there is lost.

use std::collections::BTreeSet;
use std::path::Path;

use engine::What;
use graph::{AttemptNumber, BuildId, Failure, Outcome};
use store::log::pack_path;
use store::rows::BuildRow;
use store::{BuildFilter, PAGE_ROWS_MAX, StoreError};

use crate::parts::Database;
use crate::records::{Document, StoredLog};

/// The most builds that are named.
const NAMED_MAX: usize = 5;

/// The builds among the newest `builds_max` that have lost their log, the newest first; `logs` is the folder of the packs.
///
/// # Errors
/// As the store refuses.
pub fn lost_logs(database: &dyn Database, logs: &Path, builds_max: u64) -> Result<Vec<BuildId>, StoreError> {
    let (mut lost, mut before, mut left) = (Vec::new(), None, builds_max);
    while left > 0 {
        let most = u32::try_from(left).unwrap_or(u32::MAX).min(PAGE_ROWS_MAX);
        let rows = database.builds(&BuildFilter::default(), before, most)?;
        let Some(last) = rows.last() else { break };
        (before, left) = (Some(last.build), left.saturating_sub(rows.len() as u64));
        for row in &rows {
            if is_lost(database, logs, row)? {
                lost.push(row.build);
            }
        }
    }
    Ok(lost)
}

/// The first of so many builds by their numbers, for people.
pub fn numbers(first: &[BuildId], count: u64) -> String {
    let named: Vec<String> = first.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let more = count.saturating_sub(named.len() as u64);
    let word = if count == 1 { "build" } else { "builds" };
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{word} {}{rest}", named.join(", "))
}

fn is_lost(database: &dyn Database, logs: &Path, row: &BuildRow) -> Result<bool, StoreError> {
    let build = row.build;
    let has_ended = |row: &BuildRow| row.finished.is_some();
    if !has_ended(row) || is_there(database, logs, build)? || !has_printed(database, build)? {
        return Ok(false);
    }
    // A server may have moved it meanwhile, taken the build up again, or removed it.
    let is_still = database.build(build)?.as_ref().is_some_and(has_ended);
    Ok(is_still && !is_there(database, logs, build)?)
}

/// Whether there is anything of a log: here, in a blob, or where servers share those of running builds.
fn is_there(database: &dyn Database, logs: &Path, build: BuildId) -> Result<bool, StoreError> {
    // In this order: what moves into a blob is recorded before the pack goes.
    Ok(pack_path(logs, build).exists()
        || database.record(StoredLog::KIND, &build.to_string())?.is_some()
        || !database.log_chunks(build, 0, 1)?.is_empty())
}

/// Whether an attempt says that it printed something. Not one that was lost with its worker, nor one whose log is another build's.
fn has_printed(database: &dyn Database, build: BuildId) -> Result<bool, StoreError> {
    let reports = database.reports(build, None)?.into_iter().filter(|(_, report)| {
        !matches!(report.outcome, Outcome::Failed(Failure::Lost)) && report.steps.iter().any(|step| step.lines > 0)
    });
    let printed: BTreeSet<AttemptNumber> = reports.map(|(attempt, _)| attempt).collect();
    if printed.is_empty() {
        return Ok(false);
    }
    let facts = database.facts(build)?;
    let adopted = facts.iter().filter_map(|fact| match &fact.what {
        What::AttemptAdopted { attempt, .. } => Some(*attempt),
        _ => None,
    });
    let adopted: BTreeSet<AttemptNumber> = adopted.collect();
    Ok(!printed.is_subset(&adopted))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use engine::fact::Adopted;
    use engine::{BuildRequest, Fact};
    use graph::{AttemptReport, Event, EventKind, LeaseId, StepReport, StepResult, Timestamp, Verdict, WorkerId};
    use store::log::{Batch, StepEnd, Stream, StreamKey};

    use super::*;
    use crate::backup;
    use crate::doctor::{Depth, Serving, examine};
    use crate::parts::{Places, open_database, open_storage};
    use crate::records::Records;
    use crate::settings::{Durability, Settings};

    const AT: Timestamp = Timestamp(1_800_000_000_000_000);

    fn settings() -> Settings {
        // Any free port, and nobody pulls the plug of a test.
        let listen = "127.0.0.1:0".parse().expect("an address");
        Settings {
            listen,
            store_durability: Durability::Process,
            logs_durability: Durability::Process,
            ..Settings::default()
        }
    }

    fn begun() -> What {
        let (job, worker) = ("a".into(), WorkerId("w".into()));
        let (attempt, lease) = (AttemptNumber(1), LeaseId(1));
        What::AttemptLeased { job, attempt, try_number: 1, lease, worker, partial: None, waited_for: None }
    }

    fn adopted() -> What {
        let (job, worker) = ("a".into(), WorkerId("w".into()));
        let (attempt, lease) = (AttemptNumber(1), LeaseId(1));
        let from = Adopted { build: BuildId(1), attempt, job: "a".into() };
        What::AttemptAdopted { job, attempt, try_number: 1, lease, worker, from, handed: 1 }
    }

    fn ended(outcome: Outcome, lines: u64) -> What {
        let mut report = AttemptReport::of(outcome, AT);
        report.steps.push(StepReport {
            name: "say".to_owned(),
            exit: Some(0),
            signal: None,
            result: StepResult::Passed,
            started: AT,
            finished: AT,
            usage: graph::Usage::default(),
            outputs: std::collections::BTreeMap::new(),
            lines,
        });
        let (attempt, lease) = (AttemptNumber(1), LeaseId(1));
        What::AttemptFinished { job: "a".into(), attempt, lease, report: Box::new(report), retry_at: None }
    }

    /// A build with a log of one line, and these facts.
    fn add(data: &Path, facts: Vec<What>) -> BuildId {
        let storage = open_storage(&settings(), data).expect("it opens");
        let build = storage.store.reserve_build().expect("a number");
        let mut batch = Batch::new(build, StreamKey { attempt: 1, step: 0 }, 0);
        assert!(batch.push(Stream::Stdout, 7, b"said\n").is_empty());
        batch.end = Some(StepEnd::Closed);
        assert_eq!(storage.logs.append(&[batch])[0].next_byte, 5);
        let request = BuildRequest::new(Event::new(EventKind::Manual), "pipeline.yaml");
        let mut all = vec![What::BuildCreated(Box::new(request))];
        all.extend(facts);
        let facts: Vec<Fact> = all.into_iter().map(|what| Fact { build, at: AT, what }).collect();
        storage.store.append(&facts).expect("they are kept");
        build
    }

    fn found(data: &Path, depth: Depth) -> Vec<String> {
        let checks = examine(&settings(), data, Serving::Maybe, depth, AT);
        let findings = checks.iter().filter(|check| check.name == "logs").flat_map(|check| &check.findings);
        findings.map(|finding| format!("{}: {}", finding.what, finding.why)).collect()
    }

    #[test]
    fn a_log_that_is_nowhere_is_missed_if_a_report_names_lines_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (data, copies) = (folder.path().join("data"), folder.path().join("copies"));
        fs::create_dir(&data).expect("a folder");
        for key in backup::KEYS {
            fs::write(data.join(key), "0f".repeat(32)).expect("a key");
            fs::set_permissions(data.join(key), PermissionsExt::from_mode(0o600)).expect("it is made private");
        }
        let end = || What::BuildEnded { verdict: Verdict::Passed { note: None } };
        let lost = add(&data, vec![begun(), ended(Outcome::passed(), 1), end()]);
        let silent = add(&data, vec![begun(), ended(Outcome::passed(), 0), end()]);
        let with_its_worker = add(&data, vec![begun(), ended(Outcome::Failed(Failure::Lost), 1), end()]);
        let of_another = add(&data, vec![adopted(), ended(Outcome::passed(), 1), end()]);
        let runs = add(&data, vec![begun(), ended(Outcome::passed(), 1)]);
        let in_blob = add(&data, vec![begun(), ended(Outcome::passed(), 1), end()]);
        let storage = open_storage(&settings(), &data).expect("it opens");
        let digest = storage.blobs.put(b"a log").expect("it is kept");
        Records::new(storage.store).write(&in_blob.to_string(), &StoredLog { digest }, AT).expect("it is kept");
        assert_eq!(found(&data, Depth::All), Vec::<String>::new());
        let made = backup::make(&settings(), &data, None, &copies.join("whole"), AT).expect("it is made");
        assert_eq!((made.logs_missing, made.logs_missing_of), (0, Vec::new()));

        for build in [lost, silent, with_its_worker, of_another, runs, in_blob] {
            fs::remove_file(pack_path(&Places::of(&data).logs(), build)).expect("it was there");
        }
        let expected =
            "logs of 1 builds are gone: build 1: jobs of theirs printed lines, and no log of them is anywhere";
        for depth in [Depth::Sample, Depth::All] {
            assert_eq!(found(&data, depth), [expected]);
        }
        let database = open_database(&settings(), &data).expect("it opens");
        let newest = lost_logs(&*database, &Places::of(&data).logs(), 5).expect("the records answer");
        assert_eq!(newest, [], "the one is older");
        let made = backup::make(&settings(), &data, None, &copies.join("torn"), AT).expect("it is made");
        assert_eq!((made.logs_missing, made.logs_missing_of), (1, vec![lost]));
        let verified = backup::verify(&copies.join("torn")).expect("it is looked through");
        let fault = "logs of 1 builds were gone on the server already when the backup was made: build 1";
        assert_eq!(verified.faults, [fault]);
    }
}
