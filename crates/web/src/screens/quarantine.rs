//! The tests of a project that are in quarantine: what is due, what expired, and the form for one more.

use api::page::Page;
use api::problem::Problem;
use api::quarantine::{DAY_MS, DAYS_MAX, QuarantineState, Quarantined};
use api::time::Time;
use maud::{Markup, html};

use crate::page::{Crumb, Document, Head, document};
use crate::words;
use crate::{Ask, Source, paths, read};

/// From how many passes on it is told that a test passes again.
const PASSES_MIN: u32 = 3;
/// For how many days a test is there if nobody says otherwise.
const DAYS_USUAL: u64 = 14;

/// Writes the page. `?name=`, `?suite=` and `?job=` fill in the form.
pub(crate) async fn show(source: &impl Source, ask: &Ask, project: &str) -> Result<Document, Problem> {
    let path = format!("/api/v1/projects/{}/quarantine?runs=true", paths::encoded(project));
    let tests = read::<Page<Quarantined>>(source, &path).await?.items;
    let own = format!("{}/quarantine", paths::project(project));
    let main = html! {
        h1 { "Quarantine" }
        p.quiet { "Tests that come and go, told apart from other failures until somebody mends them. They fail a job as before unless its own script heeds " code { "ROPEWALK_QUARANTINE" } ", which names them to the steps of builds that are asked for from then on." }
        (list(&tests, project, &own))
        section.settings #new { h2 { "One more" } (form([ask.text("suite"), ask.text("name"), ask.text("job")], &own, ask)) }
    };
    let crumbs = vec![Crumb::new(project, paths::project(project)), Crumb::new("Quarantine", own)];
    Ok(document(&Head { title: &format!("Quarantine of {project}"), crumbs, stream: None }, &main))
}

fn list(tests: &[Quarantined], project: &str, own: &str) -> Markup {
    let count = |state| tests.iter().filter(|test| test.state == state).count() as u64;
    let (expired, soon) = (count(QuarantineState::Expired), count(QuarantineState::EndsSoon));
    html! {
        @if tests.is_empty() { p.empty { "No test is in quarantine." } }
        @else {
            @if expired + soon > 0 {
                p.quarantine-due {
                    @if expired > 0 { strong { (words::count(expired, "quarantine has", "quarantines have")) " expired" } " and counts no more: mend the test, or say anew why it may wait. " }
                    @if soon > 0 { (words::count(soon, "ends", "end")) " within seven days." }
                }
            }
            table.list.entries.quarantine {
                thead { tr { th { "Test" } th { "Owner and reason" } th { "Until" } th.wide { "Put there" } th { span.unseen { "What to do" } } } }
                tbody { @for test in tests { (row(test, project, own)) } }
            }
        }
    }
}

fn row(test: &Quarantined, project: &str, own: &str) -> Markup {
    html! {
        tr {
            td {
                a.name href=(history(test, project)) { code { (title(test)) } }
                span.why { @match &test.job { Some(job) => { "as " (job) " reports it" } None => { "in any job" } } }
                (passes(test.passed_last))
            }
            td { strong { (test.owner) } span.why { (test.reason) } }
            td { (words::day(test.until)) (state(test.state)) }
            td.wide { (words::day(test.at)) " by " (test.by) }
            td { (remove(test, own)) }
        }
    }
}

/// Whether it may go home.
fn passes(n: Option<u32>) -> Markup {
    html! { @if let Some(n) = n.filter(|n| *n >= PASSES_MIN) { span.why { strong { "passed the last " (n) " times" } "; it may not need to be here" } } }
}

fn state(state: QuarantineState) -> Markup {
    html! {
        @match state {
            QuarantineState::Expired => { " " span.tag { "expired" } }
            QuarantineState::EndsSoon => { " " span.tag { "ends soon" } }
            QuarantineState::InForce => {}
        }
    }
}

fn title(test: &Quarantined) -> String {
    if test.suite.is_empty() { test.name.clone() } else { format!("{} {}", test.suite, test.name) }
}

fn history(test: &Quarantined, project: &str) -> String {
    let job = test.job.as_ref().map_or_else(String::new, |job| format!("&job={}", paths::encoded(job)));
    let [name, suite] = [&test.name, &test.suite].map(|text| paths::encoded(text));
    format!("{}/tests?name={name}&suite={suite}{job}", paths::project(project))
}

fn remove(test: &Quarantined, own: &str) -> Markup {
    html! {
        form method="post" action=(format!("{own}/remove")) {
            input type="hidden" name="suite" value=(test.suite);
            input type="hidden" name="name" value=(test.name);
            @if let Some(job) = &test.job { input type="hidden" name="job" value=(job); }
            button aria-label=(format!("Take out of quarantine: {}", title(test))) { "Take out" }
        }
    }
}

/// The form that puts a test there, or changes what is said of it.
fn form([suite, name, job]: [&str; 3], own: &str, ask: &Ask) -> Markup {
    let in_days = |days: u64| words::day(Time(ask.now.plus_ms(days * DAY_MS)));
    html! {
        form.tall method="post" action=(own) {
            label { "Suite " input name="suite" value=(suite) autocomplete="off" spellcheck="false" placeholder="as its report has it; none if empty"; }
            label { "Test " input name="name" value=(name) required autocomplete="off" spellcheck="false" placeholder="its name within the suite"; }
            label { "Only as this job reports it " input name="job" value=(job) autocomplete="off" spellcheck="false" placeholder="any job"; }
            label { "Owner " input name="owner" required maxlength="100" placeholder="who looks after it"; }
            label { "Reason " input name="reason" required maxlength="300" placeholder="why it may wait; an issue"; }
            label { "Until the end of " input type="date" name="until" required min=(in_days(0)) max=(in_days(DAYS_MAX - 1)) value=(in_days(DAYS_USUAL)); }
            p { button.main { "Put into quarantine" } }
        }
    }
}

/// What stands on the page of one test: what is said of it, or the way to the form. Of several which differ by job, all.
pub(crate) fn of_test(tests: &[Quarantined], project: &str, ask: &Ask) -> Markup {
    let own = format!("{}/quarantine", paths::project(project));
    let [name, suite, job] = ["name", "suite", "job"].map(|text| ask.text(text));
    let is_it = |test: &&Quarantined| {
        test.name == name && test.suite == suite && (job.is_empty() || test.job.as_deref().is_none_or(|of| of == job))
    };
    let found: Vec<&Quarantined> = tests.iter().filter(is_it).collect();
    html! {
        @for test in &found {
            div.hold {
                p {
                    span.tag { @if test.state == QuarantineState::Expired { "was in quarantine" } @else { "in quarantine" } } " "
                    strong { (test.owner) } " until " (words::day(test.until)) (state(test.state)) ": " (test.reason)
                    @if let Some(job) = &test.job { span.quiet { " · as " (job) " reports it" } }
                }
                (remove(test, &own))
            }
        }
        p.quiet { a href=(format!("{own}?name={}&suite={}&job={}#new", paths::encoded(name), paths::encoded(suite), paths::encoded(job))) {
            @if found.is_empty() { "Put it into quarantine" } @else { "Say something else of it" }
        } }
    }
}
