//! The words in which outcomes, times and sizes are told to people, the same wherever they are told.

use graph::{Failure, SkipReason, Verdict};

/// How much of the first line of a message is told.
const LINE_CHARACTERS_MAX: usize = 300;

/// A span of time in at most two units: `3 ms`, `1.2 s`, `2 m 05 s`, `1 h 02 m`, from two days on `3 d 04 h`.
#[must_use]
pub fn duration(milliseconds: u64) -> String {
    match milliseconds {
        0..1000 => format!("{milliseconds} ms"),
        1000..60_000 => format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100),
        60_000..3_600_000 => format!("{} m {:02} s", milliseconds / 60_000, milliseconds / 1000 % 60),
        3_600_000..172_800_000 => format!("{} h {:02} m", milliseconds / 3_600_000, milliseconds / 60_000 % 60),
        _ => format!("{} d {:02} h", milliseconds / 86_400_000, milliseconds / 3_600_000 % 24),
    }
}

/// How long ago: `just now`, `5 min ago`, `3 h ago`, `12 d ago`.
#[must_use]
pub fn ago(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0..5 => "just now".to_owned(),
        5..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// A number in groups of three digits: `999`, `12,345`.
#[must_use]
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes: `512 B`, `1.5 KiB`, `3.0 GiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    let mut unit = "B";
    let mut tenths = bytes.saturating_mul(10);
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        unit = larger;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{}.{} {unit}", tenths / 10, tenths % 10) }
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
    use super::*;

    #[test]
    fn durations_have_at_most_two_units() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (59_999, "59.9 s"),
            (60_000, "1 m 00 s"),
            (3_599_999, "59 m 59 s"),
            (3_600_000, "1 h 00 m"),
            (172_799_999, "47 h 59 m"),
            (172_800_000, "2 d 00 h"),
            (277_200_000, "3 d 05 h"),
        ] {
            assert_eq!(duration(ms), text);
        }
    }

    #[test]
    fn what_was_lately_is_told_in_one_unit() {
        let told = [0, 4_999, 59_999, 60_000, 3_599_999, 3_600_000, 172_799_999, 172_800_000].map(ago);
        let expected =
            ["just now", "just now", "59 s ago", "1 min ago", "59 min ago", "1 h ago", "47 h ago", "2 d ago"];
        assert_eq!(told, expected);
    }

    #[test]
    fn numbers_have_groups_of_three_digits() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn sizes_have_one_digit_behind_the_point() {
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB")]
        {
            assert_eq!(size(bytes), text);
        }
        assert!(size(u64::MAX).ends_with("PiB"));
    }

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
