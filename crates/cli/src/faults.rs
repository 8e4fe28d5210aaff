//! What was wrong with a pipeline while its build ran: the diagnostics of the evaluation that ended it. Of a job that
//! changed after it had begun both versions are shown, key by key.

use std::fmt::Write;

use dialects::report;
use dialects::tree::Sources;
use graph::Diagnostic;
use serde_json::Value;

use crate::columns::{Paint, Style};
use crate::words;

/// The most keys whose values are shown where a job changed.
const KEYS_MAX: usize = 20;
/// The most lines shown of a value before, and of it after.
const LINES_MAX: usize = 12;
/// The most characters shown of a value, or of a line of it.
const VALUE_CHARACTERS_MAX: usize = 400;

/// The diagnostics as `ropewalk check --format json` lists them; of a job that changed with both versions, as `before`
/// and `after`, null if it is gone.
pub fn json(diagnostics: &[Diagnostic]) -> Value {
    let mut value: Value = serde_json::from_str(&report::json(diagnostics)).unwrap_or_default();
    let mut list = value["diagnostics"].take();
    for (diagnostic, value) in diagnostics.iter().zip(list.as_array_mut().into_iter().flatten()) {
        if let Some((before, after)) = versions(diagnostic) {
            value["label"] = "".into();
            value["before"] = before;
            value["after"] = after;
        }
    }
    list
}

/// The diagnostics as people read them, with the lines of those sources that are at hand.
pub fn text(diagnostics: &[Diagnostic], sources: &Sources, paint: Paint) -> String {
    let color = if paint == Paint::Coloured { report::Color::Always } else { report::Color::Never };
    let mut text = String::new();
    for diagnostic in diagnostics {
        if !text.is_empty() {
            text.push('\n');
        }
        let Some((before, after)) = versions(diagnostic) else {
            text.push_str(&report::text(std::slice::from_ref(diagnostic), sources, color));
            continue;
        };
        // The label holds the versions; beside the line stands what the line is.
        let label = match (&after, diagnostic.related.is_empty()) {
            (Value::Null, _) => "it was added here",
            (_, true) => "both versions are added here",
            (_, false) => "the later version is added here",
        };
        let shown = Diagnostic { label: label.to_owned(), ..diagnostic.clone() };
        text.push_str(&report::text(&[shown], sources, color));
        text.push_str(&changes(&before, &after, paint));
    }
    text
}

/// Both versions of a job that changed, as the engine's diagnostic carries them; the second is null if it is gone.
fn versions(diagnostic: &Diagnostic) -> Option<(Value, Value)> {
    let versions = diagnostic.label.strip_prefix("before: ").filter(|_| diagnostic.code == "diverged")?;
    let mut values = serde_json::Deserializer::from_str(versions).into_iter::<Value>();
    let before = values.next()?.ok()?;
    let after = versions[values.byte_offset()..].strip_prefix("; after: ")?;
    Some((before, serde_json::from_str(after).unwrap_or(Value::Null)))
}

fn changes(before: &Value, after: &Value, paint: Paint) -> String {
    let mut found = Vec::new();
    if after.is_null() {
        return format!(
            "  {}\n",
            paint.text(Style::Bad, "- the whole job: the later evaluation has none of this name")
        );
    }
    collect(before, after, String::new(), &mut found);
    let mut text = String::new();
    for (key, before, after) in found.iter().take(KEYS_MAX) {
        let _ = writeln!(text, "  {}", words::harmless(key));
        for line in difference(*before, *after) {
            let style = match line.as_bytes().first() {
                Some(b'-') => Style::Bad,
                Some(b'+') => Style::Good,
                _ => Style::Dim,
            };
            let _ = writeln!(text, "    {}", paint.text(style, &line));
        }
    }
    if found.len() > KEYS_MAX {
        let _ = writeln!(text, "  … and {} more keys", found.len() - KEYS_MAX);
    }
    text
}

