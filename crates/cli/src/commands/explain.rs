//! `ropewalk explain`: why a job was reused, or why it ran.

mod difference;

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use engine::fact::What;
use engine::operation::{Difference, Manifest, Work, differences, operation};
use engine::{Fact, ReusePolicy};
use graph::{BuildId, Carries, Digest, Graph, Job, JobName, NeedResult, Outcome, Reuse, Timestamp};
use serde::Serialize;
use serde_json::json;
use store::rows::{BuildRow, Eviction, JobRow, OperationRow, Replaced, ReusedFrom};
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
/// The same where every job of a build is explained.
const OPERATIONS_COMPARED_BRIEFLY: u32 = 20;
/// How many earlier builds are searched for an equal run whose result is not kept.
const BUILDS_SEARCHED_MAX: u32 = 10;
/// How many differences are told.
const DIFFERENCES_SHOWN_MAX: usize = 30;

/// Runs the command.
///
/// # Errors
/// If there is no such build or job, or what is kept cannot be read.
pub fn run(arguments: &Explain, project: &Project) -> Result<u8, Stop> {
    arguments.at.only_here("explain", "`ropewalk show BUILD JOB` says what a job there took")?;
    let places = Places::kept(project)?;
    output::print(explain(arguments, &places, &Calendar::system())?)?;
    Ok(exit::PASSED)
}

fn explain(arguments: &Explain, places: &Places, calendar: &Calendar) -> Result<String, Stop> {
    let build = places::find_build(&*places.store, &arguments.build)?;
    match &arguments.job {
        None => explain_all(arguments.output, places, build, calendar),
        Some(job) => {
            let name = places.job(build.build, job)?;
            let case = Case::open(places, build, OPERATIONS_COMPARED_MAX)?;
            let (why, build) = (case.why(&name)?, case.build.build);
            Ok(match arguments.output {
                ListForm::Json => format!("{:#}\n", json!({ "build": build, "job": name, "explanation": why })),
                ListForm::Human => format!("{name} in build {build}: {}", why.text(build, &name, calendar)),
            })
        }
    }
}

/// Every job of a build in the pipeline's order, one line each.
fn explain_all(form: ListForm, places: &Places, build: BuildRow, calendar: &Calendar) -> Result<String, Stop> {
    let case = Case::open(places, build, OPERATIONS_COMPARED_BRIEFLY)?;
    let build = case.build.build;
    let mut whys = Vec::new();
    for name in case.names() {
        whys.push((case.why(&name)?, name));
    }
    if form == ListForm::Json {
        let jobs: Vec<_> = whys.iter().map(|(why, name)| json!({ "job": name, "explanation": why })).collect();
        return Ok(format!("{:#}\n", json!({ "build": build, "jobs": jobs })));
    }
    if whys.is_empty() {
        return Ok(format!("build {build} {}: it has no jobs\n", words::verdict(&case.build.verdict)));
    }
    let lines =
        whys.iter().map(|(why, name)| format!("{name} in build {build}: {}\n", why.line(build, name, calendar)));
    Ok(lines.collect())
}

/// A build whose jobs are explained.
struct Case<'p> {
    places: &'p Places,
    build: BuildRow,
    /// In order of name.
    jobs: Vec<JobRow>,
    graph: Option<Arc<Graph>>,
    /// Read when they are first needed.
    facts: OnceCell<Vec<Fact>>,
    /// How many earlier results of a job are compared.
    compared_max: u32,
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
    NotReusable { cause: &'static str, hint: &'static str },
    /// The build reuses nothing.
    ToldToRun,
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
    ended: Ended,
    evicted: Option<Eviction>,
}

/// How an earlier run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Ended {
    /// Its result was kept for reuse.
    Passed,
    /// There was nothing to reuse.
    NotPassed,
}

/// What could be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Compared {
    /// All parts.
    Everything,
    /// All but files: which files a run saw is kept when it has ended.
    AllButFiles,
}

impl<'p> Case<'p> {
    fn open(places: &'p Places, build: BuildRow, compared_max: u32) -> Result<Self, Stop> {
        let (jobs, graph) = (places.jobs_of(build.build)?, places.graph_of(build.build)?);
        Ok(Self { places, build, jobs, graph, facts: OnceCell::new(), compared_max })
    }

    fn row(&self, name: &JobName) -> Option<&JobRow> {
        let place = self.jobs.binary_search_by(|row| row.name.cmp(name)).ok()?;
        self.jobs.get(place)
    }

