//! What must hold when a storm is over, asked of the server as anybody could.

use std::collections::BTreeMap;

use api::build::{Build, BuildFilter};
use api::client::{Client, JobsWanted, LogWanted, PageWanted};
use api::job::{Attempt, Job, OutcomeWord};
use api::log::{LogItem, LogStream};
use graph::BuildId;

use super::load::{Kind, line};
use super::{State, Submission};
use crate::fleet::PROJECT;

/// The most items of a page.
const PAGE: u32 = 1000;

/// Checks everything; what is wrong goes to the violations of `state`, what there was to its counts.
///
/// # Errors
/// If the server does not answer.
pub async fn check(client: &Client, kinds: &[Kind], state: &State) -> Result<(), String> {
    let mut builds: BTreeMap<String, Vec<Build>> = BTreeMap::new();
    for build in all_builds(client).await? {
        builds.entry(build.event.message.clone()).or_default().push(build);
    }
    let submissions = state.submissions.borrow().clone();
    for submission in &submissions {
        let found = builds.remove(&submission.name).unwrap_or_default();
        let ids: Vec<_> = found.iter().map(|build| build.id).collect();
        match (submission.acknowledged, ids.as_slice()) {
            (Some(wanted), [id]) if *id == wanted => {}
            (None, [] | [_]) => {}
            (wanted, ids) => {
                state.violation(format!("{}: acknowledged as {wanted:?}, found as {ids:?}", submission.name));
            }
        }
        for build in &found {
            check_build(client, submission, &kinds[submission.kind], build, state).await?;
        }
    }
    for name in builds.keys() {
        state.violation(format!("a build that nobody asked for: `{name}`"));
    }
    Ok(())
}

async fn all_builds(client: &Client) -> Result<Vec<Build>, String> {
    let filter = BuildFilter { project: Some(PROJECT.to_owned()), ..BuildFilter::default() };
    let (mut builds, mut page) = (Vec::new(), PageWanted { cursor: None, limit: Some(PAGE) });
    loop {
        let found = client.build_list(&filter, &page).await.map_err(|error| error.to_string())?;
        builds.extend(found.items);
        match found.next {
            Some(next) => page.cursor = Some(next),
            None => return Ok(builds),
        }
    }
}

async fn check_build(
    client: &Client,
    submission: &Submission,
    kind: &Kind,
    build: &Build,
    state: &State,
) -> Result<(), String> {
    state.count("builds", 1);
    let named = format!("build {} ({})", build.id, submission.name);
    if build.verdict != kind.verdict {
        state.violation(format!("{named} ended `{}`, not {:?}", build.text, kind.verdict));
    }
    let page = PageWanted { cursor: None, limit: Some(PAGE) };
    let refused = |error: api::client::ClientError| format!("{named}: {error}");
    let jobs = client.job_list(build.id, &JobsWanted::default(), &page).await.map_err(refused)?.items;
    let attempts = client.attempt_list(build.id, None, &page).await.map_err(refused)?.items;
    for (name, outcome, lines) in &kind.jobs {
        state.count("jobs", 1);
        let job = jobs.iter().find(|job| job.name == *name);
        if job.and_then(|job| job.outcome) != Some(*outcome) {
            let found = job.map(|job| (job.state, job.outcome, job.cause.clone()));
            state.violation(format!("{named}: job {name} is {found:?}, not {outcome:?}"));
        }
        let attempts: Vec<_> = attempts.iter().filter(|attempt| attempt.job == *name).collect();
        check_attempts(&named, *outcome, job, &attempts, state);
        for attempt in attempts {
            check_log(client, build.id, name, *lines, attempt, state).await?;
        }
    }
    Ok(())
}

/// Whether an attempt's end is the job's own word, not that of those who ran it.
fn counts(attempt: &Attempt) -> bool {
    let Some(ended) = &attempt.ended else { return false };
    ended.outcome == OutcomeWord::Passed || ended.cause.as_ref().is_some_and(|cause| cause.kind == "step")
}

