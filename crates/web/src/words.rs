//! How states, times and sizes read.

use api::build::{Build, VerdictWord};
use api::event::{Event, EventWord};
use api::job::{Attempt, Job, JobState, OutcomeWord, StepResult, TestOutcome, Usage};
use api::quarantine::QuarantineNote;
use api::time::Time;
pub use api::words::{duration, quoted, size, thousands};
use graph::Timestamp;
use maud::{Markup, html};

/// The tag of a job whose failure counts for nothing, with a space before it; nothing for any other.
#[must_use]
pub fn may_fail(job: &Job) -> Markup {
    html! { @if job.allow_failure { " " span.tag title="its failure does not fail the build" { "may fail" } } }
}

/// How something stands: what decides its colour, its sign and its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It failed: what people look for stands first.
    Failed,
    /// It asks for a person.
    Asking,
    /// It goes on.
    Running,
    /// It has not begun.
    Waiting,
    /// Somebody ended it.
    Canceled,
    /// It passed.
    Passed,
    /// It did not run.
    Skipped,
}

impl Standing {
    /// All, the first to be looked at first.
    pub const ALL: [Self; 7] =
        [Self::Failed, Self::Asking, Self::Running, Self::Waiting, Self::Canceled, Self::Passed, Self::Skipped];

    /// Its word, which is its class too.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Asking => "asking",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Canceled => "canceled",
            Self::Passed => "passed",
            Self::Skipped => "skipped",
        }
    }

    /// A sign that is told apart without colour.
    #[must_use]
    pub fn sign(self) -> &'static str {
        match self {
            Self::Failed => "✗",
            Self::Asking => "?",
            Self::Running => "●",
            Self::Waiting => "○",
            Self::Canceled => "⊘",
            Self::Passed => "✓",
            Self::Skipped => "–",
        }
    }

    /// The sign with its word for those who do not see it.
    #[must_use]
    pub fn mark(self) -> Markup {
        html! { span class=(format!("mark {}", self.word())) role="img" aria-label=(self.word()) { (self.sign()) } }
    }

    /// Of a build.
    #[must_use]
    pub fn of_build(verdict: VerdictWord, open_gates: u64) -> Self {
        match verdict {
            VerdictWord::Running if open_gates > 0 => Self::Asking,
            VerdictWord::Running => Self::Running,
            VerdictWord::Passed => Self::Passed,
            VerdictWord::Failed | VerdictWord::Diverged => Self::Failed,
            VerdictWord::Canceled => Self::Canceled,
        }
    }

    /// Of a job.
    #[must_use]
    pub fn of_job(job: &Job) -> Self {
        match (job.state, job.outcome) {
            (JobState::Running, _) => Self::Running,
            (_, Some(outcome)) => Self::of_outcome(outcome),
            (JobState::Waiting, None) if job.asking => Self::Asking,
            (JobState::Waiting | JobState::Ended, None) => Self::Waiting,
        }
    }

    /// Of an outcome.
    #[must_use]
    pub fn of_outcome(outcome: OutcomeWord) -> Self {
        match outcome {
            OutcomeWord::Passed => Self::Passed,
            OutcomeWord::Failed => Self::Failed,
            OutcomeWord::Skipped => Self::Skipped,
            OutcomeWord::Canceled => Self::Canceled,
        }
    }

    /// Of a step that has ended.
    #[must_use]
    pub fn of_step(result: StepResult) -> Self {
        match result {
            StepResult::Passed => Self::Passed,
            StepResult::Failed => Self::Failed,
            StepResult::Skipped => Self::Skipped,
            StepResult::Canceled => Self::Canceled,
        }
    }

    /// Of a test.
    #[must_use]
    pub fn of_test(outcome: TestOutcome) -> Self {
        match outcome {
            TestOutcome::Passed => Self::Passed,
            TestOutcome::Failed | TestOutcome::Errored => Self::Failed,
            TestOutcome::Skipped => Self::Skipped,
        }
    }
}

/// What follows `the last`, of a span in whole minutes: `minute`, `12 minutes`, `hour`.
#[must_use]
pub fn lately(ms: u64) -> String {
    match (ms + 30_000) / 60_000 {
        0 | 1 => "minute".to_owned(),
        60 => "hour".to_owned(),
        minutes => format!("{minutes} minutes"),
    }
}

/// `1 job`, `2,000 jobs`.
#[must_use]
pub fn count(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", thousands(n), if n == 1 { one } else { many })
}

/// A point in time: how long ago for who reads, the clock's in the reader's zone once the browser has seen it.
#[must_use]
pub fn ago(at: Time, now: Timestamp) -> Markup {
    html! { time datetime=(at) title=(at) { (api::words::ago(now.ms_since(at.0))) } }
}

/// How long a span took, or takes so far; `None` if it has not begun.
#[must_use]
pub fn took(started: Option<Time>, finished: Option<Time>, now: Timestamp) -> Option<u64> {
    started.map(|started| finished.map_or(now, |finished| finished.0).ms_since(started.0))
}

