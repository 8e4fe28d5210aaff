//! The words in which builds are told to people: outcomes, durations, sizes, times. All texts of views live here.

use std::collections::BTreeMap;

pub use api::words::{duration, failure, size, skip_reason, thousands, verdict};
use graph::{AttemptReport, BuildId, Failure, Job, JobName, Outcome, StepResult, WorkspaceKind};

use crate::columns;
use crate::view::Awaited;
use crate::whereabouts::quoted;

/// The widest a step's name gets within a sentence; its whole name stands in `show`.
const STEP_CELLS_MAX: usize = 40;

/// The widest the default of a gate's field gets where what to type is told.
const FIELD_CELLS_MAX: usize = 60;

/// `1 job`, `2 jobs`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{} {noun}{}", thousands(number as u64), if number == 1 { "" } else { "s" })
}

/// Which try has failed of how many there may be, where there will be a next one.
pub fn again(try_number: u32, job: Option<&graph::Job>) -> String {
    let of = job.map_or_else(String::new, |job| format!(" of {}", job.retry.max + 1));
    format!("try {try_number}{of}, it will be tried again")
}

/// How an attempt ended, with the step that failed; of a job's function in its own words, if the job is known.
pub fn report(report: &AttemptReport, job: Option<&Job>) -> String {
    if let (Outcome::Failed(failure), Some(job)) = (&report.outcome, job)
        && let Some(function) = function_failure(job, failure, Some(report))
    {
        return format!("failed: {function}");
    }
    match &report.outcome {
        Outcome::Failed(Failure::Canceled { .. }) | Outcome::Passed { .. } | Outcome::Skipped(_) => {
            outcome(&report.outcome)
        }
        Outcome::Failed(reason) => format!("failed: {}", failure_of(reason, Some(report))),
    }
}

/// Why a job failed, as the end of a sentence, with the step's name, or its command if it has no other name.
pub fn failure_of(reason: &Failure, report: Option<&AttemptReport>) -> String {
    let step = match reason {
        Failure::Step { step, message: None, .. } | Failure::Timeout { step: Some(step), .. } => {
            Some(usize::from(*step))
        }
        _ => None,
    };
    let name = step.and_then(|step| report?.steps.get(step)).map(|step| columns::one_line(&step.name));
    match name {
        Some(name) if !name.is_empty() => {
            // The only step of a job needs no word for it.
            let word = if report.is_some_and(|report| report.steps.len() == 1) { "" } else { "step " };
            failure(reason).replacen("a step ", &format!("{word}`{}` ", columns::cut(&name, STEP_CELLS_MAX)), 1)
        }
        _ => failure(reason),
    }
}

/// How a function failed, by the exit code of the program that ran it; `None` if the job failed otherwise, as by an artifact that is not there.
/// Source of the codes: docs/design/2026-11-21-rust-pipelines.md, Functions.
pub fn function_failure(job: &Job, failure: &Failure, report: Option<&AttemptReport>) -> Option<&'static str> {
    Some(match function_exit(job, failure, report)? {
        1 => "the function returned a failure",
        FUNCTION_OTHER_BUILD => "the program has changed since it planned the job",
        FUNCTION_INPUTS => "the function's inputs are missing or cannot be read",
        FUNCTION_PANICKED => "the function panicked",
        UNSTARTED | NOT_FOUND => "the pipeline's program cannot start in the job's environment",
        _ => return None,
    })
}

/// Whether the last line that a function's program wrote to standard error says why it failed.
pub fn function_has_message(job: &Job, failure: &Failure, report: Option<&AttemptReport>) -> bool {
    function_failure(job, failure, report).is_some() && function_exit(job, failure, report) != Some(FUNCTION_PANICKED)
}

/// What to do about a function that could not be run.
pub fn function_help(job: &Job, failure: &Failure) -> Option<&'static str> {
    Some(match function_exit(job, failure, None)? {
        FUNCTION_OTHER_BUILD => {
            "a build keeps to the program it began with: `ropewalk run` begins one with the program as it is now"
        }
        FUNCTION_INPUTS => {
            "a job that the function takes a value from handed on none, or none of that type: its outputs stand in \
             `ropewalk show last JOB`"
        }
        UNSTARTED | NOT_FOUND => {
            "the environment needs the C library that the program is linked with: take an image that has it, or link the \
             program statically, as docs/manual/rust.md shows"
        }
        _ => return None,
    })
}

