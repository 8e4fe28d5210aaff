//! The tests of a build: failures first, new ones told from those that were there before and those that come and go.

use api::build::Build;
use api::job::{Test, TestOutcome};
use api::page::Page;
use api::problem::Problem;
use api::test_history::{BuildName, FailureKind, NeverRun, TestFailure, TestSummary};
use maud::{Markup, html};

use super::projects::name;
use crate::page::{Crumb, Document, Head, document};
use crate::words::{self, Standing};
use crate::{Ask, Source, paths, read};

/// How many tests the list below has.
const TESTS: u32 = 100;
/// How many failures are open when the page is.
const OPEN: usize = 3;
/// The form of the tests that are chosen.
const CHOSEN: &str = "retry-chosen";
/// How tests may have ended, as the API says it.
const OUTCOMES: [&str; 4] = ["passed", "failed", "errored", "skipped"];
/// The kinds of failures in the order shown: heading, and what it means.
const KINDS: [(FailureKind, &str, &str); 4] = [
    (FailureKind::New, "New failures", "They passed, or were not there, in the build before."),
    (FailureKind::Flaky, "Come and go", "They passed and failed on the same commit."),
    (FailureKind::Known, "Failed before too", "They failed in the build before as well."),
    (
        FailureKind::Quarantined,
        "In quarantine",
        "Somebody looks after them. Whether they fail their job is for its own script to say.",
    ),
];

/// Writes the page.
pub(crate) async fn show(source: &impl Source, ask: &Ask, build: &str) -> Result<Document, Problem> {
    let api = format!("/api/v1/builds/{}", paths::encoded(build));
    let build: Build = read(source, &api).await?;
    let summary: TestSummary = read(source, &format!("{api}/tests/summary")).await?;
    let filter: String = ["outcome", "job", "cursor"]
        .iter()
        .filter(|name| !ask.text(name).is_empty())
        .map(|name| format!("&{name}={}", paths::encoded(ask.text(name))))
        .collect();
    let tests: Page<Test> = read(source, &format!("{api}/tests?newest=true&limit={TESTS}{filter}")).await?;
    let own = format!("{}/tests", paths::build(build.id));
    let main = html! {
        header.build #tests-header data-live { (header(&build, &summary)) }
        div #failures data-live {
            @for (kind, title, meaning) in KINDS { (of_kind(&build, &summary, kind, (title, meaning), ask)) }
            @if summary.failures_left_off > 0 { p.quiet { (summary.failures_left_off) " more failed; the list below has them all." } }
        }
        div #others data-live { (brief_list(&build, "Passed only on a later try", &summary.unsteady)) (brief_list(&build, "Slowest", &summary.slowest)) }
        @if summary.passed + summary.failed + summary.skipped > 0 { section aria-labelledby="all-title" {
            h2 #all-title { "All tests" }
            (filters(&own, ask))
            (list(&build, &tests.items))
            @if let Some(next) = &tests.next { p.pager { a rel="next" href=(pager(&own, ask, next)) { "More tests" } } }
        } }
    };
    let mut crumbs = Vec::new();
    if !build.project.is_empty() {
        crumbs.push(Crumb::new(&build.project, paths::project(&build.project)));
    }
    crumbs.push(Crumb::new(name(&build), paths::build(build.id)));
    crumbs.push(Crumb::new("Tests", own));
    let stream = build.finished.is_none().then(|| format!("{api}/stream?logs=false"));
    let title = format!("Tests of {} {}", build.project, name(&build));
    Ok(document(&Head { title: &title, crumbs, stream }, &main))
}