    fn job(&self, name: &JobName) -> Option<&Arc<Job>> {
        self.graph.as_ref()?.jobs.get(name)
    }

    /// All jobs in the pipeline's order.
    fn names(&self) -> Vec<JobName> {
        let of_graph = self.graph.iter().flat_map(|graph| graph.jobs.keys());
        let mut names: Vec<JobName> = of_graph.chain(self.jobs.iter().map(|row| &row.name)).cloned().collect();
        names.sort_by_cached_key(|name| (self.job(name).map_or(u32::MAX, |job| job.order), name.clone()));
        names.dedup();
        names
    }

    fn facts(&self) -> Result<&[Fact], Stop> {
        if self.facts.get().is_none() {
            let _ = self.facts.set(self.places.store.facts(self.build.build)?);
        }
        Ok(self.facts.get().map_or(&[], Vec::as_slice))
    }

    fn why(&self, name: &JobName) -> Result<Why, Stop> {
        let row = self.row(name);
        if let Some((row, reused)) = row.and_then(|row| Some((row, row.reused.as_ref()?))) {
            return hit(&*self.places.store, &self.build, row, reused);
        }
        let job = self.job(name);
        match row.map(|row| (row.attempts, &row.outcome)) {
            Some((0, Some(outcome))) => return Ok(Why::NotRun { outcome: outcome.clone() }),
            _ if job.is_some_and(|job| job.reuse == Reuse::Never) => {
                return Ok(not_reusable(job));
            }
            _ => {}
        }
        match (row.and_then(|row| row.operation), job) {
            (Some(_), _) if self.is_told_to_run()? => Ok(Why::ToldToRun),
            (Some(operation), Some(job)) => self.miss(name, job, operation),
            _ => self.without_operation(name, row.map_or(0, |row| row.attempts)),
        }
    }

    fn is_told_to_run(&self) -> Result<bool, Stop> {
        Ok(self.facts()?.iter().any(|fact| match &fact.what {
            What::BuildCreated(request) => request.options.reuse == ReusePolicy::RunAll,
            _ => false,
        }))
    }

