//! How states, times and sizes read.

use api::build::{Build, VerdictWord};
use api::event::{Event, EventWord};
use api::job::{Attempt, Job, JobState, OutcomeWord, StepResult, TestOutcome, Usage};
use api::quarantine::QuarantineNote;
use api::time::Time;
pub use api::words::quoted;
use graph::Timestamp;
use maud::{Markup, html};

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

/// A span of milliseconds in at most two units: `1 h 4 min`, `12.3 s`, `45 ms`.
#[must_use]
pub fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
        3_600_000..86_400_000 => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
        _ => format!("{} d {} h", ms / 86_400_000, ms % 86_400_000 / 3_600_000),
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

/// A number of bytes: `812 B`, `1.4 MiB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut tenths = bytes.saturating_mul(10);
    let mut unit = "B";
    for next in UNITS {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{}.{} {unit}", tenths / 10, tenths % 10) }
}

/// A number in groups of three digits: `999`, `10,000`.
#[must_use]
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 job`, `2,000 jobs`.
#[must_use]
pub fn count(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(n), if n == 1 { one } else { many })
}

/// A point in time: how long ago for who reads, the clock's in the reader's zone once the browser has seen it.
#[must_use]
pub fn ago(at: Time, now: Timestamp) -> Markup {
    let text = match now.ms_since(at.0) {
        0..5_000 => "just now".to_owned(),
        ms @ 5_000..60_000 => format!("{} s ago", ms / 1_000),
        ms @ 60_000..3_600_000 => format!("{} min ago", ms / 60_000),
        ms @ 3_600_000..86_400_000 => format!("{} h ago", ms / 3_600_000),
        ms => format!("{} d ago", ms / 86_400_000),
    };
    html! { time datetime=(at) title=(at) { (text) } }
}

/// How long a span took, or takes so far; `None` if it has not begun.
#[must_use]
pub fn took(started: Option<Time>, finished: Option<Time>, now: Timestamp) -> Option<u64> {
    started.map(|started| finished.map_or(now, |finished| finished.0).ms_since(started.0))
}

/// A duration beside what is usual: the mark says when it took at least a quarter more or less.
#[must_use]
pub fn against_usual(ms: u64, usual_ms: Option<u64>) -> Markup {
    let Some(usual) = usual_ms.filter(|usual| *usual >= 1_000) else { return html! { (span(ms)) } };
    let title = format!("usually {}", span(usual));
    let sign = if ms > usual + usual / 4 {
        html! { " " span.slower aria-label="slower than usual" { "▲" } }
    } else if ms + usual / 4 < usual {
        html! { " " span.faster aria-label="faster than usual" { "▼" } }
    } else {
        html! {}
    };
    html! { span title=(title) { (span(ms)) (sign) } }
}

/// What happened, in a few words: `push to main`, `pull request 12`.
#[must_use]
pub fn happening(event: &Event) -> String {
    let of = |word: &str, what: &Option<String>| {
        what.as_ref().map_or_else(|| word.to_owned(), |what| format!("{word} {what}"))
    };
    match event.kind {
        EventWord::Push => of("push to", &event.branch),
        EventWord::Tag => of("tag", &event.tag),
        EventWord::PullRequest => {
            event.pull_request.map_or_else(|| "pull request".to_owned(), |number| format!("pull request {number}"))
        }
        EventWord::Schedule => of("schedule on", &event.branch),
        EventWord::Manual => of("by hand on", &event.branch),
        EventWord::Api => of("by a program on", &event.branch),
        EventWord::Build => event
            .parent
            .as_ref()
            .map_or_else(|| "by a build".to_owned(), |parent| format!("by build {} ({})", parent.build, parent.job)),
        EventWord::Command => of("command", &event.command),
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
        .then(|| format!("processor {}, peak memory {}", span(cpu_us / 1000), bytes(usage.peak_memory_bytes)))
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
    use super::*;

    #[test]
    fn spans_have_at_most_two_units() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (59_999, "59.9 s"),
            (60_000, "1 min 0 s"),
            (3_599_999, "59 min 59 s"),
            (3_600_000, "1 h 0 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(span(ms), text);
        }
    }

    #[test]
    fn numbers_have_groups_of_three_digits() {
        for (n, text) in
            [(0, "0 lines"), (1, "1 line"), (999, "999 lines"), (1_000, "1,000 lines"), (1_234_567, "1,234,567 lines")]
        {
            assert_eq!(count(n, "line", "lines"), text);
        }
    }

    #[test]
    fn sizes_have_one_digit_behind_the_point() {
        for (n, text) in [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB")] {
            assert_eq!(bytes(n), text);
        }
        assert!(bytes(u64::MAX).ends_with("PiB"));
    }

    #[test]
    fn what_stands_between_backticks_is_code() {
        assert_eq!(marked("job `a<b>` and `c`").into_string(), "job <code>a&lt;b&gt;</code> and <code>c</code>");
        assert_eq!(marked("one ` alone").into_string(), "one ` alone");
        assert_eq!(marked("`a` and `").into_string(), "<code>a</code> and `");
        assert_eq!(marked("plain").into_string(), "plain");
    }
}