fn header(build: &Build, summary: &TestSummary) -> Markup {
    let count = |kind| summary.failures.iter().filter(|failure| failure.kind == kind).count();
    let kinds = [
        (count(FailureKind::New), "new"),
        (count(FailureKind::Flaky), "coming and going"),
        (count(FailureKind::Known), "failing before"),
        (count(FailureKind::Quarantined), "in quarantine"),
    ];
    let kinds: Vec<String> = kinds.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    let total = summary.passed + summary.failed + summary.skipped;
    let jobs: std::collections::BTreeSet<&str> =
        summary.failures.iter().map(|failure| failure.test.job.as_str()).collect();
    html! {
        h1 { "Tests" }
        @if total == 0 {
            p.empty { "No job of this build has reported tests. A job reports those of JUnit files that it names under " code { "reports" } ", for instance " code { "reports: { junit: target/junit.xml }" } "." }
        } @else {
            p.verdict.(if summary.failed > 0 { "failed" } else { "passed" }) {
                @if summary.failed > 0 { (summary.failed) " of " (total) " failed" @if !kinds.is_empty() { ": " (kinds.join(", ")) } } @else { "None of " (total) " failed" }
            }
            p.quiet { (summary.passed) " passed" @if summary.skipped > 0 { ", " (summary.skipped) " skipped" } @if !summary.compared.is_empty() { " · compared with " (words::count(summary.compared.len() as u64, "build", "builds")) " before, back to " (link(summary.compared.last())) } }
        }
        @if !jobs.is_empty() && build.finished.is_some() {
            div.actions {
                form method="post" action=(format!("{}/retry", paths::build(build.id))) {
                    input type="hidden" name="what" value="failed_tests";
                    button.main { "Retry the failing tests" }
                }
                form #(CHOSEN) method="post" action=(format!("{}/retry", paths::build(build.id))) {
                    input type="hidden" name="what" value="tests";
                    button { "Retry just these" }
                }
                form method="post" action=(format!("{}/retry", paths::build(build.id))) {
                    input type="hidden" name="what" value="jobs";
                    input type="hidden" name="jobs" value=(serde_json::to_string(&jobs).unwrap_or_default());
                    button { "Retry " (words::count(jobs.len() as u64, "job", "jobs")) " with failures, whole" }
                }
            }
        }
        @if build.finished.is_some() { @for never_run in &summary.never_run { (never_ran(build, never_run)) } }
    }
}

/// That tests were left out, which a retry of those that failed does not mend.
fn never_ran(build: &Build, never_run: &NeverRun) -> Markup {
    let NeverRun { job, tests, first, passed_in } = never_run;
    let left_off = tests.saturating_sub(first.len() as u64);
    html! {
        details.remark {
            summary {
                (words::count(*tests, "test", "tests")) " of " a href=(paths::job(build.id, job)) { (job) } " never ran in this build, though "
                @if *tests == 1 { "it" } @else { "they" } " did when the job last passed whole, in " a href=(paths::job(*passed_in, job)) { "build " (passed_in) }
                ". Unless a retry runs them too, only the whole job can pass."
            }
            ul { @for name in first { li { code { (name) } } } @if left_off > 0 { li.quiet { (left_off) " more" } } }
        }
    }
}

fn link(name: Option<&BuildName>) -> Markup {
    html! {
        @if let Some(name) = name {
            a href=(paths::build(name.build)) { @if let Some(number) = name.number { "#" (number) } @else { "build " (name.build) } }
            @if let Some(commit) = &name.commit { " " code.quiet { (commit.get(..8).unwrap_or(commit)) } }
        }
    }
}

fn of_kind(
    build: &Build,
    summary: &TestSummary,
    kind: FailureKind,
    (title, meaning): (&str, &str),
    ask: &Ask,
) -> Markup {
    let failures: Vec<&TestFailure> = summary.failures.iter().filter(|failure| failure.kind == kind).collect();
    html! {
        @if !failures.is_empty() {
            section.failures {
                h2 { (title) " " span.quiet { (failures.len()) } }
                p.quiet { (meaning) }
                @for (index, failure) in failures.iter().enumerate() {
                    div.choice {
                    @if build.finished.is_some() { input type="checkbox" form=(CHOSEN) name=(format!("test.{}-{index}", word(kind))) value=(format!("{}\t{}\t{}", failure.test.job, failure.test.suite, failure.test.name)) aria-label=(format!("Retry {}", full_name(&failure.test))); }
                    details.test.failed #(format!("{}-{index}", word(kind))) open[matches!(kind, FailureKind::New | FailureKind::Flaky) && index < OPEN] {
                        summary { (Standing::Failed.mark()) " " code { (full_name(&failure.test)) } " " span.quiet { (failure.test.job) " · " (words::duration(failure.test.duration_ms)) } @if let Some(note) = &failure.test.quarantine { span.why { (words::quarantined(note)) } } }
                        (failed(build, failure, ask))
                    }
                    }
                }
            }
        }
    }
}

fn word(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::New => "new",
        FailureKind::Flaky => "flaky",
        FailureKind::Known => "known",
        FailureKind::Quarantined => "quarantined",
    }
}

fn full_name(test: &Test) -> String {
    match (test.suite.as_str(), test.name.as_str()) {
        ("", "") => "a test without a name".to_owned(),
        ("", name) => name.to_owned(),
        (suite, "") => format!("{suite}, a test without a name"),
        (suite, name) => format!("{suite} {name}"),
    }
}