fn check_attempts(build: &str, outcome: OutcomeWord, job: Option<&Job>, attempts: &[&Attempt], state: &State) {
    let counted: Vec<_> = attempts.iter().filter(|attempt| counts(attempt)).collect();
    let wanted = usize::from(outcome != OutcomeWord::Skipped);
    let name = job.map_or("?", |job| &job.name);
    if counted.len() != wanted {
        let ends: Vec<_> = attempts.iter().map(|attempt| (attempt.attempt, &attempt.ended)).collect();
        state.violation(format!("{build}: {} attempts at {name} count, not {wanted}: {ends:?}", counted.len()));
    }
    if let (Some(job), Some(counted)) = (job, counted.first())
        && job.attempt != Some(counted.attempt)
    {
        state.violation(format!("{build}: {name} stands on attempt {:?}, not {}", job.attempt, counted.attempt));
    }
    for attempt in attempts {
        state.count("attempts", 1);
        match &attempt.ended {
            None => state.violation(format!("{build}: attempt {} at {name} never ended", attempt.attempt)),
            Some(ended) => match ended.cause.as_ref().map(|cause| cause.kind.as_str()) {
                Some("lost") => state.count("attempts lost", 1),
                Some("infra") => {
                    state.count("attempts that the machinery failed", 1);
                    state.infra(ended.cause.as_ref().map_or("", |cause| &cause.text));
                }
                _ => {}
            },
        }
    }
    for pair in attempts.windows(2) {
        if pair[0].ended.as_ref().is_none_or(|ended| ended.finished > pair[1].leased) {
            state.violation(format!(
                "{build}: attempts {} and {} at {name} overlap: {:?}, then {}",
                pair[0].attempt, pair[1].attempt, pair[0].ended, pair[1].leased
            ));
        }
    }
}

async fn check_log(
    client: &Client,
    build: BuildId,
    job: &str,
    lines: u64,
    attempt: &Attempt,
    state: &State,
) -> Result<(), String> {
    let number = attempt.attempt;
    let named = format!("build {build}, {job}, attempt {number}");
    let seen = state.seen.borrow_mut().remove(&(build, number)).unwrap_or_default();
    let mut gaps = Vec::new();
    let mut found: Vec<(u64, String)> = Vec::new();
    match client.log_items(build, number, 0, &LogWanted::default()).await {
        Ok(mut items) => {
            let mut begun = String::new();
            while let Some(item) = items.next().await.map_err(|error| format!("{named}: {error}"))? {
                match item {
                    LogItem::Line(said) if said.stream == LogStream::Stdout => {
                        begun.push_str(&said.line);
                        if !said.open {
                            found.push((said.number, std::mem::take(&mut begun)));
                        }
                    }
                    LogItem::Line(_) => {}
                    LogItem::Gap(gap) => gaps.push(gap.text),
                }
            }
            if !begun.is_empty() {
                found.push((u64::MAX, begun));
            }
        }
        // An attempt that never began a step has no log.
        Err(error) if !counts(attempt) && error.is(api::problem::ProblemKind::NotFound) => {}
        Err(error) => state.violation(format!("{named}: no log: {error}")),
    }
    state.count("lines checked", found.len() as u64);
    let of_its_own = |(index, (_, text)): (usize, &(u64, String))| *text == line(job, index as u64 + 1);
    let is_cut =
        !counts(attempt) && found.last().is_some_and(|(_, last)| line(job, found.len() as u64).starts_with(last));
    let whole = if is_cut { &found[..found.len() - 1] } else { &found[..] };
    if let Some(at) = whole.iter().enumerate().position(|pair| !of_its_own(pair)) {
        let near = &whole[at.saturating_sub(2)..whole.len().min(at + 3)];
        state.violation(format!("{named}: line {} is not what was printed: {near:?}", at + 1));
    }
    if counts(attempt) && (found.len() as u64 != lines || !gaps.is_empty()) {
        state.violation(format!("{named}: {} lines of {lines}, gaps {gaps:?}", found.len()));
    }
    let found: BTreeMap<u64, String> = found.into_iter().collect();
    state.count("lines shown to followers", seen.len() as u64);
    let lost: Vec<_> = seen.iter().filter(|(number, text)| found.get(number) != Some(text)).take(3).collect();
    if !lost.is_empty() {
        state.violation(format!("{named}: a follower was shown {lost:?}, the log has {} lines", found.len()));
    }
    Ok(())
}