/// Whether a text names this build: `build 1` is not named by `build 12`.
pub fn names_build(text: &str, build: BuildId) -> bool {
    let name = format!("build {build}");
    text.split(&name).skip(1).any(|after| !after.starts_with(|next: char| next.is_ascii_digit()))
}

/// What `ropewalk shell` is told to open a job where it failed, as one word of a shell: `test@failed`, or `test` if no step of it did.
pub fn where_it_failed(job: &JobName, outcome: Option<&Outcome>) -> String {
    match outcome {
        Some(Outcome::Failed(failure)) if failure.step().is_some() => quoted(&format!("{job}@failed")),
        _ => quoted(job.as_str()),
    }
}

/// What a job leaves for a shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftBehind {
    /// No step of it began, or nothing was reported.
    Nothing,
    /// It worked in the tree itself.
    InTree,
    /// Its workspace, as long as it is kept.
    Workspace,
}

/// What the last attempt of a job leaves for a shell, by what is known of the job and by its report.
pub fn left_behind(job: Option<&Job>, report: Option<&AttemptReport>) -> LeftBehind {
    let has_begun = report.is_some_and(|report| report.steps.iter().any(|step| step.result != StepResult::Skipped));
    match job.map(|job| job.workspace) {
        _ if !has_begun => LeftBehind::Nothing,
        Some(WorkspaceKind::InPlace) => LeftBehind::InTree,
        _ => LeftBehind::Workspace,
    }
}

const FUNCTION_OTHER_BUILD: i32 = 65;
const FUNCTION_INPUTS: i32 = 66;
const FUNCTION_PANICKED: i32 = 101;
/// What a shell says of a program that cannot be executed, and of one that is not there or whose loader is not.
const UNSTARTED: i32 = 126;
const NOT_FOUND: i32 = 127;

/// The code by which the program of a job's function told a failure. A program that ended well told none: then something else broke, which has
/// a code as if it had.
fn function_exit(job: &Job, failure: &Failure, report: Option<&AttemptReport>) -> Option<i32> {
    let Failure::Step { step, exit, .. } = failure else { return None };
    let place = usize::from(*step);
    let ended = report.and_then(|report| report.steps.get(place)?.exit);
    let is_function = matches!(job.steps.get(place)?.shell, graph::Shell::Program(_));
    (is_function && ended != Some(0)).then_some(*exit)
}

/// What to type at a gate, without the program's name: `approve 3 ship --field region=VALUE --field copies=1`. Each field of
/// the gate is named: those with a default with it, so that they may be left as they are or left out.
pub fn approve(build: BuildId, gate: &JobName, job: Option<&Job>) -> String {
    let mut text = format!("approve {build} {}", quoted(gate.as_str()));
    for (name, field) in job.and_then(|job| job.gate.as_ref()).into_iter().flat_map(|gate| &gate.fields) {
        let value = match &field.default {
            None => "VALUE".to_owned(),
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        let value = columns::cut(&columns::bare(&value.replace('\n', " ")), FIELD_CELLS_MAX);
        text.push_str(&format!(" --field {}", quoted(&format!("{name}={value}"))));
    }
    text
}

/// What happened at a gate: `approved by ada: region = eu`.
pub fn answered(answer: Option<&BTreeMap<String, serde_json::Value>>, by: &str, reason: &str) -> String {
    let word = if answer.is_some() { "approved" } else { "rejected" };
    let said = answer.map(self::answer).filter(|said| !said.is_empty());
    let said = said.map(|said| format!(": {said}")).unwrap_or_default();
    format!("{word} by {}{}{said}", columns::one_line(by), in_brackets(reason))
}

/// Why a person said what they said: ` (no tests)`. Empty if they gave no reason.
pub fn in_brackets(reason: &str) -> String {
    let reason = columns::cut(&columns::one_line(reason), 160);
    if reason.is_empty() { reason } else { format!(" ({reason})") }
}

/// What a person filled in at a gate: `region = eu, dry = true`. Empty if nothing was asked.
pub fn answer(values: &BTreeMap<String, serde_json::Value>) -> String {
    let value = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let said: Vec<_> = values.iter().map(|(name, said)| format!("{name} = {}", value(said))).collect();
    columns::cut(&columns::bare(&said.join(", ").replace('\n', " ")), 160)
}

/// An outcome in a word or a few.
pub fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Passed { .. } => "passed".to_owned(),
        Outcome::Failed(Failure::Canceled { by }) => format!("canceled by {by}"),
        Outcome::Failed(reason) => format!("failed: {}", failure(reason)),
        Outcome::Skipped(reason) => format!("skipped: {}", skip_reason(reason)),
    }
}

