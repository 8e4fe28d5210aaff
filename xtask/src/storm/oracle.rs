//! What must hold when a storm is over, asked of the server as anybody could.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use api::build::{Build, BuildFilter, VerdictWord};
use api::client::{Client, JobsWanted, LogWanted, PageWanted};
use api::job::{Attempt, Job, OutcomeWord};
use api::log::{LogItem, LogStream};
use graph::BuildId;

use super::State;
use super::load::{ASKS, Kind, line};
use crate::fleet::PROJECT;

/// The most items of a page.
const PAGE: u32 = 1000;

/// Checks everything; what is wrong goes to the violations of `state`, what there was to its counts.
///
/// # Errors
/// If the server does not answer.
pub async fn check(client: &Client, kinds: &[Kind], state: &State) -> Result<(), String> {
    let mut builds: BTreeMap<String, Vec<Build>> = BTreeMap::new();
    let mut children: BTreeMap<(BuildId, String), Vec<Build>> = BTreeMap::new();
    for build in all_builds(client).await? {
        match &build.event.parent {
            Some(parent) => children.entry((parent.build, parent.job.clone())).or_default().push(build),
            None => builds.entry(build.event.message.clone()).or_default().push(build),
        }
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
            let named = format!("build {} ({})", build.id, submission.name);
            let kind = &kinds[submission.kind];
            let is_canceled = build.verdict == VerdictWord::Canceled;
            if is_canceled && !submission.may_be_canceled {
                state.violation(format!("{named} was canceled, and nobody asked for it"));
            }
            if submission.is_canceled && !is_canceled {
                state.violation(format!("{named} ended `{}` though its cancel was acknowledged", build.text));
            }
            let asked_for = check_build(client, &named, kind, build, state).await?;
            if let Some(child) = &kind.child {
                let found = children.remove(&(build.id, ASKS.to_owned())).unwrap_or_default();
                check_children(client, &named, child, build, asked_for, &found, state).await?;
            }
        }
    }
    for name in builds.keys() {
        state.violation(format!("a build that nobody asked for: `{name}`"));
    }
    for ((parent, job), found) in &children {
        let ids: Vec<_> = found.iter().map(|build| build.id).collect();
        state.violation(format!("`{job}` of build {parent} asks for no build, and is said to have asked for {ids:?}"));
    }
    Ok(())
}

/// The builds that one job asked for: one, or none where its build was canceled before.
async fn check_children(
    client: &Client,
    parent_named: &str,
    kind: &Kind,
    parent: &Build,
    asked_for: Option<BuildId>,
    found: &[Build],
    state: &State,
) -> Result<(), String> {
    let ids: Vec<_> = found.iter().map(|build| build.id).collect();
    let is_canceled = parent.verdict == VerdictWord::Canceled;
    match (asked_for, ids.as_slice()) {
        (Some(wanted), [id]) if *id == wanted => {}
        (None, []) if is_canceled => {}
        (wanted, ids) => state.violation(format!("{parent_named} asked for {wanted:?}, there are {ids:?}")),
    }
    for child in found {
        state.count("builds that a job asked for", 1);
        let named = format!("build {}, asked for by {parent_named}", child.id);
        if child.finished > parent.finished {
            state.violation(format!("{named} ended at {:?}, after that at {:?}", child.finished, parent.finished));
        }
        if child.verdict == VerdictWord::Canceled && !is_canceled {
            state.violation(format!("{named} was canceled without it"));
        }
        check_build(client, &named, kind, child, state).await?;
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

/// Checks a build against its kind; gives the build that its job asked for, if one did.
async fn check_build(
    client: &Client,
    named: &str,
    kind: &Kind,
    build: &Build,
    state: &State,
) -> Result<Option<BuildId>, String> {
    state.count("builds", 1);
    let is_canceled = build.verdict == VerdictWord::Canceled;
    if is_canceled {
        state.count("builds canceled", 1);
    } else if build.verdict != kind.verdict {
        state.violation(format!("{named} ended `{}`, not {:?}", build.text, kind.verdict));
    }
    let page = PageWanted { cursor: None, limit: Some(PAGE) };
    let refused = |error: api::client::ClientError| format!("{named}: {error}");
    let jobs = client.job_list(build.id, &JobsWanted::default(), &page).await.map_err(refused)?.items;
    let attempts = client.attempt_list(build.id, None, &page).await.map_err(refused)?.items;
    let mut asked_for = None;
    for (name, outcome, lines) in &kind.jobs {
        state.count("jobs", 1);
        let job = jobs.iter().find(|job| job.name == *name);
        let as_it_must = match job {
            // A build that was canceled before it had jobs has none.
            None => is_canceled,
            Some(job) if is_canceled => job.outcome.is_some(),
            Some(job) => job.outcome == Some(*outcome),
        };
        if !as_it_must {
            let found = job.map(|job| (job.state, job.outcome, job.cause.clone()));
            state.violation(format!("{named}: job {name} is {found:?}, not {outcome:?}"));
        }
        let attempts: Vec<_> = attempts.iter().filter(|attempt| attempt.job == *name).collect();
        let asks = kind.child.is_some() && name == ASKS;
        let most = usize::from(*outcome != OutcomeWord::Skipped && !asks);
        check_attempts(named, if is_canceled { 0..=most } else { most..=most }, job, &attempts, state);
        if asks {
            asked_for = job.and_then(|job| job.child);
        }
        for attempt in attempts {
            if build.finished.is_some_and(|finished| attempt.leased > finished) {
                state.violation(format!("{named}: attempt {} at {name} began after its end", attempt.attempt));
            }
            check_log(client, build.id, name, *lines, attempt, state).await?;
        }
    }
    Ok(asked_for)
}

/// Whether an attempt's end is the job's own word, not that of those who ran it.
fn counts(attempt: &Attempt) -> bool {
    let Some(ended) = &attempt.ended else { return false };
    ended.outcome == OutcomeWord::Passed || ended.cause.as_ref().is_some_and(|cause| cause.kind == "step")
}

/// Judges the attempts at a job, of which so many may count.
fn check_attempts(build: &str, wanted: RangeInclusive<usize>, job: Option<&Job>, attempts: &[&Attempt], state: &State) {
    let counted: Vec<_> = attempts.iter().filter(|attempt| counts(attempt)).collect();
    let name = job.map_or("?", |job| &job.name);
    if !wanted.contains(&counted.len()) {
        let ends: Vec<_> = attempts.iter().map(|attempt| (attempt.attempt, &attempt.ended)).collect();
        state.violation(format!("{build}: {} attempts at {name} count, not {wanted:?}: {ends:?}", counted.len()));
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
