//! The sentences in which outcomes are told to people, the same wherever they are told.

use graph::{Failure, SkipReason, Verdict};

/// How much of the first line of a message is told.
const LINE_CHARACTERS_MAX: usize = 300;

/// `3 ms`, `1.2 s`, `2 m 05 s`, `1 h 02 m`.
#[must_use]
pub fn duration(milliseconds: u64) -> String {
    match milliseconds {
        0..1000 => format!("{milliseconds} ms"),
        1000..60_000 => format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100),
        60_000..3_600_000 => format!("{} m {:02} s", milliseconds / 60_000, milliseconds / 1000 % 60),
        _ => format!("{} h {:02} m", milliseconds / 3_600_000, milliseconds / 60_000 % 60),
    }
}

/// A text as one word of a shell, for commands that people copy. Names among their words go through this: a job's output may name legs,
/// and whoever copies the command would run what it says.
#[must_use]
pub fn quoted(text: &str) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || "-_./:@%+=,".contains(letter);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => graph::shell::quoted(text),
    }
}

/// Why a job did not run, as the end of a sentence.
#[must_use]
pub fn skip_reason(reason: &SkipReason) -> String {
    match reason {
        SkipReason::Condition { text } => format!("`{text}` does not hold"),
        SkipReason::Need { because } => format!("`{because}` did not end as needed"),
        SkipReason::NotWanted { text } => text.clone(),
        SkipReason::Dropped => "the pipeline no longer has it".to_owned(),
        SkipReason::Rejected { by } => format!("rejected by {by}"),
    }
}

/// Why a job failed, as the end of a sentence.
#[must_use]
pub fn failure(failure: &Failure) -> String {
    match failure {
        Failure::Step { message: Some(message), .. } => first_line(message),
        Failure::Step { exit, .. } if *exit > 128 && *exit <= 192 => {
            format!("a step was ended by signal {} ({exit})", exit - 128)
        }
        Failure::Step { exit, .. } => format!("a step ended with code {exit}"),
        Failure::Timeout { limit_ms, step: Some(_) } => format!("a step ran longer than {}", duration(*limit_ms)),
        Failure::Timeout { limit_ms, step: None } => format!("it ran longer than {}", duration(*limit_ms)),
        Failure::Infra { message } | Failure::Setup { message } => message.clone(),
        Failure::Lost => "its worker fell silent".to_owned(),
        Failure::Canceled { by } => format!("canceled by {by}"),
    }
}

/// The first line of what was said of a failure.
fn first_line(message: &str) -> String {
    let line = message.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    match line.char_indices().nth(LINE_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// A verdict as a sentence's end.
#[must_use]
pub fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Running => "is running".to_owned(),
        Verdict::Passed { note: None } => "passed".to_owned(),
        Verdict::Passed { note: Some(note) } => format!("passed: {note}"),
        Verdict::Failed { because: Some(job) } => format!("failed because of `{job}`"),
        Verdict::Failed { because: None } => "failed: the pipeline is wrong".to_owned(),
        Verdict::Canceled { by } => format!("was canceled by {by}"),
        Verdict::Diverged { job } => format!("diverged: the pipeline changed `{job}` after it had begun"),
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn names_are_words_of_a_shell() {
        for (text, word) in [
            ("test/1.80@failed", "test/1.80@failed"),
            ("größe", "größe"),
            ("", "''"),
            ("a b", "'a b'"),
            ("a b'c;rm", r"'a b'\''c;rm'"),
            ("$(reboot)", "'$(reboot)'"),
        ] {
            assert_eq!(quoted(text), word);
        }
    }
}
