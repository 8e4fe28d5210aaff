//! The attempts of a job side by side: how each ended, on which worker, and what each step took, so that it is seen where they differ.

use api::job::{Attempt, Job, Step, Test};
use api::page::Page;
use api::problem::Problem;
use maud::{Markup, html};

use super::build::title;
use super::projects::name;
use crate::page::{Crumb, Document, Head, document};
use crate::words::{self, Standing};
use crate::{Ask, Source, paths, read};

/// The most attempts that stand side by side: the last ones.
const ATTEMPTS_MAX: usize = 6;
/// The most steps that are compared.
const STEPS_MAX: usize = 200;
/// The most tests that are listed.
const TESTS_MAX: u32 = 50;

/// Writes the page.
pub(crate) async fn show(source: &impl Source, ask: &Ask, build: &str, job: &str) -> Result<Document, Problem> {
    let build: api::build::Build = read(source, &format!("/api/v1/builds/{}", paths::encoded(build))).await?;
    let job: Job = read(source, &paths::api_job(build.id, job)).await?;
    let of_build = format!("/api/v1/builds/{}", build.id);
    let of_job = format!("{of_build}/attempts?job={}&reports=true&limit=1000", paths::encoded(&job.name));
    let mut attempts = read::<Page<Attempt>>(source, &of_job).await?.items;
    let left_out = attempts.len().saturating_sub(ATTEMPTS_MAX);
    attempts.drain(..left_out);
    let of_tests = format!(
        "{of_build}/tests?job={}&outcome=failed,errored&newest=true&limit={TESTS_MAX}",
        paths::encoded(&job.name)
    );
    let failed = read::<Page<Test>>(source, &of_tests).await?.items;
    let main = html! {
        h1 { (title(&job)) ", try by try" }
        @if attempts.is_empty() { p.empty { "Nobody has tried it yet." } }
        @else {
            @if left_out > 0 { p.quiet { "The last " (ATTEMPTS_MAX) " of " (left_out + ATTEMPTS_MAX) " tries." } }
            (compared(&attempts, left_out, &job, ask))
            @if !failed.is_empty() { section aria-labelledby="failed-title" { h2 #failed-title { "Tests that failed in the last try" } ul { @for test in &failed { li { code { (test.suite) " " (test.name) } } } } } }
        }
    };
    let mut crumbs = Vec::new();
    if !build.project.is_empty() {
        crumbs.push(Crumb::new(&build.project, paths::project(&build.project)));
    }
    crumbs.push(Crumb::new(name(&build), paths::build(build.id)));
    crumbs.push(Crumb::new(&job.name, paths::job(build.id, &job.name)));
    crumbs.push(Crumb::new("tries", paths::attempts(build.id, &job.name)));
    let title = format!("tries of {}", title(&job));
    Ok(document(&Head { title: &title, crumbs, stream: None }, &main))
}

fn steps(attempt: &Attempt) -> &[Step] {
    attempt.ended.as_ref().and_then(|end| end.report.as_ref()).map_or(&[], |report| &report.steps)
}

fn standing(attempt: &Attempt) -> Standing {
    attempt.ended.as_ref().map_or(Standing::Running, |end| Standing::of_outcome(end.outcome))
}

/// A retry by a person counts its tries anew, so columns are numbered by place.
fn compared(attempts: &[Attempt], left_out: usize, job: &Job, ask: &Ask) -> Markup {
    let own = paths::job(job.build, &job.name);
    let most = attempts.iter().map(|attempt| steps(attempt).len()).max().unwrap_or(0);
    let fact = |text: &str, of: &dyn Fn(&Attempt) -> Markup| {
        html! { tr { th scope="row" { (text) } @for attempt in attempts { td { (of(attempt)) } } } }
    };
    html! {
        div.wide-table tabindex="0" role="region" aria-label="The tries, side by side" {
            table.list.tries {
                thead { tr { th { span.unseen { "What" } } @for (index, attempt) in attempts.iter().enumerate() { th scope="col" { a href=(format!("{own}?attempt={}", attempt.attempt)) { (standing(attempt).mark()) " try " (left_out + index + 1) } } } } }
                tbody {
                    (fact("Ended", &|attempt| html! { (standing(attempt).word()) @if let Some(cause) = attempt.ended.as_ref().and_then(|end| end.cause.as_ref()) { span.why { (words::marked(&cause.text)) } } }))
                    (fact("Began", &|attempt| words::ago(attempt.leased, ask.now)))
                    (fact("Took", &|attempt| html! { (words::duration(attempt.ended.as_ref().map_or(ask.now, |end| end.finished.0).ms_since(attempt.leased.0))) }))
                    (fact("Worker", &|attempt| html! { span title=(attempt.worker) { (words::worker(attempt)) } }))
                    (fact("Tests", &|attempt| html! { @if let Some(end) = attempt.ended.as_ref().filter(|end| end.tests > 0) { (end.tests_failed) " failed of " (end.tests) } @if let Some(partial) = attempt.partial { span.why { "asked for " (graph::Partial::from(partial)) } } }))
                    (fact("Peak memory", &|attempt| html! { @if let Some(report) = attempt.ended.as_ref().and_then(|end| end.report.as_ref()) { (words::size(report.usage.peak_memory_bytes)) } }))
                    @for index in 0..most.min(STEPS_MAX) { (step_row(attempts, index, &own)) }
                }
            }
        }
        @if most > STEPS_MAX { p.quiet { "Only the first " (STEPS_MAX) " steps are compared." } }
    }
}

/// One step in all attempts; marked if they did not end alike.
fn step_row(attempts: &[Attempt], index: usize, own: &str) -> Markup {
    let of: Vec<Option<&Step>> = attempts.iter().map(|attempt| steps(attempt).get(index)).collect();
    let name = of.iter().flatten().map(|step| step.name.as_str()).next_back().unwrap_or_default();
    let mut results = of.iter().flatten().map(|step| step.result);
    let first = results.next();
    let differs = results.any(|result| Some(result) != first);
    html! {
        tr.differs[differs] {
            th scope="row" { code { (words::first_line(name)) } @if differs { " " span.tag { "differs" } } }
            @for (attempt, step) in attempts.iter().zip(&of) {
                td { @if let Some(step) = step {
                    a href=(format!("{own}?attempt={}&step={index}", attempt.attempt)) { (Standing::of_step(step.result).mark()) " " (words::duration(step.finished.0.ms_since(step.started.0))) }
                    @if let Some(exit) = step.exit.filter(|exit| *exit != 0) { span.quiet { " exit " (exit) } }
                } }
            }
        }
    }
}