/// For what a job waits that would begin but for others.
pub fn awaited(awaited: &Awaited) -> String {
    match awaited {
        Awaited::Slot => "waits for a slot".to_owned(),
        Awaited::Group { group, build, job, between } => {
            let more = match between {
                0 => String::new(),
                n => format!(", with {} before it", count(*n, "more job")),
            };
            format!("waits for its concurrency group `{group}`, held by build {build} ({job}){more}")
        }
        Awaited::Operation { build, job } => format!("waits for the equal operation that build {build} runs ({job})"),
    }
}

/// Why a job of a server's build has not begun, with how long that may take.
pub fn waiting(why: &api::job::Waiting) -> String {
    let text = harmless(&why.text);
    match why.estimate {
        Some(estimate) if estimate.high_ms >= 1000 => {
            format!("{text}; {} to {} more", duration(estimate.low_ms), duration(estimate.high_ms))
        }
        Some(_) | None => text.into_owned(),
    }
}

/// The most bytes of a title, a link or the like that is taken for one: what has no end within them is text.
const STRING_BYTES_MAX: usize = 4096;

/// `text` with control characters made harmless, for a terminal. Colours (`ESC [ … m`) and tabs stay; all other sequences vanish as a whole.
pub fn harmless(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.chars().any(|letter| letter.is_control() && letter != '\t') {
        return text.into();
    }
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        if letter == '\u{1b}' {
            let (sequence, after) = rest.split_at(escape_length(rest.as_bytes()));
            if is_colour(sequence) {
                clean.push_str(sequence);
            }
            rest = after;
            continue;
        }
        if !letter.is_control() || letter == '\t' {
            clean.push(letter);
        }
        rest = &rest[letter.len_utf8()..];
    }
    clean.into()
}

/// How many bytes the sequence has that begins with the ESC at the beginning; 1 if it does not end. Source: ECMA-48, 5.4 and 5.6; ECMA-35, 13.2.
fn escape_length(bytes: &[u8]) -> usize {
    let up_to_final = |from: usize, between: std::ops::RangeInclusive<u8>, last: std::ops::RangeInclusive<u8>| {
        let length = bytes[from..].iter().position(|byte| !between.contains(byte))? + from;
        Some(if last.contains(&bytes[length]) { length + 1 } else { length })
    };
    let length = match bytes.get(1) {
        Some(b'[') => up_to_final(2, b' '..=b'?', b'@'..=b'~'),
        Some(b']' | b'P' | b'X' | b'^' | b'_') => {
            let within = &bytes[..bytes.len().min(STRING_BYTES_MAX)];
            let end = within[2..].iter().position(|byte| matches!(byte, 0x07 | 0x1b)).map(|length| length + 2);
            end.and_then(|end| match (bytes[end], bytes.get(end + 1)) {
                (0x07, _) => Some(end + 1),
                (_, Some(b'\\')) => Some(end + 2),
                _ => None,
            })
        }
        // Intermediate bytes, as in `ESC ( B`.
        Some(b' '..=b'/') => up_to_final(1, b' '..=b'/', b'0'..=b'~'),
        Some(b'0'..=b'~') => Some(2),
        _ => None,
    };
    length.unwrap_or(1)
}

fn is_colour(sequence: &str) -> bool {
    let codes = sequence.strip_prefix("\u{1b}[").and_then(|sequence| sequence.strip_suffix('m'));
    codes.is_some_and(|codes| codes.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b';' | b':')))
}

#[cfg(test)]
mod tests {
    use super::{
        approve, function_failure, function_has_message, function_help, harmless, names_build, where_it_failed,
    };