/// What one failure says, and where to go on from it.
fn failed(build: &Build, failure: &TestFailure, ask: &Ask) -> Markup {
    let test = &failure.test;
    let of_job = paths::job(build.id, &test.job);
    html! {
        p.story {
            @if failure.since.build == build.id { "Fails since this build" @if let Some(commit) = &failure.since.commit { " " code.quiet { (commit.get(..8).unwrap_or(commit)) } } } @else { "Fails since " (link(Some(&failure.since))) }
            @if let Some(passed) = &failure.passed { "; passed last in " (link(Some(passed))) }
            @if let Some(outcome) = failure.on_default_branch { "; " (match outcome { TestOutcome::Passed => "passes", TestOutcome::Skipped => "is skipped", TestOutcome::Failed | TestOutcome::Errored => "fails too" }) " on the default branch" }
            "."
        }
        @if !test.message.is_empty() { (message(&test.message)) }
        @if !test.output.is_empty() { h3 { "What it printed" } pre.output { (test.output) } }
        p.ways {
            a href=(format!("{of_job}?attempt={}&q={}", test.attempt, paths::encoded(&as_regex(&test.name)))) { "In the log" }
            a href=(format!("{of_job}?attempt={}#open-shell", test.attempt)) { "Shell" }
            a href=(history(build, test)) { "History" }
            @if !build.project.is_empty() && test.quarantine.is_none() { a href=(quarantine(build, test)) { "Quarantine" } }
        }
        p.quiet { "Look where it ran: " code { "ropewalk shell " (build.id) " " (words::quoted(&format!("{}@failed", test.job))) " --server " (words::quoted(&ask.address)) } " · run its job here: " code { "ropewalk run --job " (words::quoted(&test.job)) } }
    }
}

/// A text as a regular expression that matches it alone.
fn as_regex(text: &str) -> String {
    let mut regex = String::with_capacity(text.len());
    for letter in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(letter) {
            regex.push('\\');
        }
        regex.push(letter);
    }
    regex
}

/// A failure's message: of a difference what is there and what is not told apart.
fn message(text: &str) -> Markup {
    let class = |line: &str| match line.trim_start() {
        line if line.starts_with('+') || line.starts_with("right:") || line.starts_with("actual") => Some("added"),
        line if line.starts_with('-') || line.starts_with("left:") || line.starts_with("expected") => Some("removed"),
        _ => None,
    };
    html! { pre.difference { @for line in text.lines() { span class=[class(line)] { (line) } "\n" } } }
}

/// Where the history of a test is.
fn history(build: &Build, test: &Test) -> String {
    let [name, suite, job] = [&test.name, &test.suite, &test.job].map(|text| paths::encoded(text));
    format!("{}/tests?name={name}&suite={suite}&job={job}", paths::project(&build.project))
}

/// Where a test is put into quarantine.
fn quarantine(build: &Build, test: &Test) -> String {
    let [name, suite, job] = [&test.name, &test.suite, &test.job].map(|text| paths::encoded(text));
    format!("{}/quarantine?name={name}&suite={suite}&job={job}#new", paths::project(&build.project))
}

fn brief_list(build: &Build, title: &str, tests: &[Test]) -> Markup {
    html! { @if !tests.is_empty() { section { h2 { (title) } (list(build, tests)) } } }
}

fn list(build: &Build, tests: &[Test]) -> Markup {
    html! {
        @if tests.is_empty() { p.empty { "No test is like that." } }
        @else {
            table.list {
                thead { tr { th { span.unseen { "State" } } th { "Test" } th.wide { "Job" } th.number { "Took" } } }
                tbody { @for test in tests {
                    @let standing = Standing::of_test(test.outcome);
                    tr class=(standing.word()) {
                        td { (standing.mark()) }
                        td { a.name href=(history(build, test)) { code { (full_name(test)) } } @if let Some(note) = &test.quarantine { span.why { (words::quarantined(note)) } } }
                        td.wide { a href=(paths::job(build.id, &test.job)) { (test.job) } }
                        td.number { (words::duration(test.duration_ms)) }
                    }
                } }
            }
        }
    }
}

fn filters(own: &str, ask: &Ask) -> Markup {
    html! {
        form.filters method="get" action=(format!("{own}#all-title")) role="search" {
            label { "Ended " select name="outcome" {
                option value="" { "any way" }
                @for word in OUTCOMES { option value=(word) selected[ask.text("outcome") == word] { (word) } }
            } }
            label { "Job " input #search type="search" name="job" value=(ask.text("job")) placeholder="any"; }
            button { "Show" }
            @if ["outcome", "job"].iter().any(|name| !ask.text(name).is_empty()) { a href=(own) { "Show all" } }
        }
    }
}

fn pager(own: &str, ask: &Ask, next: &str) -> String {
    let [outcome, job] = ["outcome", "job"].map(|name| paths::encoded(ask.text(name)));
    format!("{own}?outcome={outcome}&job={job}&cursor={}#all-title", paths::encoded(next))
}

#[cfg(test)]
mod escapes {
    use super::*;

    #[test]
    fn names_are_regular_expressions() {
        assert_eq!(as_regex("a[1].b(c)"), r"a\[1\]\.b\(c\)");
    }
}
