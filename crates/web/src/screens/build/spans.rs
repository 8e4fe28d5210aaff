//! The steps of a job whose row of the waterfall is open: a row each, on the time scale of the whole build.

use api::job::{Job, Step, StepResult, Usage};
use graph::Timestamp;
use maud::{Markup, html};

use super::Tried;
use super::waterfall::{Times, WIDTH};
use crate::paths;
use crate::words::{self, Standing};

/// The most steps that are shown of one open job; all of them stand on its page.
const STEPS_MAX: usize = 50;

/// A step in time.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    attempt: u32,
    try_number: u32,
    index: usize,
    name: String,
    standing: Standing,
    exit: Option<i32>,
    from: Timestamp,
    to: Timestamp,
    /// What its processes used; nothing of one that goes on.
    usage: Usage,
}

impl Span {
    fn of_report(tried: &Tried, index: usize, step: &Step) -> Self {
        Self {
            attempt: tried.attempt.attempt,
            try_number: tried.attempt.try_number,
            index,
            name: words::first_line(&step.name),
            standing: Standing::of_step(step.result),
            exit: step.exit.filter(|exit| *exit != 0 && step.result == StepResult::Failed),
            from: step.started.0,
            to: step.finished.0.max(step.started.0),
            usage: step.usage,
        }
    }

    /// What the row says to whoever does not see the bar, and when it is pointed at.
    fn said(&self) -> String {
        let took = words::duration(self.to.ms_since(self.from));
        let exit = self.exit.map_or_else(String::new, |exit| format!(", exit {exit}"));
        match self.standing {
            Standing::Skipped => "skipped".to_owned(),
            standing => {
                let used = words::used(self.usage).map_or_else(String::new, |used| format!("; {used}"));
                format!("{} {took}{exit}{used}", standing.word())
            }
        }
    }
}

/// The steps of these attempts, in order: those that were reported; of one that goes on, those that have printed something, each until the
/// next began to print.
fn spans(tried: &[Tried], now: Timestamp) -> Vec<Span> {
    let mut spans = Vec::new();
    for one in tried {
        let report = one.attempt.ended.as_ref().and_then(|end| end.report.as_ref());
        if let Some(report) = report {
            spans.extend(report.steps.iter().enumerate().map(|(index, step)| Span::of_report(one, index, step)));
            continue;
        }
        let logs = one.printed.as_ref().map_or(&[][..], |printed| &printed.steps);
        for (place, log) in logs.iter().enumerate() {
            let next = logs.get(place + 1).map(|next| next.first.0);
            spans.push(Span {
                attempt: one.attempt.attempt,
                try_number: one.attempt.try_number,
                index: log.step.into(),
                name: format!("step {}", log.step + 1),
                standing: if next.is_none() { Standing::Running } else { Standing::Passed },
                exit: None,
                from: log.first.0,
                to: next.unwrap_or(now).max(log.first.0),
                usage: Usage::default(),
            });
        }
    }
    spans
}