    fn without_operation(&self, name: &JobName, attempts: u32) -> Result<Why, Stop> {
        let reason = self.facts()?.iter().rev().find_map(|fact| match &fact.what {
            What::OperationUnknown { job, reason } if job == name => Some(reason.clone()),
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

    fn miss(&self, name: &JobName, job: &Job, digest: Digest) -> Result<Why, Stop> {
        let (store, build) = (&*self.places.store, &self.build);
        let recent = store.recent_operations(name.id(), self.compared_max)?;
        if let Some(equal) = recent.iter().map(|(row, _)| row).find(|row| row.digest == digest) {
            if let Some(eviction) = equal.evicted.clone() {
                return Ok(Why::Evicted { build: equal.build, eviction });
            }
            // This build has since recorded the result anew, or a later one.
            let replaced = equal.replaced.as_ref().filter(|replaced| {
                replaced.build < build.build && build.build <= equal.build && replaced.eviction.at <= build.created
            });
            if let Some(Replaced { build, eviction }) = replaced.cloned() {
                return Ok(Why::Evicted { build, eviction });
            }
            if equal.build < build.build && equal.outcome.word() == "passed" {
                return Ok(Why::NotTaken { build: equal.build, reason: not_taken(self.places, equal, build)? });
            }
        }
        if let Some(why) = equal_run_before(store, build.build, name, digest)? {
            return Ok(why);
        }
        let (manifest, compared) = match store.manifest(digest)? {
            Some(manifest) => (manifest, Compared::Everything),
            None => {
                (without_files(name, job, &needs(store, build.build, job, &self.jobs)?, build), Compared::AllButFiles)
            }
        };
        let earlier = recent.into_iter().filter(|(row, _)| row.build < build.build && row.digest != digest);
        let earlier = earlier.map(|(row, before)| {
            let OperationRow { build, job, at, evicted, .. } = row;
            (Nearest { build, job, at, ended: Ended::Passed, evicted }, before)
        });
        let mut earlier: Vec<(Nearest, Manifest)> = earlier.collect();
        if earlier.is_empty() {
            earlier = failed_before(store, build.build, name, digest)?;
        }
        // Another leg of a matrix is compared only if this one has no earlier run.
        if earlier.iter().any(|(run, _)| run.job == *name) {
            earlier.retain(|(run, _)| run.job == *name);
        }
        let nearest = earlier
            .into_iter()
            .map(|(run, before)| (told_differences(&before, &manifest, compared), run))
            .min_by_key(|(differences, run)| (differences.len(), Reverse(run.at)));
        Ok(match nearest {
            None => Why::First,
            Some((differences, nearest)) => Why::Miss { nearest, differences, compared },
        })
    }
}

/// Why a job runs each time, and what would change that.
fn not_reusable(job: Option<&Arc<Job>>) -> Why {
    let says_inputs = job.is_some_and(|job| job.sees.is_some());
    let cause = if says_inputs { "it declares its inputs" } else { "nothing says what its result depends on" };
    let hint = match job {
        Some(job) if job.gate.is_some() => "it has a gate: it is reused only if it says `reuse: true`",
        Some(job) if !job.secrets.is_empty() => "it has secrets: it is reused only if it says `reuse: true`",
        _ if says_inputs => "it says `reuse: false`: without that it would be reused",
        _ => {
            "declare `inputs: [globs]` (the files its result depends on; `[]` for none), or `reuse: true` (the whole tree)"
        }
    };
    Why::NotReusable { cause, hint }
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

/// The runs of the job in the builds before that did not pass, as far as it is known what they were made of.
fn failed_before(
    store: &dyn Store,
    build: BuildId,
    name: &JobName,
    digest: Digest,
) -> Result<Vec<(Nearest, Manifest)>, Stop> {
    let mut found = Vec::new();
    for earlier in store.builds(&BuildFilter::default(), Some(build), BUILDS_SEARCHED_MAX)? {
        let row = store.jobs(earlier.build)?.into_iter().find(|row| row.name == *name);
        let Some((row, operation)) = row.and_then(|row| row.operation.map(|operation| (row, operation))) else {
            continue;
        };
        if let (true, Some(at), Some(manifest)) = (operation != digest, row.finished, store.manifest(operation)?) {
            let (build, job) = (earlier.build, row.name);
            found.push((Nearest { build, job, at, ended: Ended::NotPassed, evicted: None }, manifest));
        }
    }
    Ok(found)
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

fn without_files(name: &JobName, job: &Job, needs: &BTreeMap<JobName, NeedResult>, build: &BuildRow) -> Manifest {
    let (event, build) = (&build.event, build.build);
    operation(&Work { name, job, files: &[], needs, event, build, project: "", quarantine: &[] }).1
}

fn told_differences(before: &Manifest, after: &Manifest, compared: Compared) -> Vec<Difference> {
    let mut found = differences(before, after);
    if compared == Compared::AllButFiles {
        found.retain(|difference| !difference.part.starts_with("file:"));
    }
    found
}

impl Why {
    /// The explanation in one line: what it begins with, and the first thing that differs.
    fn line(&self, build: BuildId, name: &JobName, calendar: &Calendar) -> String {
        let text = self.text(build, name, calendar);
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let detail = match self {
            Self::Miss { differences, .. } => differences.first().and_then(|first| {
                let more = differences.len() - 1;
                let more = if more > 0 { format!(", and {more} more") } else { String::new() };
                Some(format!("{}{more}", difference::lines(first).first()?.trim_end_matches(':')))
            }),
            Self::NotReusable { .. } => None,
            _ => lines.next().map(|line| line.trim().to_owned()),
        };
        detail.map_or_else(|| first.to_owned(), |detail| format!("{first}: {detail}"))
    }

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
            Self::NotReusable { cause, hint } => format!("runs every time\n  {cause}\n  {hint}\n"),
            Self::ToldToRun => "ran\n  the build was told to run everything (`--no-reuse`)\n".to_owned(),
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
                    "ran, although an equal run passed in build {build}\n  \
                     its files were cleared since, or the tree had changed since this build began\n"
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
                let text = miss_text(nearest, differences, *compared);
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

fn miss_text(nearest: &Nearest, differences: &[Difference], compared: Compared) -> String {
    let since = match (nearest.ended, &nearest.evicted) {
        (Ended::NotPassed, _) => ", which did not pass",
        (Ended::Passed, Some(_)) => ", evicted since",
        (Ended::Passed, None) => "",
    };
    let count = words::count(differences.len(), "part");
    match (differences.len(), compared) {
        (0, Compared::AllButFiles) => format!("ran, because files that it depends on changed{since}\n"),
        (1, _) => format!("ran, because {count} differs from its nearest earlier run{since}\n"),
        _ => format!("ran, because {count} differ from its nearest earlier run{since}\n"),
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
        text.push_str("  which files differ is not known: the files of a run are kept when it has ended\n");
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
        let arguments = Explain {
            job: Some("test".to_owned()),
            build: "last".to_owned(),
            output: ListForm::Human,
            at: Default::default(),
        };
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
             which files differ is not known: the files of a run are kept when it has ended\n",
        );
    }

    /// A build in which `test` failed, made of one script and some files.
    fn failed(kept: &mut Kept, run: &str, files: &[(&str, &str)]) {
        let mut build = kept.build_of(vec![("test", reusable(run))]);
        let operation = build.operation("test", files);
        build.fail("test", 1).tried(&operation).end();
    }

    #[test]
    fn a_failed_run_is_compared_file_by_file() {
        let mut kept = Kept::new();
        passed(&mut kept, "make", &[("a", "1"), ("b", "1")]);
        failed(&mut kept, "make", &[("a", "2"), ("b", "2"), ("c", "1")]);
        failed(&mut kept, "make", &[("a", "2"), ("b", "1")]);
        let short = |text: &str| store::blob::digest(text.as_bytes()).short();
        check(
            &kept,
            &format!(
                "test in build 3: ran, because 1 part differs from its nearest earlier run\n  \
                 compared with build 1, 2026-11-21 04:00:01, 8 min ago\n  file a changed ({} → {})\n",
                short("1"),
                short("2")
            ),
        );
    }

    #[test]
    fn what_never_passed_is_compared_with_what_failed() {
        let mut kept = Kept::new();
        failed(&mut kept, "make", &[("a", "1")]);
        failed(&mut kept, "make", &[("a", "1"), ("b", "1")]);
        check(
            &kept,
            "test in build 2: ran, because 1 part differs from its nearest earlier run, which did not pass\n  \
             compared with build 1, 2026-11-21 04:00:01, 7 min ago\n  file b is new\n",
        );
    }

    #[test]
    fn an_eviction_is_remembered_when_the_job_has_passed_again() {
        let mut kept = Kept::new();
        passed(&mut kept, "make", &[]);
        kept.store().evict_job(&"test".into(), "`ropewalk cache clear --job test`", Timestamp(0)).expect("evicted");
        passed(&mut kept, "make", &[]);
        check(
            &kept,
            "test in build 2: ran, because its result was evicted\n  an equal run passed in build 1; evicted 1970-01-01 \
             00:00:00, 20778 d ago, by `ropewalk cache clear --job test`\n",
        );
    }

    #[test]
    fn all_jobs_of_a_build_are_explained_in_a_line_each() {
        let mut kept = Kept::new();
        passed(&mut kept, "make", &[("a", "1")]);
        let jobs =
            ["test", "docs", "plain"].map(|name| (name, if name == "plain" { job("x") } else { reusable("make") }));
        let mut build = kept.build_of(jobs.to_vec());
        let test = build.operation("test", &[("a", "1"), ("b", "1"), ("c", "1")]);
        build.operation("docs", &[("d", "1")]);
        build.pass("test", 1).keep("test", &test, 1).pass("docs", 1).pass("plain", 1).end();
        let arguments =
            Explain { job: None, build: "last".to_owned(), output: ListForm::Human, at: Default::default() };
        let text = explain(&arguments, &kept.places(), &kept.calendar()).map_err(|stop| stop.message);
        assert_eq!(
            text.as_deref(),
            Ok("\
test in build 2: ran, because 2 parts differ from its nearest earlier run: file b is new, and 1 more
docs in build 2: ran, because it never passed before: no result of docs is kept from before build 2
plain in build 2: runs every time
")
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
        let never = Job { sees: Some(vec!["src/**".to_owned()]), ..job("make") };
        kept.build_of(vec![("test", never)]).pass("test", 1).end();
        check(
            &kept,
            "test in build 3: runs every time\n  it declares its inputs\n  it says `reuse: false`: without that it would be \
             reused\n",
        );
        let outcome = Outcome::Skipped(graph::SkipReason::Need { because: "lib".into() });
        let how = engine::Ended::Decided;
        kept.build(&["lib", "test"]).fail("lib", 1).fact(What::JobEnded { job: "test".into(), outcome, how }).end();
        check(&kept, "test in build 4: did not run\n  skipped: `lib` did not end as needed\n");
        passed(&mut kept, "make", &[]);
        check(
            &kept,
            "test in build 5: ran, because it never passed before\n  no result of test is kept from before build 5\n",
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
             which files differ is not known: the files of a run are kept when it has ended\n",
        );
    }
}