/// A duration beside what is usual: the mark says when it took at least a quarter more or less.
#[must_use]
pub fn against_usual(ms: u64, usual_ms: Option<u64>) -> Markup {
    let Some(usual) = usual_ms.filter(|usual| *usual >= 1_000) else { return html! { (duration(ms)) } };
    let title = format!("usually {}", duration(usual));
    let sign = if ms > usual + usual / 4 {
        html! { " " span.slower aria-label="slower than usual" { "▲" } }
    } else if ms + usual / 4 < usual {
        html! { " " span.faster aria-label="faster than usual" { "▼" } }
    } else {
        html! {}
    };
    html! { span title=(title) { (duration(ms)) (sign) } }
}

/// What happened, in a few words: `push to main`, `pull request 12`.
#[must_use]
pub fn happening(event: &Event) -> String {
    let of = |word: &str, joint: &str, what: &Option<String>| {
        what.as_ref().map_or_else(|| word.to_owned(), |what| format!("{word} {joint}{what}"))
    };
    match event.kind {
        EventWord::Push => of("push", "to ", &event.branch),
        EventWord::Tag => of("tag", "", &event.tag),
        EventWord::PullRequest => {
            event.pull_request.map_or_else(|| "pull request".to_owned(), |number| format!("pull request {number}"))
        }
        EventWord::Schedule => of("schedule", "on ", &event.branch),
        EventWord::Manual => of("by hand", "on ", &event.branch),
        EventWord::Api => of("by a program", "on ", &event.branch),
        EventWord::Build => event
            .parent
            .as_ref()
            .map_or_else(|| "by a build".to_owned(), |parent| format!("by build {} ({})", parent.build, parent.job)),
        EventWord::Command => of("command", "", &event.command),
    }
}

/// How a build stands, in a word or two.
#[must_use]
pub fn verdict_short(build: &Build) -> &'static str {
    match Standing::of_build(build.verdict, build.open_gates) {
        Standing::Asking => "waits for an answer",
        standing => standing.word(),
    }
}

/// What processes used; `None` if nothing counted it.
#[must_use]
pub fn used(usage: Usage) -> Option<String> {
    let cpu_us = usage.cpu_user_us + usage.cpu_system_us;
    (usage != Usage::default())
        .then(|| format!("processor {}, peak memory {}", duration(cpu_us / 1000), size(usage.peak_memory_bytes)))
}

/// A worker by its name, else by the beginning of its id.
#[must_use]
pub fn worker(attempt: &Attempt) -> &str {
    match attempt.worker_name.as_str() {
        "" => attempt.worker.get(..16).unwrap_or(&attempt.worker),
        name => name,
    }
}

/// What is said of a test in quarantine.
#[must_use]
pub fn quarantined(note: &QuarantineNote) -> String {
    format!("quarantined by {} until {}: {}", note.owner, day(note.until), note.reason)
}

/// The day of a time, in UTC.
#[must_use]
pub fn day(at: Time) -> String {
    at.to_string().chars().take(10).collect()
}

/// The first line of a message, cut at 100 letters.
#[must_use]
pub fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut cut: String = line.chars().take(100).collect();
    if cut.len() < line.len() {
        cut.push('…');
    }
    cut
}

/// A sentence in which what stands between backticks is code.
#[must_use]
pub fn marked(text: &str) -> Markup {
    let parts: Vec<&str> = text.split('`').collect();
    // A backtick without another one is a letter like others.
    let paired = parts.len() - (parts.len() + 1) % 2;
    html! {
        @for (index, part) in parts.iter().enumerate() {
            @if index >= paired { "`" (part) } @else if index % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

#[cfg(test)]
mod tests {
    use graph::EventKind;

    use super::*;

    #[test]
    fn numbers_have_groups_of_three_digits() {
        for (n, text) in
            [(0, "0 lines"), (1, "1 line"), (999, "999 lines"), (1_000, "1,000 lines"), (1_234_567, "1,234,567 lines")]
        {
            assert_eq!(count(n, "line", "lines"), text);
        }
    }

    #[test]
    fn what_has_no_branch_names_none() {
        let event = |kind, branch: Option<&str>| {
            let event = graph::Event { branch: branch.map(str::to_owned), ..graph::Event::new(kind) };
            happening(&Event::from(&event))
        };
        assert_eq!(event(EventKind::Push, Some("main")), "push to main");
        assert_eq!(event(EventKind::Push, None), "push");
        assert_eq!(event(EventKind::Manual, None), "by hand");
    }

    #[test]
    fn what_stands_between_backticks_is_code() {
        assert_eq!(marked("job `a<b>` and `c`").into_string(), "job <code>a&lt;b&gt;</code> and <code>c</code>");
        assert_eq!(marked("one ` alone").into_string(), "one ` alone");
        assert_eq!(marked("`a` and `").into_string(), "<code>a</code> and `");
        assert_eq!(marked("plain").into_string(), "plain");
    }
}