/// The rows below that of the job; steps whose name has `text` in it (in small letters, empty for none) are lit.
pub(super) fn rows(job: &Job, tried: &[Tried], times: &Times, text: &str) -> Markup {
    let spans = spans(tried, times.now);
    let own = paths::job(job.build, &job.name);
    html! {
        @for span in spans.iter().take(STEPS_MAX) {
            @let is_found = !text.is_empty() && span.name.to_lowercase().contains(text);
            li.step.(span.standing.word()) {
                div.who {
                    (span.standing.mark())
                    a.name.found[is_found] href=(format!("{own}?attempt={}&step={}", span.attempt, span.index)) { (span.name) }
                    span.quiet title=[words::used(span.usage)] { @if span.standing != Standing::Skipped { (words::duration(span.to.ms_since(span.from))) } @if let Some(exit) = span.exit { " · exit " (exit) } @if tried.len() > 1 { " · try " (span.try_number) } }
                }
                svg.waterfall viewBox=(format!("0 0 {WIDTH} 20")) preserveAspectRatio="none" role="img" aria-label=(span.said()) {
                    @if span.standing != Standing::Skipped {
                        @let from = times.scale.place(span.from).min(WIDTH - 2);
                        rect class=(span.standing.word()) x=(from) y="5" width=(times.scale.place(span.to).saturating_sub(from).max(2)) height="8" { title { (span.name) ": " (span.said()) } }
                    }
                }
            }
        }
        @if spans.is_empty() { li.step { div.who { span.quiet { "no step has begun" } } } }
        @if spans.len() > STEPS_MAX { li.step { div.who { a.more href=(own) { "all " (spans.len()) " steps" } } } }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp(second * 1_000_000)
    }

    fn tried(ended: serde_json::Value, printed: serde_json::Value) -> Tried {
        let mut attempt =
            json!({ "build": 1, "attempt": 3, "job": "a", "try": 2, "worker": "w", "leased": "1970-01-01T00:00:02Z" });
        attempt["ended"] = ended;
        Tried {
            attempt: serde_json::from_value(attempt).expect("an attempt"),
            printed: serde_json::from_value(printed).expect("a summary"),
        }
    }

    fn check(tried: Tried, expect: &[(usize, &str, Standing, u64, u64)]) {
        let spans = spans(&[tried], at(20));
        let got: Vec<(usize, &str, Standing, u64, u64)> = spans
            .iter()
            .map(|span| {
                (
                    span.index,
                    span.name.as_str(),
                    span.standing,
                    span.from.ms_since(at(0)) / 1000,
                    span.to.ms_since(at(0)) / 1000,
                )
            })
            .collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn a_step_says_what_it_used() {
        let usage = json!({ "peak_memory_bytes": 3_145_728, "cpu_user_us": 1_500_000, "cpu_system_us": 500_000 });
        let step = json!({ "name": "make", "result": "passed", "exit": 0, "lines": 0, "usage": usage,
            "started": "1970-01-01T00:00:05Z", "finished": "1970-01-01T00:00:07Z" });
        let ended = json!({
            "outcome": "passed", "started": "1970-01-01T00:00:03Z", "finished": "1970-01-01T00:00:10Z", "tests": 0, "tests_failed": 0,
            "report": { "outputs": {}, "usage": usage, "steps": [step] },
        });
        let spans = spans(&[tried(ended, json!(null))], at(20));
        let used = words::used(spans[0].usage).expect("it was counted");
        assert!(used.starts_with("processor ") && used.contains(", peak memory 3"), "{used}");
        assert!(spans[0].said().ends_with(&format!("; {used}")));
        assert_eq!(words::used(Usage::default()), None);
    }

    #[test]
    fn steps_stand_where_they_were_in_time() {
        let usage = json!({ "peak_memory_bytes": 0, "cpu_user_us": 0, "cpu_system_us": 0 });
        let step = |name: &str, result: &str, from: u64, to: u64| {
            json!({ "name": name, "result": result, "exit": 3, "lines": 0, "usage": usage,
                "started": format!("1970-01-01T00:00:{from:02}Z"), "finished": format!("1970-01-01T00:00:{to:02}Z") })
        };
        let steps = [step("make\nall", "passed", 5, 7), step("test", "failed", 7, 6), step("tell", "skipped", 9, 9)];
        let ended = json!({
            "outcome": "failed", "started": "1970-01-01T00:00:03Z", "finished": "1970-01-01T00:00:10Z", "tests": 0, "tests_failed": 0,
            "report": { "outputs": {}, "usage": usage, "steps": steps },
        });
        // A clock that was put back makes no span that ends before it begins.
        check(
            tried(ended, json!(null)),
            &[
                (0, "make", Standing::Passed, 5, 7),
                (1, "test", Standing::Failed, 7, 7),
                (2, "tell", Standing::Skipped, 9, 9),
            ],
        );
        let log = |step: u16, first: u64| json!({ "step": step, "lines": 1, "bytes": 1, "state": "open", "first": format!("1970-01-01T00:00:{first:02}Z") });
        let printed = json!({ "build": 1, "attempt": 3, "steps": [log(0, 4), log(2, 9)] });
        check(
            tried(json!(null), printed),
            &[(0, "step 1", Standing::Passed, 4, 9), (2, "step 3", Standing::Running, 9, 20)],
        );
        check(tried(json!(null), json!(null)), &[]);
    }
}