/// The lines that a value lost and won: `- old`, `+ new`. Of texts with several lines those that stayed are only counted.
fn difference(before: Option<&Value>, after: Option<&Value>) -> Vec<String> {
    let lines = |value: Option<&Value>| -> Vec<String> {
        match value {
            None => Vec::new(),
            Some(Value::String(text)) if text.contains('\n') => text.lines().map(shortened).collect(),
            Some(value) => vec![shortened(&value.to_string())],
        }
    };
    let (before, after) = (lines(before), lines(after));
    let same = before.iter().zip(&after).take_while(|(left, right)| left == right).count();
    let (before, after) = (&before[same..], &after[same..]);
    let same_after = before.iter().rev().zip(after.iter().rev()).take_while(|(left, right)| left == right).count();
    let changed = |lines: &[String], sign: char| -> Vec<String> {
        let lines = &lines[..lines.len() - same_after];
        let shown = lines.iter().take(LINES_MAX).map(|line| format!("{sign} {line}"));
        let more = lines.len().saturating_sub(LINES_MAX);
        shown.chain((more > 0).then(|| format!("{sign} … {}", words::count(more, "more line")))).collect()
    };
    let stays = |count: usize| (count > 0).then(|| format!("  … {} as before", words::count(count, "line")));
    let lines = stays(same).into_iter().chain(changed(before, '-')).chain(changed(after, '+'));
    lines.chain(stays(same_after)).collect()
}

type Change<'a> = (String, Option<&'a Value>, Option<&'a Value>);

/// Each key below which the values differ, as `steps.0.run`, with what stood there.
fn collect<'a>(before: &'a Value, after: &'a Value, path: String, found: &mut Vec<Change<'a>>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (before, after) {
        (Value::Object(left), Value::Object(right)) => {
            for (key, value) in left {
                match right.get(key) {
                    Some(other) => collect(value, other, below(key), found),
                    None => found.push((below(key), Some(value), None)),
                }
            }
            let fresh = right.iter().filter(|(key, _)| !left.contains_key(*key));
            found.extend(fresh.map(|(key, value)| (below(key), None, Some(value))));
        }
        (Value::Array(left), Value::Array(right)) => {
            for index in 0..left.len().max(right.len()) {
                match (left.get(index), right.get(index)) {
                    (Some(value), Some(other)) => collect(value, other, below(&index.to_string()), found),
                    (value, other) => found.push((below(&index.to_string()), value, other)),
                }
            }
        }
        (before, after) if before == after => {}
        (before, after) => found.push((path, Some(before), Some(after))),
    }
}

fn shortened(text: &str) -> String {
    let shown = match text.char_indices().nth(VALUE_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    };
    words::harmless(&shown).into_owned()
}

#[cfg(test)]
mod tests {
    use dialects::tree::Sources;
    use graph::Diagnostic;

    use super::text;
    use crate::columns::Paint;

    #[test]
    fn both_versions_of_a_job_are_shown() {
        let check = |label: &str, expected: &str| {
            let mut diagnostic = Diagnostic::error("diverged", "job `a` had begun");
            diagnostic.label = label.to_owned();
            let text = text(&[diagnostic], &Sources::new(), Paint::Plain);
            assert_eq!(text, format!("error[diverged]: job `a` had begun\n{expected}"));
        };
        check(
            r#"before: {"env":{"A":"1"},"steps":[{"run":"x; after: "}]}; after: {"steps":[{"run":"y"}],"title":"T"}"#,
            "  env\n    - {\"A\":\"1\"}\n  steps.0.run\n    - \"x; after: \"\n    + \"y\"\n  title\n    + \"T\"\n",
        );
        check(
            r#"before: {"run":"a\nb\nc\nd"}; after: {"run":"a\nB\nd"}"#,
            "  run\n      … 1 line as before\n    - b\n    - c\n    + B\n      … 1 line as before\n",
        );
        check(
            r#"before: {"steps":[]}; after: no such job"#,
            "  - the whole job: the later evaluation has none of this name\n",
        );
    }
}