    #[test]
    fn a_function_that_cannot_start_is_told_as_that() {
        let step = graph::Step { shell: graph::Shell::Program(graph::Digest([0; 32])), ..graph::Step::default() };
        let function = graph::Job { steps: vec![step], ..graph::Job::default() };
        let script = graph::Job { steps: vec![graph::Step::default()], ..graph::Job::default() };
        for exit in [126, 127] {
            let failure = graph::Failure::Step { step: 0, exit, message: None };
            let told = "the pipeline's program cannot start in the job's environment";
            assert_eq!(function_failure(&function, &failure, None), Some(told));
            assert!(function_help(&function, &failure).is_some_and(|help| help.contains("C library")));
            assert_eq!(function_failure(&script, &failure, None), None);
        }
    }

    #[test]
    fn a_function_that_passed_is_not_told_as_one_that_failed() {
        let step = graph::Step { shell: graph::Shell::Program(graph::Digest([0; 32])), ..graph::Step::default() };
        let function = graph::Job { steps: vec![step], ..graph::Job::default() };
        let check = |exit: i32, message: &str, told: &str, has_message: bool| {
            let failure = graph::Failure::Step { step: 0, exit: 1, message: Some(message.to_owned()) };
            let mut report =
                graph::AttemptReport::of(graph::Outcome::Failed(failure.clone()), graph::Timestamp::default());
            report.steps.push(graph::StepReport {
                name: String::new(),
                exit: Some(exit),
                signal: None,
                result: graph::StepResult::Failed,
                started: graph::Timestamp::default(),
                finished: graph::Timestamp::default(),
                usage: graph::Usage::default(),
                outputs: std::collections::BTreeMap::new(),
                lines: 0,
            });
            assert_eq!(super::report(&report, Some(&function)), told);
            assert_eq!(function_has_message(&function, &failure, Some(&report)), has_message);
        };
        let missing = "artifact `o`: `nothere/*.txt` matches no file";
        check(0, missing, &format!("failed: {missing}"), false);
        check(1, "no such host", "failed: the function returned a failure", true);
    }

    #[test]
    fn names_in_commands_are_words_of_a_shell() {
        let failed = graph::Outcome::Failed(graph::Failure::Step { step: 0, exit: 1, message: None });
        let check = |name: &str, place: &str, approved: &str| {
            let name = graph::JobName::from(name);
            assert_eq!(where_it_failed(&name, Some(&failed)), place);
            assert_eq!(approve(graph::BuildId(3), &name, None), approved);
        };
        check("ship", "ship@failed", "approve 3 ship");
        check("ship/a;b", "'ship/a;b@failed'", "approve 3 'ship/a;b'");
    }

    #[test]
    fn a_build_is_named_by_its_whole_number() {
        for (text, expected) in
            [("build 1 failed", true), ("build 12 failed", false), ("build 12, then build 1", true), ("1", false)]
        {
            assert_eq!(names_build(text, graph::BuildId(1)), expected, "{text}");
        }
    }

    #[test]
    fn only_colours_reach_the_terminal() {
        assert_eq!(harmless("\u{1b}[31mred\u{1b}[0m"), "\u{1b}[31mred\u{1b}[0m");
        assert_eq!(harmless("a\u{1b}[2Jb\u{7}c\rd"), "abcd");
        assert_eq!(harmless("\u{1b}]0;title\u{7}x\u{1b}]8;;http://a\u{1b}\\link\u{1b}]8;;\u{1b}\\"), "xlink");
        assert_eq!(harmless("\u{1b}]0;title"), "]0;title");
        assert_eq!(harmless("\u{1b}[38:2::1:2:3mx\u{1b}[>4my"), "\u{1b}[38:2::1:2:3mxy");
        assert_eq!(harmless("\u{1b}[?25lx\u{1b}[1é\u{1b}[2"), "xé[2");
        assert_eq!(harmless("\u{1b}[31"), "[31");
    }

    #[test]
    fn sequences_with_intermediate_bytes_vanish_whole() {
        assert_eq!(harmless("\u{1b}(Bplain\u{1b}[m"), "plain\u{1b}[m");
        assert_eq!(harmless("\u{1b})0a\u{1b}#8b\u{1b}%Gc\u{1b}$(Cd\u{1b}([e\u{1b}7f\u{1b}="), "abcdef");
        assert_eq!(harmless("\u{1b}(é\u{1b}(\u{1b}[2Jx\u{1b}"), "éx");
        assert_eq!(crate::columns::colourless("\u{1b}(Bplain\u{1b}[m"), "plain");
    }
}
