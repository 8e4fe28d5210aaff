//! The tree beside everything: each job with its state, by the pipeline's order or by state, and the search over them.

use api::job::Job;
use maud::{Markup, html};

use super::jobs::{Choice, LEGS_MAX, Order, ROWS_MAX, Unit};
use super::{Build, title};
use crate::words::{self, Standing};
use crate::{Ask, paths};

/// The most jobs of one state that are listed below it.
const OF_STATE_MAX: usize = 50;

/// The tree with its search.
pub(crate) fn show(build: &Build, jobs: &[Job], units: &[Unit], choice: &Choice, ask: &Ask) -> Markup {
    let order = |order: Order, word: &str, text: &str| {
        let is_this = choice.order == order;
        html! { a data-in-page id=(format!("order-{word}")) href=(choice.link(&[("by", word)])) aria-current=[is_this.then_some("true")] { (text) } }
    };
    html! {
        nav.tree aria-label="Jobs" {
            form.find method="get" action=(paths::build(build.id)) role="search" {
                @for (name, value) in choice.repeated() { input type="hidden" name=(name) value=(value); }
                input #search type="search" name="q" value=(ask.text("q")) placeholder="Find jobs and steps" aria-label="Find jobs and steps" autocomplete="off";
                noscript { button { "Find" } }
            }
            p.order #tree-order data-live { (order(Order::Pipeline, "order", "Pipeline order")) (order(Order::State, "state", "By state")) }
            div #tree data-live {
                @if jobs.is_empty() { p.quiet { @if build.finished.is_some() { "It had no jobs." } @else { "No jobs yet." } } }
                @else if choice.is_narrowed() { (narrowed(jobs, choice, ask)) }
                @else if choice.order == Order::State { (by_state(jobs, choice, ask)) }
                @else { (in_order(units, choice, ask)) }
            }
        }
    }
}

/// One job.
fn row(job: &Job, ask: &Ask) -> Markup {
    let standing = Standing::of_job(job);
    html! {
        li { a.row.(standing.word()) href=(paths::job(job.build, &job.name)) {
            (standing.mark()) span.name title=(title(job)) { (title(job)) }
            span.quiet { @if let Some(child) = job.child { "build " (child) " " } @if job.attempts > 1 { "try " (job.attempts) " " } @if job.reused.is_some() { "cached" } @else if let Some(ms) = words::took(job.started, job.finished, ask.now) { (words::duration(ms)) } }
        } }
    }
}

/// The jobs that were asked for, and the way back to all.
fn narrowed(jobs: &[Job], choice: &Choice, ask: &Ask) -> Markup {
    let wanted = choice.wanted(jobs);
    let rows = wanted.iter().skip(choice.from).take(ROWS_MAX);
    html! {
        p.quiet { (words::count(wanted.len() as u64, "job", "jobs")) " of " (jobs.len()) ". " a data-in-page href=(choice.link(&[("q", ""), ("state", ""), ("family", "")])) { "All jobs" } }
        ol { @for job in rows { (row(job, ask)) } }
        (pager(wanted.len(), ROWS_MAX, choice))
    }
}

fn by_state(jobs: &[Job], choice: &Choice, ask: &Ask) -> Markup {
    html! {
        @for standing in Standing::ALL {
            @let of: Vec<&Job> = jobs.iter().filter(|job| Standing::of_job(job) == standing).collect();
            @if !of.is_empty() {
                details.family #(format!("state-{}", standing.word())) open[standing < Standing::Waiting || of.len() == jobs.len()] {
                    summary { (standing.mark()) span.name { (standing.word()) } span.quiet { (of.len()) } }
                    ol {
                        @for job in of.iter().take(OF_STATE_MAX) { (row(job, ask)) }
                        @if of.len() > OF_STATE_MAX { li { a.more data-in-page href=(choice.link(&[("state", standing.word())])) { "all " (of.len()) } } }
                    }
                }
            }
        }
    }
}

fn in_order(units: &[Unit], choice: &Choice, ask: &Ask) -> Markup {
    html! {
        ol { @for unit in units.iter().skip(choice.from).take(ROWS_MAX) {
            @if unit.is_family() {
                @let standing = unit.standing();
                @let shown = unit.legs_shown();
                li { details.family #(format!("family-{}", unit.name)) open[standing < Standing::Running || choice.unfolded.contains(unit.name)] {
                    summary class=(standing.word()) { (standing.mark()) span.name title=(unit.name) { (unit.name) } span.quiet { (unit.tally()) } }
                    ol {
                        @for job in &shown { (row(job, ask)) }
                        @if unit.jobs.len() > LEGS_MAX { li { a.more data-in-page href=(choice.link(&[("family", unit.name)])) { "all " (unit.jobs.len()) " legs" } } }
                    }
                } }
            } @else { (row(unit.jobs[0], ask)) }
        } }
        (pager(units.len(), ROWS_MAX, choice))
    }
}

/// The ways to the rows before and after; nothing if all are there.
pub(crate) fn pager(count: usize, most: usize, choice: &Choice) -> Markup {
    let from = choice.from;
    html! {
        @if count > most || from > 0 {
            p.pager {
                @if from > 0 { a data-in-page href=(choice.link(&[("from", &from.saturating_sub(most).to_string())])) { "Before" } }
                span.quiet { (from + 1) "–" (count.min(from + most)) " of " (count) }
                @if from + most < count { a data-in-page href=(choice.link(&[("from", &(from + most).to_string())])) { "After" } }
            }
        }
    }
}
