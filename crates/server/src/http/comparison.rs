//! Two builds side by side.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;

use api::comparison::{Comparison, DIFFERENCES_MAX, JobDifference, JobSide, TestDifference, TestSide};
use api::job::{Cause, JobState};
use api::problem::{Problem, ProblemKind};
use graph::asked::replaces;
use graph::{BuildId, JobName};
use store::rows::{JobRow, JobState as RowState, TestRow};

use super::admission::target_of;
use super::answer::{self, Answered};
use super::build::row;
use super::call::Call;
use super::quarantine::Notes;
use super::{App, convert, problem};
use crate::access::{Bearer, Verb};

/// By how many milliseconds durations differ at least that are told apart.
const SLOWER_MS_MIN: u64 = 1_000;

/// Job, suite and name of a test.
pub type TestKey = (JobName, String, String);

/// Whether one took longer than the other, by a quarter and a second at least.
fn differs(one: u64, other: u64) -> bool {
    let (less, more) = (one.min(other), one.max(other));
    more - less >= SLOWER_MS_MIN && more - less >= less / 4
}

/// The second build of the path, if its token may see it.
fn other(app: &App, call_other: &str, bearer: &Bearer) -> Result<store::rows::BuildRow, Problem> {
    let id: u64 = call_other.parse().ok().filter(|id| *id > 0 && i64::try_from(*id).is_ok()).ok_or_else(|| {
        Problem::new(ProblemKind::Invalid, "builds are numbered from 1").field("other", "has to be the id of a build")
    })?;
    let found = row(app, BuildId(id))?;
    let target = target_of(&found.origin.project, found.build);
    match bearer.may(Verb::Read, &target, app.now()) {
        Ok(_) => Ok(found),
        // Whoever may not see a build is not told that it is there.
        Err(_) => Err(problem::not_found(format_args!("build {id}"))),
    }
}

/// The jobs of a build: those that something happened to, and those that only stand in its graph.
fn jobs(app: &App, build: BuildId) -> Result<BTreeMap<JobName, JobSide>, Problem> {
    let graph = app.server.store.graph(build).map_err(problem::store)?.unwrap_or_default();
    let waiting =
        JobSide { state: JobState::Waiting, outcome: None, text: String::new(), reused: false, took_ms: None };
    let mut sides: BTreeMap<JobName, JobSide> = graph.jobs.keys().map(|name| (name.clone(), waiting.clone())).collect();
    for row in app.server.store.jobs(build).map_err(problem::store)? {
        sides.insert(row.name.clone(), side(&row));
    }
    Ok(sides)
}

fn side(row: &JobRow) -> JobSide {
    let took = row.started.zip(row.finished).map(|(started, finished)| finished.ms_since(started));
    JobSide {
        state: match row.state {
            RowState::Waiting => JobState::Waiting,
            RowState::Running => JobState::Running,
            RowState::Ended => JobState::Ended,
        },
        outcome: row.outcome.as_ref().map(Into::into),
        text: row.outcome.as_ref().and_then(Cause::of).map(|cause| cause.text).unwrap_or_default(),
        reused: row.reused.is_some(),
        took_ms: took.filter(|_| row.reused.is_none()),
    }
}

fn is_same_job(here: &JobSide, there: &JobSide) -> bool {
    let took = here.took_ms.zip(there.took_ms);
    here.outcome == there.outcome
        && here.reused == there.reused
        && (here.outcome.is_some() || here.state == there.state)
        && took.is_none_or(|(here, there)| !differs(here, there))
}

/// The tests of a build, each as its last attempt reported it.
pub fn last_reports<R: Borrow<TestRow>>(rows: impl IntoIterator<Item = R>) -> BTreeMap<TestKey, R> {
    // By attempt already; later ones take the place of earlier ones, but for what a partial one left out.
    let mut last = BTreeMap::new();
    for row in rows {
        let TestRow { job, extent, case, .. } = row.borrow();
        let key = (job.clone(), case.suite.clone(), case.name.clone());
        if replaces(*extent, case.outcome) || !last.contains_key(&key) {
            last.insert(key, row);
        }
    }
    last
}

fn test_side(row: &TestRow) -> TestSide {
    TestSide { outcome: row.case.outcome.into(), duration_ms: row.case.duration_ms }
}

/// The keys of both with what each has.
fn joined<K: Ord + Clone, V: Clone>(
    here: &BTreeMap<K, V>,
    there: &BTreeMap<K, V>,
) -> BTreeMap<K, (Option<V>, Option<V>)> {
    let keys = here.keys().chain(there.keys());
    keys.map(|key| (key.clone(), (here.get(key).cloned(), there.get(key).cloned()))).collect()
}

/// The first differences, how many more there are, and how much is the same.
fn differences<K: Ord + Clone, V: Clone, D>(
    (here, there): (&BTreeMap<K, V>, &BTreeMap<K, V>),
    is_same: impl Fn(&V, &V) -> bool,
    told: impl Fn(K, Option<V>, Option<V>) -> D,
) -> (Vec<D>, u64, u64) {
    let (mut found, mut left_off, mut same) = (Vec::new(), 0, 0);
    for (key, (here, there)) in joined(here, there) {
        if let (Some(here), Some(there)) = (&here, &there)
            && is_same(here, there)
        {
            same += 1;
        } else if found.len() < DIFFERENCES_MAX {
            found.push(told(key, here, there));
        } else {
            left_off += 1;
        }
    }
    (found, left_off, same)
}

pub async fn get(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let with = call.segment("other").to_owned();
    let bearer = Arc::clone(call.bearer()?);
    let comparison = app
        .blocking(move |app| {
            let (here, there) = (row(app, build)?, other(app, &with, &bearer)?);
            let sides = (jobs(app, build)?, jobs(app, there.build)?);
            let (jobs, jobs_left_off, jobs_same) =
                differences((&sides.0, &sides.1), is_same_job, |job, here, there| JobDifference {
                    job: job.to_string(),
                    here,
                    there,
                });
            let sides = |build| {
                let rows = app.known_tests.of(&*app.server.store, build).map_err(problem::store)?;
                let sides = last_reports(rows.iter()).into_iter().map(|(key, row)| (key, test_side(row)));
                Ok::<BTreeMap<_, _>, Problem>(sides.collect())
            };
            let (of_here, of_there) = (sides(build)?, sides(there.build)?);
            let is_same = |here: &TestSide, there: &TestSide| {
                here.outcome == there.outcome && !differs(here.duration_ms, there.duration_ms)
            };
            let notes = Notes::of(app, &here.origin.project)?;
            let told = |(job, suite, name): TestKey, here, there| TestDifference {
                quarantine: notes.note(job.as_str(), &suite, &name),
                job: job.to_string(),
                suite,
                name,
                here,
                there,
            };
            let (tests, tests_left_off, tests_same) = differences((&of_here, &of_there), is_same, told);
            Ok(Comparison {
                build: convert::build(&here),
                with: convert::build(&there),
                jobs,
                jobs_left_off,
                jobs_same,
                tests,
                tests_left_off,
                tests_same,
            })
        })
        .await?;
    answer::json(&comparison)
}
