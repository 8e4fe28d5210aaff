//! `ropewalk show`: one build, or one job of it, with all that was recorded.

mod build;
mod history;
mod job;
mod parts;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::job::Waiting;
use graph::{
    AttemptNumber, AttemptReport, BuildId, Digest, Failure, Graph, Job, JobName, Outcome, SkipReason, Verdict,
};
use serde_json::{Value, json};
use store::log::{StreamKey, Writing};
use store::rows::{ArtifactRow, AttemptRow, BuildRow, GateRow, JobRow, JobState};

use self::history::History;
use super::Stop;
use super::logs::lines_before;
use crate::archive::Archive;
use crate::args::{Colour, ListForm, Show};
use crate::calendar::Calendar;
use crate::child;
use crate::columns::Paint;
use crate::first_error::{self, Excerpt, ExcerptLine};
use crate::places;
use crate::project::Project;
use crate::whereabouts::Whereabouts;
use crate::{exit, output};

/// Runs the command.
///
/// # Errors
/// If there is no such build or job, or what is kept cannot be read.
pub fn run(arguments: &Show, project: &Project, colour: Colour) -> Result<u8, Stop> {
    let archive = arguments.at.archive(project)?.ok_or_else(|| Stop::wrong(places::NO_BUILDS))?;
    let paint = Paint::of(colour, &std::io::stdout());
    output::print(show(arguments, &*archive, &project.root, &Calendar::system(), paint)?)?;
    Ok(exit::PASSED)
}

fn show(
    arguments: &Show,
    archive: &dyn Archive,
    root: &Path,
    calendar: &Calendar,
    paint: Paint,
) -> Result<String, Stop> {
    let row = archive.find_build(&arguments.build)?;
    let Some(text) = &arguments.job else {
        let shown = Shown::of(archive, root, row, None)?;
        return match arguments.output {
            ListForm::Human => build::text(&shown, archive, calendar, paint),
            ListForm::Json => Ok(format!("{:#}\n", shown.json())),
        };
    };
    let name = archive.find_job(row.build, text)?;
    let shown = Shown::of(archive, root, row, Some(&name))?;
    match arguments.output {
        ListForm::Human => job::text(&shown, archive, calendar, paint, &name),
        ListForm::Json => {
            let mut value = shown.json();
            let operation = shown.job(&name).and_then(|job| job.operation());
            let manifest = operation.map(|digest| archive.manifest(digest)).transpose()?.flatten();
            value["manifest"] = json!(manifest);
            value["first_error"] = json!(shown.excerpt(archive, &name)?);
            Ok(format!("{value:#}\n"))
        }
    }
}

/// Everything known of a build, or of one job of it.
struct Shown {
    row: BuildRow,
    graph: Option<Arc<Graph>>,
    /// In the pipeline's order.
    jobs: Vec<ShownJob>,
    attempts: Vec<AttemptRow>,
    reports: HashMap<AttemptNumber, AttemptReport>,
    artifacts: Vec<ArtifactRow>,
    gates: Vec<GateRow>,
    usual_ms: BTreeMap<JobName, u64>,
    /// Why those of its jobs wait that have not begun.
    waits: BTreeMap<JobName, Waiting>,
    /// Why its program is not asked, though it is to be.
    unasked: Option<String>,
    /// The builds that its jobs asked for.
    children: Vec<BuildRow>,
    is_run: bool,
    /// By whose `run --resume` it goes on if nobody runs it.
    resumed_by: BuildId,
    /// Empty for the page of one job.
    history: History,
    /// The repository as it is now.
    root: PathBuf,
    whereabouts: Whereabouts,
}

/// One job.
struct ShownJob {
    name: JobName,
    /// As the pipeline has it; `None` if it no longer does.
    job: Option<Arc<Job>>,
    /// `None` if nothing has happened to it.
    row: Option<JobRow>,
}

impl ShownJob {
    fn outcome(&self) -> Option<&Outcome> {
        self.row.as_ref()?.outcome.as_ref()
    }

