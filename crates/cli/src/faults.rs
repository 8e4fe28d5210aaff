//! What was wrong with a pipeline while its build ran: the diagnostics of the evaluation that ended it. Of a job that
//! changed after it had begun both versions are shown, key by key.

use std::fmt::Write;

use dialects::report;
use dialects::tree::Sources;
use engine::Fact;
use engine::fact::What;
use graph::{Diagnostic, Severity};
use serde_json::Value;

use crate::columns::{Paint, Style};
use crate::words;

/// The most keys whose values are shown where a job changed.
const KEYS_MAX: usize = 20;
/// The most characters shown of a value.
const VALUE_CHARACTERS_MAX: usize = 400;

/// The errors that an evaluation ended with, if it did.
pub fn of(fact: &Fact) -> Option<&[Diagnostic]> {
    let What::Evaluated { diagnostics, .. } = &fact.what else { return None };
    diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error).then_some(diagnostics.as_slice())
}

/// The diagnostics as people read them, with the lines of those sources that are at hand.
pub fn text(diagnostics: &[Diagnostic], sources: &Sources, paint: Paint) -> String {
    let color = if paint == Paint::Coloured { report::Color::Always } else { report::Color::Never };
    let mut text = String::new();
    for diagnostic in diagnostics {
        text.push_str(&report::text(std::slice::from_ref(diagnostic), sources, color));
        if let Some((before, after)) = versions(diagnostic) {
            text.push_str(&changes(&before, &after, paint));
        }
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
        return format!("  {}\n", paint.text(Style::Bad, "- the whole job: the later evaluation has none of this name"));
    }
    collect(before, after, String::new(), &mut found);
    let mut text = String::new();
    for (key, before, after) in found.iter().take(KEYS_MAX) {
        let _ = writeln!(text, "  {}", words::harmless(key));
        for (sign, style, value) in [("-", Style::Bad, before), ("+", Style::Good, after)] {
            if let Some(value) = value {
                let _ = writeln!(text, "    {}", paint.text(style, &format!("{sign} {}", shortened(value))));
            }
        }
    }
    if found.len() > KEYS_MAX {
        let _ = writeln!(text, "  … and {} more keys", found.len() - KEYS_MAX);
    }
    text
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

fn shortened(value: &Value) -> String {
    let text = value.to_string();
    let shown = match text.char_indices().nth(VALUE_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
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
            r#"before: {"steps":[]}; after: no such job"#,
            "  - the whole job: the later evaluation has none of this name\n",
        );
    }
}
