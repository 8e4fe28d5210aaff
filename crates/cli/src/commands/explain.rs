//! `ropewalk explain`: why a job was reused, or why it ran.

mod difference;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use engine::fact::What;
use engine::operation::{Difference, Manifest, differences, operation};
use graph::{BuildId, Carries, Digest, Job, JobName, NeedResult, Outcome, Reuse, Timestamp};
use serde::Serialize;
use serde_json::json;
use store::rows::{BuildRow, Eviction, JobRow, OperationRow, ReusedFrom};
use store::{BuildFilter, Store};

pub use self::difference::parts_text;
use super::Stop;
use crate::args::{Explain, ListForm};
use crate::calendar::Calendar;
use crate::places::{self, Places};
use crate::project::Project;
use crate::{exit, output, words};

/// How many earlier results of a job are compared.
const OPERATIONS_COMPARED_MAX: u32 = 200;
/// How many earlier builds are searched for an equal run whose result is not kept.
const BUILDS_SEARCHED_MAX: u32 = 10;
/// How many differences are told.
const DIFFERENCES_SHOWN_MAX: usize = 30;

/// Runs the command.
///
/// # Errors
/// If there is no such build or job, or what is kept cannot be read.
pub fn run(arguments: &Explain, project: &Project) -> Result<u8, Stop> {
    let places = Places::kept(project)?;
    output::print(explain(arguments, &places, &Calendar::system())?)?;
    Ok(exit::PASSED)
}

fn explain(arguments: &Explain, places: &Places, calendar: &Calendar) -> Result<String, Stop> {
    let build = places::find_build(&*places.store, &arguments.build)?;
    let name = places.job(build.build, &arguments.job)?;
    let why = why(places, &build, &name)?;
    Ok(match arguments.output {
        ListForm::Json => format!("{:#}\n", json!({ "build": build.build, "job": name, "explanation": why })),
        ListForm::Human => format!("{name} in build {}: {}", build.build, why.text(build.build, &name, calendar)),
    })
}

/// Why a job was reused or not.
#[derive(Debug, Serialize)]
#[serde(tag = "why", rename_all = "snake_case")]
enum Why {
    /// It took an earlier result.
    Hit { from: ReusedFrom, at: Option<Timestamp>, operation: Digest, parts: Option<String> },
    /// It took the result of an equal job of the same build.
    Shared { with: JobName },
    /// The build was told to take it from an earlier one.
    Given { from: ReusedFrom },
    /// It runs each time.
    NotReusable { hint: &'static str },
    /// It may be reused, but what it depends on could not be worked out.
    NoOperation { reason: String },
    /// It neither ran nor was reused.
    NotRun { outcome: Outcome },
    /// Its turn has not come.
    NotYet,
    /// An equal run was kept, but no longer.
    Evicted { build: BuildId, eviction: Eviction },
    /// An equal run passed, and its result is not kept any more.
    Gone { build: BuildId },
    /// An equal run failed; failures are not reused.
    FailedBefore { build: BuildId, outcome: Outcome },
    /// An equal result was kept, and not taken.
    NotTaken { build: BuildId, reason: &'static str },
    /// No earlier result of it was ever kept.
    First,
    /// Something it depends on differs.
    Miss { nearest: Nearest, differences: Vec<Difference>, compared: Compared },
}

/// The earlier run that differs least.
#[derive(Debug, Serialize)]
struct Nearest {
    build: BuildId,
    job: JobName,
    at: Timestamp,
    evicted: Option<Eviction>,
}

/// What could be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Compared {
    /// All parts.
    Everything,
    /// All but files: which files a run saw is kept once it has passed.
    AllButFiles,
}

fn why(places: &Places, build: &BuildRow, name: &JobName) -> Result<Why, Stop> {
    let store = &*places.store;
    let jobs = store.jobs(build.build)?;
    let row = jobs.iter().find(|row| row.name == *name);
    if let Some((row, reused)) = row.and_then(|row| Some((row, row.reused.as_ref()?))) {
        return hit(store, build, row, reused);
    }
    let graph = store.graph(build.build)?;
    let job = graph.as_ref().and_then(|graph| graph.jobs.get(name));
    match row.map(|row| (row.attempts, &row.outcome)) {
        Some((0, Some(outcome))) => return Ok(Why::NotRun { outcome: outcome.clone() }),
        _ if job.is_some_and(|job| job.reuse == Reuse::Never) => {
            return Ok(Why::NotReusable { hint: hint(job) });
        }
        _ => {}
    }
    match (row.and_then(|row| row.operation), job) {
        (Some(operation), Some(job)) => miss(places, build, name, job, operation, &jobs),
        _ => without_operation(store, build, name, row.map_or(0, |row| row.attempts)),
    }
}

fn hint(job: Option<&Arc<Job>>) -> &'static str {
    match job {
        Some(job) if job.gate.is_some() => "it has a gate: it is reused only if it says `reuse: true`",
        Some(job) if !job.secrets.is_empty() => "it has secrets: it is reused only if it says `reuse: true`",
        _ => {
            "declare `inputs: [globs]` (the files its result depends on; `[]` for none), or `reuse: true` (the whole tree)"
        }
    }
}

