//! The page of a build.

use graph::outcome::{JobEnd, failures};
use graph::{Failure, Outcome, Verdict};

use super::parts::{self, title};
use super::{Shown, ShownJob, Stop};
use crate::archive::Archive;
use crate::calendar::Calendar;
use crate::columns::{self, Columns, Paint, Style};
use crate::whereabouts::quoted;
use crate::words;

/// A build with more jobs is shown without those that passed, and then with at most so many lines.
const JOBS_SHOWN_MAX: usize = 50;

/// The page.
pub fn text(shown: &Shown, archive: &dyn Archive, calendar: &Calendar, paint: Paint) -> Result<String, Stop> {
    let mut page = parts::header(shown, calendar, paint);
    jobs(&mut page, shown, calendar, paint);
    if let Some(unasked) = &shown.unasked {
        page.push_str(&format!("\n{}\n", columns::one_line(unasked)));
    }
    parts::gates(&mut page, shown, calendar, paint);
    parts::tests(&mut page, shown, paint);
    parts::statuses(&mut page, shown, paint);
    shown.history.growth(&mut page, paint);
    shown.history.faults(&mut page, &shown.root, paint);
    first_error(&mut page, shown, archive, paint)?;
    parts::artifacts(&mut page, shown, paint);
    parts::notes(&mut page, shown, paint);
    parts::summaries(&mut page, shown, paint);
    next(&mut page, shown, paint);
    Ok(page)
}

/// The place of a job in what is worth seeing if not all can be shown; `None` if it is only counted.
fn weight(job: &ShownJob) -> Option<u8> {
    let is_under_way = job.row.as_ref().is_some_and(|row| row.state == store::rows::JobState::Running);
    match job.outcome() {
        Some(Outcome::Passed { .. }) => None,
        Some(Outcome::Failed(_)) => Some(if job.fails_build() { 0 } else { 2 }),
        None if is_under_way => Some(1),
        Some(Outcome::Skipped(_)) => Some(3),
        None => job.row.as_ref().map(|_| 4),
    }
}

fn jobs(page: &mut String, shown: &Shown, calendar: &Calendar, paint: Paint) {
    // A barrier is worth a line only where it tells why what waits for it was skipped.
    let is_listed = |job: &&ShownJob| !job.name.is_barrier() || matches!(job.outcome(), Some(Outcome::Skipped(_)));
    let mut listed: Vec<&ShownJob> = shown.jobs.iter().filter(is_listed).collect();
    let n_jobs = listed.len();
    if listed.len() > JOBS_SHOWN_MAX {
        listed.retain(|job| weight(job).is_some());
        if listed.len() > JOBS_SHOWN_MAX {
            // Stable: within one weight the pipeline's order stays.
            listed.sort_by_key(|job| weight(job));
            listed.truncate(JOBS_SHOWN_MAX);
        }
    }
    let mut table = Columns::default();
    for job in &listed {
        table.row(parts::job_line(shown, job, calendar));
    }
    page.push('\n');
    page.push_str(&table.text(paint, 2));
    let hidden = n_jobs - listed.len();
    if hidden > 0 {
        let hidden = words::count(hidden, "more job");
        let show = shown.whereabouts.command(format_args!("show {} JOB", shown.row.build));
        let hint = format!("  … {hidden}, counted below: {show}, or --output json\n");
        page.push_str(&paint.text(Style::Dim, &hint));
    }
    page.push_str(&format!("  {}\n", counts(shown)));
    for hole in shown.graph.iter().flat_map(|graph| &graph.holes) {
        let text = match shown.row.verdict {
            Verdict::Running => crate::view::growth::hole(hole),
            _ => format!("… {}  has not grown", columns::one_line(&hole.name)),
        };
        page.push_str(&format!("  {text}\n"));
    }
}

fn counts(shown: &Shown) -> String {
    let jobs = || shown.jobs.iter().filter(|job| !job.name.is_barrier());
    let mut text = words::count(jobs().count(), "job");
    let is_reused = |job: &ShownJob| job.row.as_ref().is_some_and(|row| row.reused.is_some());
    let ending = |job: &ShownJob| match job.outcome() {
        Some(Outcome::Passed { .. }) if is_reused(job) => "cached",
        Some(Outcome::Passed { .. }) => "passed",
        Some(Outcome::Failed(Failure::Canceled { .. })) => "canceled",
        Some(Outcome::Failed(_)) => "failed",
        Some(Outcome::Skipped(_)) => "skipped",
        None => "not ended",
    };
    let mut separator = ": ";
    for word in ["passed", "cached", "failed", "canceled", "skipped", "not ended"] {
        let count = jobs().filter(|job| ending(job) == word).count() as u64;
        if count == 0 {
            continue;
        }
        text.push_str(&format!("{separator}{} {word}", words::thousands(count)));
        separator = ", ";
    }
    text
}

/// The job that a person should look at first.
fn blamed(shown: &Shown) -> Option<&ShownJob> {
    if let Verdict::Failed { because: Some(job) } = &shown.row.verdict {
        return shown.job(job);
    }
    let ends = shown.jobs.iter().filter(|job| job.fails_build()).filter_map(|job| {
        let at = job.row.as_ref()?.finished?;
        Some(JobEnd { name: &job.name, outcome: job.outcome()?, at })
    });
    failures(shown.graph.as_deref(), ends).first().and_then(|end| shown.job(end.name))
}

fn first_error(page: &mut String, shown: &Shown, archive: &dyn Archive, paint: Paint) -> Result<(), Stop> {
    let Some(job) = blamed(shown) else { return Ok(()) };
    let Some(excerpt) = shown.excerpt(archive, &job.name)? else { return Ok(()) };
    let what = if excerpt.error.is_some() { "first error" } else { "last lines" };
    title(page, paint, &format!("{what} of {}", job.name));
    parts::excerpt(page, shown, job, &excerpt, paint);
    Ok(())
}

fn next(page: &mut String, shown: &Shown, paint: Paint) {
    let build = shown.row.build;
    let at = &shown.whereabouts;
    let mut commands = Vec::new();
    if let Some(blamed) = blamed(shown) {
        let job = quoted(blamed.name.as_str());
        commands.push(at.command(format_args!("show {build} {job}")));
        commands.extend(parts::commands(shown, blamed));
        if shown.row.verdict != Verdict::Running {
            // On a server they run again within the build, which has grown by how these ended.
            let only_told =
                at.is_there() && shown.jobs.iter().filter(|job| job.fails_build()).all(|job| shown.is_told(job));
            let failed = if only_told { "" } else { " --failed" };
            commands.push(at.command(format_args!("retry {build}{failed}")));
        }
    }
    if shown.row.verdict == Verdict::Running && shown.is_run {
        commands.push(at.command(format_args!("logs {build} --follow")));
        commands.push(at.command(format_args!("cancel {build}")));
    }
    if !commands.is_empty() {
        title(page, paint, "next");
        for command in commands {
            page.push_str(&format!("  {command}\n"));
        }
    }
}
