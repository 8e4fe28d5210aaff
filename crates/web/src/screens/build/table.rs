//! All jobs in rows that can be sorted, each leg of a matrix in a row of its own.

use api::job::Job;
use maud::{Markup, html};

use super::jobs::{Choice, ROWS_MAX, Sort};
use super::{Shown, title, tree};
use crate::words::{self, Standing};
use crate::{Ask, paths};

/// The table.
pub(crate) fn show(shown: &Shown, choice: &Choice, ask: &Ask) -> Markup {
    let mut wanted = choice.wanted(&shown.jobs);
    sort(&mut wanted, choice.sort, ask);
    let head = |sort: Sort, text: &str| {
        let is_this = choice.sort == sort;
        // A second time takes the order back.
        let to = if is_this { "" } else { sort.word() };
        html! { a data-in-page href=(choice.link(&[("sort", to)])) { (text) @if is_this { " ↓" } } }
    };
    let order = |sort: Sort| (choice.sort == sort).then_some("descending");
    html! {
        p.states { "Show " a data-in-page href=(choice.link(&[("state", "")])) aria-current=[choice.state.is_none().then_some("true")] { "all" }
            @for standing in Standing::ALL {
                @let n = shown.jobs.iter().filter(|job| Standing::of_job(job) == standing).count();
                @if n > 0 { " " a data-in-page href=(choice.link(&[("state", standing.word())])) aria-current=[(choice.state == Some(standing)).then_some("true")] { (n) " " (standing.word()) } }
            }
        }
        table.list.jobs {
            thead { tr {
                th aria-sort=[order(Sort::State)] { a data-in-page href=(choice.link(&[("sort", if choice.sort == Sort::State { "" } else { "state" })])) aria-label="State" title="Sort by state" { "⇅" } }
                th aria-sort=[order(Sort::Name)] { (head(Sort::Name, "Job")) }
                th.number aria-sort=[order(Sort::Took)] { (head(Sort::Took, "Took")) }
                th.number.wide { "Usually" }
                th.number.wide aria-sort=[order(Sort::Began)] { (head(Sort::Began, "Began")) }
                th.number.wide { "Tries" }
            } }
            tbody { @for job in wanted.iter().skip(choice.from).take(ROWS_MAX) { (row(job, shown, ask)) } }
        }
        (tree::pager(wanted.len(), ROWS_MAX, choice))
    }
}

fn sort(jobs: &mut [&Job], by: Sort, ask: &Ask) {
    match by {
        Sort::Pipeline => {}
        Sort::State => jobs.sort_by_key(|job| Standing::of_job(job)),
        Sort::Name => jobs.sort_by(|left, right| left.name.cmp(&right.name)),
        Sort::Took => jobs.sort_by_key(|job| std::cmp::Reverse(words::took(job.started, job.finished, ask.now))),
        // What has not begun stands last.
        Sort::Began => jobs.sort_by_key(|job| (job.started.is_none(), job.started)),
    }
}

fn row(job: &Job, shown: &Shown, ask: &Ask) -> Markup {
    let standing = Standing::of_job(job);
    html! {
        tr class=(standing.word()) #(format!("job-{}", job.name)) {
            td { (standing.mark()) }
            td {
                a.name href=(paths::job(job.build, &job.name)) { (title(job)) }
                @if let Some(child) = job.child { " " span.tag { a href=(paths::build(child)) { "build " (child) } } }
                @if let Some(from) = &job.reused { " " span.tag { "cached from " a href=(paths::build(from.build)) { "build " (from.build) } } }
                @if job.gate { " " span.tag { "gate" } }
                (words::may_fail(job))
                @if let Some(cause) = &job.cause { span.why { (words::marked(&cause.text)) } }
                @if let Some(waiting) = shown.waiting.get(&job.name) { span.why { (words::marked(&waiting.text)) } }
            }
            td.number { @if let Some(ms) = words::took(job.started, job.finished, ask.now) { (words::against_usual(ms, job.usual_ms)) } }
            td.number.wide { @if let Some(ms) = job.usual_ms { (words::duration(ms)) } }
            td.number.wide { @if let Some(at) = job.started { "+" (words::duration(at.0.ms_since(shown.build.created.0))) } }
            td.number.wide { @if job.attempts > 1 { a href=(paths::attempts(job.build, &job.name)) { (job.attempts) } } @else if job.attempts == 0 && job.child.is_some() { "–" } @else { (job.attempts) } }
        }
    }
}
