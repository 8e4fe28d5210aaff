//! What ran when jobs last passed whole: with it the tests of a retry of single tests are compared, so that what a runner never came
//! to is missed.

use std::collections::{BTreeMap, BTreeSet};

use api::problem::Problem;
use graph::asked::RanWhole;
use graph::{BuildId, JobName, Trust};
use store::BuildFilter;
use store::rows::BuildRow;

use super::overview::{default_branch, ref_of};
use super::{App, problem};
use crate::records::Project as Stored;

/// Among how many earlier builds is chosen, the newest.
pub const CANDIDATES_MAX: u32 = 200;
/// The attempts of how many of them are looked at.
const BUILDS_MAX: usize = 50;

/// What each of these jobs ran in the last attempt that passed whole and reported tests, in a build before this one of the same project
/// and pipeline. Builds of the same branch or pull request count before those of the default branch, and these before others; builds
/// that are trusted less, and other pull requests, do not. A job that has no such attempt is left out. Blocks.
///
/// # Errors
/// If the store cannot be read.
pub fn before(app: &App, build: &BuildRow, jobs: BTreeSet<JobName>) -> Result<BTreeMap<JobName, RanWhole>, Problem> {
    if jobs.is_empty() {
        return Ok(BTreeMap::new());
    }
    store::ran_whole(&*app.server.store, candidates(app, build)?, jobs).map_err(problem::store)
}

/// The builds that count, the nearest first.
fn candidates(app: &App, build: &BuildRow) -> Result<Vec<BuildId>, Problem> {
    let project = &build.origin.project;
    let filter = BuildFilter {
        project: Some(project.clone()),
        pipeline: Some(build.pipeline.clone()),
        ..BuildFilter::default()
    };
    let mut rows = app.server.store.builds(&filter, Some(build.build), CANDIDATES_MAX).map_err(problem::store)?;
    let stored = app.server.records.read::<Stored>(project).map_err(problem::record)?;
    let default = default_branch(stored.and_then(|(project, _)| project.settings.of_api().default_branch), &rows);
    let own = ref_of(&build.event);
    let of_others = |row: &BuildRow| row.event.is_of_pull_request() && ref_of(&row.event) != own;
    let is_doubtful = |row: &BuildRow| row.event.trust == Trust::Untrusted && build.event.trust == Trust::Trusted;
    rows.retain(|row| row.counts.passed > 0 && !of_others(row) && !is_doubtful(row));
    rows.sort_by_key(|row| match &row.event {
        event if ref_of(event) == own => 0,
        event if default.is_some() && event.branch == default => 1,
        _ => 2,
    });
    Ok(rows.into_iter().map(|row| row.build).take(BUILDS_MAX).collect())
}