    fn operation(&self) -> Option<Digest> {
        self.row.as_ref()?.operation
    }

    /// Whether it has neither begun nor ended, or waits for its next try.
    fn is_waiting(&self) -> bool {
        self.row.as_ref().is_none_or(|row| row.outcome.is_none() && row.state == JobState::Waiting)
    }

    /// Whether it waits for a build that it asked for.
    fn waits_for_child(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.state == JobState::Running && row.child.is_some())
    }

    fn is_failed(&self) -> bool {
        matches!(self.outcome(), Some(Outcome::Failed(failure)) if !matches!(failure, Failure::Canceled { .. }))
    }

    /// Whether it failed and may not.
    fn fails_build(&self) -> bool {
        self.is_failed() && self.job.as_ref().is_none_or(|job| !job.allow_failure)
    }
}

impl Shown {
    fn of(archive: &dyn Archive, root: &Path, row: BuildRow, only: Option<&JobName>) -> Result<Self, Stop> {
        let graph = archive.graph(row.build)?;
        let mut rows: BTreeMap<JobName, JobRow> =
            archive.jobs(row.build)?.into_iter().map(|row| (row.name.clone(), row)).collect();
        let mut jobs: Vec<ShownJob> = Vec::new();
        for (name, job) in graph.iter().flat_map(|graph| &graph.jobs) {
            let row = rows.remove(name);
            jobs.push(ShownJob { name: name.clone(), job: Some(Arc::clone(job)), row });
        }
        jobs.extend(rows.into_iter().map(|(name, row)| ShownJob { name, job: None, row: Some(row) }));
        jobs.retain(|job| only.is_none_or(|only| *only == job.name));
        jobs.sort_by(|left, right| {
            let order = |job: &ShownJob| job.job.as_ref().map_or(u32::MAX, |job| job.order);
            (order(left), &left.name).cmp(&(order(right), &right.name))
        });
        let names: Vec<JobName> = jobs.iter().map(|job| job.name.clone()).collect();
        let is_run = archive.is_run(&row)?;
        let waits = |job: &&ShownJob| job.is_waiting() || job.waits_for_child();
        let waiting = jobs.iter().filter(|job| is_run && waits(job)).map(|job| job.name.clone());
        let waits = archive.waits(row.build, &waiting.collect::<Vec<_>>())?;
        let is_wanted = |name: &JobName| only.is_none_or(|only| only == name);
        Ok(Self {
            usual_ms: archive.usual_ms(row.build, &names)?,
            attempts: archive.attempts(row.build, only)?,
            reports: archive.reports(row.build, only)?.into_iter().collect(),
            artifacts: archive.artifacts(row.build)?.into_iter().filter(|row| is_wanted(&row.job)).collect(),
            gates: archive.gates(row.build)?.into_iter().filter(|row| is_wanted(&row.job)).collect(),
            children: archive.children(row.build)?,
            waits,
            unasked: if is_run && only.is_none() { archive.unasked(row.build)? } else { None },
            is_run,
            resumed_by: match row.verdict == Verdict::Running && !is_run {
                true => child::resumed_by(&row, |build| archive.build(build))?,
                false => row.build,
            },
            history: if only.is_none() { History::of(archive, &row)? } else { History::default() },
            root: root.to_owned(),
            whereabouts: archive.whereabouts(),
            row,
            graph,
            jobs,
        })
    }

    /// Whether a matrix of the pipeline's files came to nothing by how this job ended.
    fn is_told(&self, job: &ShownJob) -> bool {
        let is_because = |skip: &SkipReason| matches!(skip, SkipReason::Need { because } if *because == job.name);
        self.jobs.iter().filter_map(|job| job.job.as_ref()?.skip.as_ref()).any(is_because)
    }

    fn job(&self, name: &JobName) -> Option<&ShownJob> {
        self.jobs.iter().find(|job| job.name == *name)
    }

