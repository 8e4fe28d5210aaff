//! A project at a glance: its branches, pull requests and tags by its newest builds, and the badge of a branch.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::overview::{Figures, OVERVIEW_BUILDS, Overview, RefKind, RefState};
use api::problem::{Problem, ProblemKind};
use api::routes::SVG;
use axum::body::Body;
use axum::http::StatusCode;
use graph::{Event, Timestamp, Verdict};
use store::BuildFilter;
use store::rows::BuildRow;
use web::badge::{self, Badge};

use super::answer::{self, Answered};
use super::call::Call;
use super::project::shown;
use super::{App, convert, problem};
use crate::access::{Target, Verb};
use crate::records::{Project as Stored, is_name};

/// The branches that matter most where nobody says otherwise.
const USUAL_BRANCHES: [&str; 2] = ["main", "master"];
/// How many builds of a branch are looked at for one that ended and is no pull request's.
const BADGE_BUILDS: u32 = 50;
/// The longest name of a branch in bytes.
const BRANCH_BYTES_MAX: usize = 1024;
/// Seven days in milliseconds.
const WEEK_MS: u64 = 7 * 24 * 3600 * 1000;

/// The newest builds of a project, at most [`OVERVIEW_BUILDS`], and whether there are older ones.
pub fn newest(app: &App, project: &str) -> Result<(Vec<BuildRow>, bool), Problem> {
    let filter = BuildFilter { project: Some(project.to_owned()), ..BuildFilter::default() };
    let mut rows = app.server.store.builds(&filter, None, OVERVIEW_BUILDS + 1).map_err(problem::store)?;
    let has_older = rows.len() > OVERVIEW_BUILDS as usize;
    rows.truncate(OVERVIEW_BUILDS as usize);
    Ok((rows, has_older))
}

/// What a build is of.
pub fn ref_of(event: &Event) -> (RefKind, String) {
    RefKind::of(event.kind.into(), event.pull_request, event.tag.as_deref(), event.branch.as_deref())
}

/// The branch that matters most: as it is set, else a usual one that was built, else the one that was built most.
pub fn default_branch(set: Option<String>, rows: &[BuildRow]) -> Option<String> {
    if set.is_some() {
        return set;
    }
    let mut built: BTreeMap<String, u64> = BTreeMap::new();
    for (kind, name) in rows.iter().map(|row| ref_of(&row.event)) {
        if kind == RefKind::Branch {
            *built.entry(name).or_default() += 1;
        }
    }
    let usual = USUAL_BRANCHES.into_iter().find(|name| built.contains_key(*name)).map(str::to_owned);
    usual.or_else(|| built.into_iter().max_by_key(|(_, n)| *n).map(|(name, _)| name))
}

/// How those of these builds did that have ended.
fn figures<'r>(rows: impl Iterator<Item = &'r BuildRow>) -> Figures {
    let mut figures = Figures::default();
    let mut spans = Vec::new();
    for row in rows {
        let Some(finished) = row.finished else { continue };
        figures.ended += 1;
        match row.verdict {
            Verdict::Passed { .. } => {
                figures.passed += 1;
                spans.extend(row.started.map(|started| finished.ms_since(started)));
            }
            Verdict::Failed { .. } | Verdict::Diverged { .. } => figures.failed += 1,
            Verdict::Running | Verdict::Canceled { .. } => {}
        }
    }
    spans.sort_unstable();
    // The nearest rank: the least span that so many of a hundred do not exceed.
    let percentile = |of_hundred: usize| spans.get((spans.len() * of_hundred).div_ceil(100).max(1) - 1).copied();
    Figures { p50_ms: percentile(50), p95_ms: percentile(95), ..figures }
}