fn hit(store: &dyn Store, build: &BuildRow, row: &JobRow, reused: &ReusedFrom) -> Result<Why, Stop> {
    if reused.build == build.build {
        return Ok(Why::Shared { with: reused.job.clone() });
    }
    let Some(operation) = row.operation else { return Ok(Why::Given { from: reused.clone() }) };
    let kept = store.operation(operation, build.event.trust)?.filter(|kept| kept.build == reused.build);
    let parts = store.manifest(operation)?.as_ref().map(parts_text);
    Ok(Why::Hit { from: reused.clone(), at: kept.map(|kept| kept.at), operation, parts })
}

fn without_operation(store: &dyn Store, build: &BuildRow, name: &JobName, attempts: u32) -> Result<Why, Stop> {
    let reason = store.facts(build.build)?.into_iter().rev().find_map(|fact| match fact.what {
        What::OperationUnknown { job, reason } if job == *name => Some(reason),
        _ => None,
    });
    Ok(match reason {
        Some(reason) => Why::NoOperation { reason },
        None if attempts > 0 => {
            Why::NoOperation { reason: "it was run without looking for an earlier result".to_owned() }
        }
        None => Why::NotYet,
    })
}

fn miss(
    places: &Places,
    build: &BuildRow,
    name: &JobName,
    job: &Job,
    digest: Digest,
    jobs: &[JobRow],
) -> Result<Why, Stop> {
    let store = &*places.store;
    let recent = store.recent_operations(name.id(), OPERATIONS_COMPARED_MAX)?;
    let equal = recent.iter().map(|(row, _)| row).find(|row| row.digest == digest);
    if let Some((equal, eviction)) = equal.and_then(|equal| Some((equal, equal.evicted.clone()?))) {
        return Ok(Why::Evicted { build: equal.build, eviction });
    }
    if let Some(equal) = equal.filter(|equal| equal.build < build.build && equal.outcome.word() == "passed") {
        return Ok(Why::NotTaken { build: equal.build, reason: not_taken(places, equal, build)? });
    }
    if let Some(why) = equal_run_before(store, build.build, name, digest)? {
        return Ok(why);
    }
    let earlier = recent.iter().filter(|(row, _)| row.build < build.build && row.digest != digest);
    // Another leg of a matrix is compared only if this one has no earlier run.
    let own: Vec<_> = earlier.clone().filter(|(row, _)| row.job == *name).collect();
    let earlier = if own.is_empty() { earlier.collect() } else { own };
    let (manifest, compared) = match store.manifest(digest)? {
        Some(manifest) => (manifest, Compared::Everything),
        None => (without_files(job, &needs(store, build.build, job, jobs)?, build), Compared::AllButFiles),
    };
    let nearest = earlier
        .into_iter()
        .map(|(row, before)| (row, told_differences(before, &manifest, compared)))
        .min_by_key(|(row, differences)| (differences.len(), Reverse(row.at)));
    Ok(match nearest {
        None => Why::First,
        Some((row, differences)) => {
            let nearest = Nearest { build: row.build, job: row.job.clone(), at: row.at, evicted: row.evicted.clone() };
            Why::Miss { nearest, differences, compared }
        }
    })
}

fn not_taken(places: &Places, equal: &OperationRow, build: &BuildRow) -> Result<&'static str, Stop> {
    if build.event.trust == graph::Trust::Trusted && equal.trust == graph::Trust::Untrusted {
        return Ok("it came from a build that is not trusted");
    }
    for artifact in equal.artifacts.values() {
        if !places.blobs.contains(artifact.digest).map_err(|error| Stop::of(&error))? {
            return Ok("files of its artifacts are gone");
        }
    }
    Ok("the build was told to run everything (`--no-reuse`)")
}