    /// The report of a job's last attempt.
    fn report(&self, job: &ShownJob) -> Option<&AttemptReport> {
        self.reports.get(&job.row.as_ref()?.attempt?)
    }

    /// The warnings and errors that a job's last attempt told its reader, at most so many, and how many there are in all.
    fn said(&self, archive: &dyn Archive, name: &JobName, count_max: usize) -> Result<(Vec<ExcerptLine>, usize), Stop> {
        let (mut lines, mut count) = (Vec::new(), 0);
        let Some(attempt) = self.job(name).and_then(|job| job.row.as_ref()?.attempt) else { return Ok((lines, 0)) };
        let writing = if self.is_run { Writing::Going } else { Writing::Over };
        let Some(reader) = archive.log(self.row.build, Some(name), writing)? else { return Ok((lines, 0)) };
        let before = lines_before(&*reader);
        for stream in reader.streams().filter(|stream| stream.key.attempt == attempt.0) {
            let before = before.get(&stream.key).copied().unwrap_or(0);
            let room = count_max.saturating_sub(lines.len());
            let (said, more) = first_error::said(&*reader, stream.key, before, room)?;
            lines.extend(said);
            count += more;
        }
        Ok((lines, count))
    }

    /// The lines around the first error of a job's last attempt: of the step that failed, else of the last one.
    fn excerpt(&self, archive: &dyn Archive, name: &JobName) -> Result<Option<Excerpt>, Stop> {
        let Some(attempt) = self.job(name).and_then(|job| job.row.as_ref()?.attempt) else { return Ok(None) };
        let writing = if self.is_run { Writing::Going } else { Writing::Over };
        let Some(reader) = archive.log(self.row.build, Some(name), writing)? else { return Ok(None) };
        let step = match self.job(name).and_then(ShownJob::outcome) {
            Some(Outcome::Failed(Failure::Step { step, .. } | Failure::Timeout { step: Some(step), .. })) => *step,
            _ => match reader.streams().filter(|stream| stream.key.attempt == attempt.0).last() {
                Some(stream) => stream.key.step,
                None => return Ok(None),
            },
        };
        let key = StreamKey { attempt: attempt.0, step };
        let before = lines_before(&*reader).get(&key).copied().unwrap_or(0);
        let job = self.job(name);
        let (described, outcome) = (job.and_then(|job| job.job.as_deref()), job.and_then(ShownJob::outcome));
        let excerpt =
            first_error::of_ending(&*reader, key, before, described, outcome, job.and_then(|job| self.report(job)))?;
        Ok((!excerpt.lines.is_empty()).then_some(excerpt))
    }

    fn json(&self) -> Value {
        let jobs: Vec<Value> = self.jobs.iter().map(|job| self.job_json(job)).collect();
        let holes = self.graph.as_ref().map(|graph| &graph.holes);
        json!({
            "build": self.row, "is_run": self.is_run, "jobs": jobs, "holes": holes, "artifacts": self.artifacts,
            "gates": self.gates, "children": self.children, "unasked": self.unasked, "statuses": self.graph.as_ref().map(|graph| &graph.statuses),
            "growth": self.history.growth_json(), "diagnostics": self.history.diagnostics_json(),
        })
    }

    fn job_json(&self, job: &ShownJob) -> Value {
        let attempts = self.attempts.iter().filter(|attempt| attempt.job == job.name);
        let attempts: Vec<Value> = attempts
            .map(|attempt| {
                let mut value = json!(attempt);
                value["report"] = json!(self.reports.get(&attempt.attempt));
                value
            })
            .collect();
        let needs = job.job.as_ref().map(|job| job.needs.iter().map(|need| &need.job).collect::<Vec<_>>());
        json!({
            "name": job.name, "row": job.row, "needs": needs, "usual_ms": self.usual_ms.get(&job.name),
            "attempts": attempts, "waiting": self.waits.get(&job.name),
        })
    }
}

#[cfg(test)]
mod tests;