fn overview(name: String, stored: &Stored, rows: &[BuildRow], has_older: bool, now: Timestamp) -> Overview {
    let project = shown(name, stored);
    // In order of the newest build of each.
    let mut order = Vec::new();
    let mut of_ref: BTreeMap<(RefKind, String), Vec<&BuildRow>> = BTreeMap::new();
    for row in rows {
        let key = ref_of(&row.event);
        let built = of_ref.entry(key.clone()).or_default();
        if built.is_empty() {
            order.push(key);
        }
        built.push(row);
    }
    let state = |key: (RefKind, String)| {
        let built = &of_ref[&key];
        let (kind, name) = key;
        let last = convert::build(built[0]);
        RefState { kind, name, last, builds: built.len() as u64, figures: figures(built.iter().copied()) }
    };
    Overview {
        default_branch: default_branch(project.settings.default_branch.clone(), rows),
        project,
        builds: rows.len() as u64,
        has_older,
        last_week: rows.iter().filter(|row| now.ms_since(row.created) < WEEK_MS).count() as u64,
        figures: figures(rows.iter()),
        refs: order.into_iter().map(state).collect(),
    }
}

pub async fn get(app: Arc<App>, call: Call) -> Answered {
    let name = call.segment("project").to_owned();
    let overview = app
        .blocking(move |app| {
            let found = app.server.records.read::<Stored>(&name).map_err(problem::record)?;
            let (stored, _) = found.ok_or_else(|| problem::not_found(format_args!("project `{name}`")))?;
            let (rows, has_older) = newest(app, &name)?;
            Ok(overview(name, &stored, &rows, has_older, app.now()))
        })
        .await?;
    answer::json(&overview)
}

/// How the last build of a branch that ended is told, pull requests from a branch of that name left out.
fn badge_of(app: &App, project: &str, branch: Option<String>) -> Result<String, Problem> {
    let filter = BuildFilter { project: Some(project.to_owned()), branch, ..BuildFilter::default() };
    let rows = app.server.store.builds(&filter, None, BADGE_BUILDS).map_err(problem::store)?;
    let mut own = rows.iter().filter(|row| !row.event.is_of_pull_request());
    let state = match own.find(|row| row.finished.is_some()).map(|row| &row.verdict) {
        Some(Verdict::Passed { .. }) => Badge::Passed,
        Some(Verdict::Failed { .. } | Verdict::Diverged { .. }) => Badge::Failed,
        Some(Verdict::Canceled { .. }) => Badge::Canceled,
        Some(Verdict::Running) | None => Badge::Unknown,
    };
    Ok(badge::drawing(filter.branch.as_deref().unwrap_or("build"), state))
}

pub async fn badge(app: Arc<App>, call: Call) -> Answered {
    let name = call.segment("project").to_owned();
    if !is_name(&name) {
        return Err(Problem::new(ProblemKind::Invalid, "this cannot name a project")
            .field("project", "letters, digits and `._-`, at most 100, a letter or digit first"));
    }
    let wanted = call.text("branch").filter(|branch| !branch.is_empty()).map(str::to_owned);
    if wanted.as_ref().is_some_and(|branch| branch.len() > BRANCH_BYTES_MAX) {
        return Err(Problem::new(ProblemKind::Invalid, "the name of the branch is too long")
            .field("branch", format!("at most {BRANCH_BYTES_MAX} bytes")));
    }
    let key = name.clone();
    let found = app.blocking(move |app| app.server.records.read::<Stored>(&key).map_err(problem::record)).await?;
    let settings = found.as_ref().map(|(project, _)| project.settings.of_api());
    if settings.as_ref().is_none_or(|settings| settings.public_badge != Some(true)) {
        // Who may not see the project does not learn whether it is there.
        call.demand(Verb::Read, &Target::project(&name), app.now())?;
    }
    let settings = settings.ok_or_else(|| problem::not_found(format_args!("project `{name}`")))?;
    let drawing = app
        .blocking(move |app| {
            let branch = match wanted {
                Some(branch) => Some(branch),
                None => default_branch(settings.default_branch, &newest(app, &name)?.0),
            };
            badge_of(app, &name, branch)
        })
        .await?;
    Ok(answer::with(StatusCode::OK, SVG, Body::from(drawing)))
}