/// An equal run in one of the builds before, whose result is not kept.
fn equal_run_before(store: &dyn Store, build: BuildId, name: &JobName, digest: Digest) -> Result<Option<Why>, Stop> {
    for earlier in store.builds(&BuildFilter::default(), Some(build), BUILDS_SEARCHED_MAX)? {
        let row = store.jobs(earlier.build)?.into_iter().find(|row| row.name == *name && row.operation == Some(digest));
        let build = earlier.build;
        match row.and_then(|row| row.outcome) {
            Some(Outcome::Passed { .. }) => return Ok(Some(Why::Gone { build })),
            Some(outcome @ Outcome::Failed(_)) => return Ok(Some(Why::FailedBefore { build, outcome })),
            Some(Outcome::Skipped(_)) | None => {}
        }
    }
    Ok(None)
}

/// What came along the edges of a job.
fn needs(store: &dyn Store, build: BuildId, job: &Job, jobs: &[JobRow]) -> Result<BTreeMap<JobName, NeedResult>, Stop> {
    let artifacts = store.artifacts(build)?;
    let graph = store.graph(build)?.unwrap_or_default();
    let carried = job.needs.iter().filter(|need| need.carries != Carries::Order);
    let mut needs: BTreeMap<JobName, NeedResult> = carried
        .filter_map(|need| {
            let outcome = jobs.iter().find(|row| row.name == need.job)?.outcome.as_ref()?;
            let outputs = match outcome {
                Outcome::Passed { outputs } => outputs.clone(),
                _ => BTreeMap::new(),
            };
            let own = artifacts.iter().filter(|row| row.job == need.job && need.carries == Carries::Artifacts);
            let artifacts = own.map(|row| (row.name.clone(), row.artifact.clone())).collect();
            let result = outcome.word().to_owned();
            Some((need.job.clone(), NeedResult { result, outputs, artifacts }))
        })
        .collect();
    graph::legs::join(&mut needs, |name| graph.jobs.get(name).map_or(u32::MAX, |job| job.order));
    Ok(needs)
}

fn without_files(job: &Job, needs: &BTreeMap<JobName, NeedResult>, build: &BuildRow) -> Manifest {
    operation(job, &[], needs, &build.event, build.build).1
}

fn told_differences(before: &Manifest, after: &Manifest, compared: Compared) -> Vec<Difference> {
    let mut found = differences(before, after);
    if compared == Compared::AllButFiles {
        found.retain(|difference| !difference.part.starts_with("file:"));
    }
    found
}

impl Why {
    /// The explanation, which goes on after `JOB in build N: `.
    fn text(&self, build: BuildId, name: &JobName, calendar: &Calendar) -> String {
        let when = |at: Timestamp| format!("{}, {}", calendar.time(at), calendar.age(at));
        match self {
            Self::Hit { from, at, operation, parts } => {
                let at = at.map(|at| format!(", {}", when(at))).unwrap_or_default();
                let job = if from.job == *name { String::new() } else { format!(" as {}", from.job) };
                let parts = parts.as_ref().map(|parts| format!(": {parts}")).unwrap_or_default();
                format!(
                    "cached\n  an equal run passed in build {}{job}{at}\n  operation {}{parts}\n",
                    from.build,
                    operation.short()
                )
            }
            Self::Shared { with } => {
                format!("shared\n  it is equal to {with} of the same build, which ran once for both\n")
            }
            Self::Given { from } => {
                format!("taken over\n  it passed in build {}, which this build tries again\n", from.build)
            }
            Self::NotReusable { hint } => {
                format!("runs every time\n  nothing says what its result depends on\n  {hint}\n")
            }
            Self::NoOperation { reason } => {
                format!("ran without reuse\n  {}\n", crate::columns::bare(reason))
            }
            Self::NotRun { outcome } => format!("did not run\n  {}\n", crate::columns::bare(&words::outcome(outcome))),
            Self::NotYet => "has not begun\n  what it depends on is worked out when its needs have ended\n".to_owned(),
            Self::Evicted { build, eviction } => format!(
                "ran, because its result was evicted\n  an equal run passed in build {build}; evicted {}, by {}\n",
                when(eviction.at),
                crate::columns::bare(&eviction.reason)
            ),
            Self::Gone { build } => {
                format!(
                    "ran, because its result was evicted\n  an equal run passed in build {build}; its result was cleared since\n"
                )
            }
            Self::FailedBefore { build, outcome } => format!(
                "ran, because an equal run did not pass\n  in build {build} it {}; failures are not reused\n",
                crate::columns::bare(&words::outcome(outcome))
            ),
            Self::NotTaken { build, reason } => {
                format!("ran, though an equal run passed in build {build}\n  {reason}\n")
            }
            Self::First => format!(
                "ran, because it never passed before\n  no result of {} is kept from before build {build}\n",
                name.id()
            ),
            Self::Miss { nearest, differences, compared } => {
                let text = miss_text(nearest, differences, *compared, name);
                format!(
                    "{text}  compared with build {}{}, {}\n{}",
                    nearest.build,
                    leg(nearest, name),
                    when(nearest.at),
                    told(differences, *compared)
                )
            }
        }
    }
}

fn leg(nearest: &Nearest, name: &JobName) -> String {
    if nearest.job == *name { String::new() } else { format!(", {}", nearest.job) }
}

fn miss_text(nearest: &Nearest, differences: &[Difference], compared: Compared, _name: &JobName) -> String {
    let evicted = nearest.evicted.as_ref().map(|_| ", evicted since").unwrap_or_default();
    let count = words::count(differences.len(), "part");
    match (differences.len(), compared) {
        (0, Compared::AllButFiles) => format!("ran, because files that it depends on changed{evicted}\n"),
        (1, _) => format!("ran, because {count} differs from its nearest earlier run{evicted}\n"),
        _ => format!("ran, because {count} differ from its nearest earlier run{evicted}\n"),
    }
}

fn told(differences: &[Difference], compared: Compared) -> String {
    let mut text = String::new();
    for difference in differences.iter().take(DIFFERENCES_SHOWN_MAX) {
        for line in difference::lines(difference) {
            text.push_str(&format!("  {line}\n"));
        }
    }
    if differences.len() > DIFFERENCES_SHOWN_MAX {
        let hidden = words::count(differences.len() - DIFFERENCES_SHOWN_MAX, "more difference");
        text.push_str(&format!("  … {hidden}: --output json\n"));
    }
    if compared == Compared::AllButFiles {
        text.push_str("  which files differ is not known: the files of a run are kept once it has passed\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use graph::{Job, Reuse};

    use super::*;
    use crate::places::kept::{Kept, job};

    fn reusable(run: &str) -> Job {
        Job { reuse: Reuse::Tree, ..job(run) }
    }

    /// A build in which `test` passed, made of one script and some files.
    fn passed(kept: &mut Kept, run: &str, files: &[(&str, &str)]) {
        let mut build = kept.build_of(vec![("test", reusable(run))]);
        let operation = build.operation("test", files);
        build.pass("test", 1000).keep("test", &operation, 1).end();
    }

    #[track_caller]
    fn check(kept: &Kept, expected: &str) {
        let arguments = Explain { job: "test".to_owned(), build: "last".to_owned(), output: ListForm::Human };
        let text = explain(&arguments, &kept.places(), &kept.calendar()).map_err(|stop| stop.message);
        assert_eq!(text.as_deref(), Ok(expected));
    }

    #[test]
    fn a_hit_names_the_build() {
        let mut kept = Kept::new();
        passed(&mut kept, "make", &[("a", "1"), ("b", "1")]);
        let mut build = kept.build_of(vec![("test", reusable("make"))]);
        let (digest, _) = build.operation("test", &[("a", "1"), ("b", "1")]);
        build.reuse("test", 1, 1).end();
        let expected = format!(
            "test in build 2: cached\n  an equal run passed in build 1, 2026-11-21 04:00:01, 7 min ago\n  \
             operation {}: 2 files, 1 step\n",
            digest.short()
        );
        check(&kept, &expected);
    }

    #[test]
    fn a_miss_names_what_differs_from_the_nearest_run() {
        let mut kept = Kept::new();
        passed(&mut kept, "make far", &[("a", "0"), ("b", "0"), ("c", "0")]);
        passed(&mut kept, "make", &[("a", "1"), ("b", "1")]);
        passed(&mut kept, "make\nmake test", &[("a", "2"), ("b", "1")]);
        let short = |text: &str| store::blob::digest(text.as_bytes()).short();
        let expected = format!(
            "test in build 3: ran, because 2 parts differ from its nearest earlier run\n  \
             compared with build 2, 2026-11-21 04:01:02, 7 min ago\n  \
             file a changed ({} → {})\n  step 1, its command:\n    + make test\n",
            short("1"),
            short("2")
        );
        check(&kept, &expected);
    }

    #[test]
    fn a_failed_run_is_compared_but_for_its_files() {
        let mut kept = Kept::new();
        passed(&mut kept, "make", &[("a", "1")]);
        let mut build = kept.build_of(vec![("test", reusable("make x"))]);
        build.operation("test", &[("a", "2")]);
        build.fail("test", 1).end();
        check(
            &kept,
            "test in build 2: ran, because 1 part differs from its nearest earlier run\n  \
             compared with build 1, 2026-11-21 04:00:01, 7 min ago\n  step 1, its command:\n    - make\n    + make x\n  \
             which files differ is not known: the files of a run are kept once it has passed\n",
        );
    }

    #[test]
    fn an_equal_run_that_failed_or_was_cleared_is_told() {
        let mut kept = Kept::new();
        for _ in 0..2 {
            let mut build = kept.build_of(vec![("test", reusable("make"))]);
            build.operation("test", &[("a", "1")]);
            build.fail("test", 1).end();
        }
        check(
            &kept,
            "test in build 2: ran, because an equal run did not pass\n  \
             in build 1 it failed: a step ended with code 1; failures are not reused\n",
        );
        let mut kept = Kept::new();
        passed(&mut kept, "make", &[]);
        kept.store().clear_operations("`ropewalk cache clear`", kept.calendar().now).expect("cleared");
        let mut build = kept.build_of(vec![("test", reusable("make"))]);
        build.operation("test", &[]);
        build.lease("test");
        check(
            &kept,
            "test in build 2: ran, because its result was evicted\n  \
             an equal run passed in build 1; evicted 2026-11-21 04:06:01, just now, by `ropewalk cache clear`\n",
        );
    }

    #[test]
    fn what_is_not_reusable_or_did_not_run_is_told() {
        let mut kept = Kept::new();
        kept.build(&["test"]).pass("test", 1).end();
        check(
            &kept,
            "test in build 1: runs every time\n  nothing says what its result depends on\n  declare `inputs: [globs]` \
             (the files its result depends on; `[]` for none), or `reuse: true` (the whole tree)\n",
        );
        let secret = Job { secrets: ["TOKEN".to_owned()].into(), ..job("make") };
        kept.build_of(vec![("test", secret)]).pass("test", 1).end();
        check(
            &kept,
            "test in build 2: runs every time\n  nothing says what its result depends on\n  \
             it has secrets: it is reused only if it says `reuse: true`\n",
        );
        let outcome = Outcome::Skipped(graph::SkipReason::Need { because: "lib".into() });
        let how = engine::Ended::Decided;
        kept.build(&["lib", "test"]).fail("lib", 1).fact(What::JobEnded { job: "test".into(), outcome, how }).end();
        check(&kept, "test in build 3: did not run\n  skipped: `lib` did not end as needed\n");
        passed(&mut kept, "make", &[]);
        check(
            &kept,
            "test in build 4: ran, because it never passed before\n  no result of test is kept from before build 4\n",
        );
    }

    #[test]
    fn results_of_other_jobs_are_parts_too() {
        let mut kept = Kept::new();
        passed(&mut kept, "make", &[]);
        let needing = Job { needs: vec![graph::Need::success("plan")], ..reusable("make") };
        let mut build = kept.build_of(vec![("plan", job("plan")), ("test", needing)]);
        let outputs = BTreeMap::from([("version".to_owned(), json!("2"))]);
        build.attempt("plan", 10, |report| report.outcome = Outcome::Passed { outputs });
        build.operation("test", &[("never kept", "1")]);
        build.fail("test", 1).end();
        check(
            &kept,
            "test in build 2: ran, because 1 part differs from its nearest earlier run\n  \
             compared with build 1, 2026-11-21 04:00:01, 7 min ago\n  output version of plan is new: \"2\"\n  \
             which files differ is not known: the files of a run are kept once it has passed\n",
        );
    }
}
