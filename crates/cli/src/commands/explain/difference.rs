//! Differences between two manifests in words: which file, variable, command or result of another job.

use engine::operation::{Difference, Manifest};
use serde_json::Value;

use crate::columns;
use crate::words;

/// How many lines of a changed script are shown.
const LINES_SHOWN_MAX: usize = 20;
/// Scripts are compared line by line up to this many pairs of lines; of longer ones all lines that are not common at
/// the beginning and the end count as changed.
const PAIRS_MAX: usize = 250_000;
/// How much of a value is shown.
const VALUE_CELLS_MAX: usize = 100;

/// How many parts of each kind a manifest has: `12 files, 1 step, 2 variables`.
pub fn parts_text(manifest: &Manifest) -> String {
    let kinds = [
        ("file:", "file"),
        ("step:", "step"),
        ("env:", "variable"),
        ("output:", "output"),
        ("artifact:", "artifact"),
        ("matrix:", "matrix value"),
    ];
    let counts: Vec<String> = kinds
        .into_iter()
        .map(|(prefix, noun)| (manifest.0.keys().filter(|part| part.starts_with(prefix)).count(), noun))
        .filter(|(count, _)| *count > 0)
        .map(|(count, noun)| words::count(count, noun))
        .collect();
    if counts.is_empty() { "no files, steps or variables".to_owned() } else { counts.join(", ") }
}

/// A difference as lines, the first of which names the part.
pub fn lines(difference: &Difference) -> Vec<String> {
    let (kind, rest) = difference.part.split_once(':').unwrap_or((&difference.part, ""));
    let (before, after) = (difference.before.as_deref(), difference.after.as_deref());
    match kind {
        "file" => vec![digest_line(&format!("file {}", columns::bare(rest)), before, after)],
        "artifact" => vec![digest_line(&of_job("artifact", rest), before, after)],
        "output" => vec![value_line(&of_job("output", rest), before, after)],
        "result" => vec![value_line(&format!("result of {rest}"), before, after)],
        "env" => vec![value_line(&format!("variable {rest}"), before, after)],
        "matrix" => vec![value_line(&format!("matrix value {rest}"), before, after)],
        "read" if rest == "event" => vec![value_line("event", before, after)],
        "read" => vec![value_line(&format!("event.{rest}"), before, after)],
        "variable" => vec![value_line(&format!("${rest}"), before, after)],
        "git" => vec![value_line(&format!("what git says, its {rest}"), before, after)],
        "quarantine" => vec![value_line("tests in quarantine", before, after)],
        "step" => step_lines(rest, before, after),
        _ => vec![value_line(&difference.part, before, after)],
    }
}

/// `artifact bin of build`, from `build:bin`.
fn of_job(what: &str, rest: &str) -> String {
    let (job, name) = rest.rsplit_once(':').unwrap_or(("", rest));
    format!("{what} {name} of {job}")
}

fn digest_line(what: &str, before: Option<&str>, after: Option<&str>) -> String {
    let short = |digest: &str| digest.get(..12).unwrap_or(digest).to_owned();
    match (before, after) {
        (None, _) => format!("{what} is new"),
        (_, None) => format!("{what} is gone"),
        (Some(before), Some(after)) => format!("{what} changed ({} → {})", short(before), short(after)),
    }
}

fn value_line(what: &str, before: Option<&str>, after: Option<&str>) -> String {
    match (before.map(value), after.map(value)) {
        (None, after) => format!("{what} is new: {}", after.unwrap_or_default()),
        (before, None) => format!("{what} is gone: {}", before.unwrap_or_default()),
        (Some(before), Some(after)) => format!("{what}: {before} → {after}"),
    }
}

/// A value as people read it: long ones are kept as their digest only.
fn value(text: &str) -> String {
    match text.strip_prefix("digest ") {
        Some(digest) => format!("(long, {})", digest.get(..12).unwrap_or(digest)),
        None => columns::cut(&columns::bare(text), VALUE_CELLS_MAX),
    }
}

/// A step is kept as JSON; what differs in it is told field by field, and its script line by line.
fn step_lines(rest: &str, before: Option<&str>, after: Option<&str>) -> Vec<String> {
    let (index, name) = rest.split_once(':').unwrap_or((rest, ""));
    let index: usize = index.parse().unwrap_or(0);
    let what = match name.parse::<usize>() {
        Ok(_) => format!("step {}", index + 1),
        Err(_) => format!("step {} ({})", index + 1, columns::bare(name)),
    };
    let fields = |text: &str| serde_json::from_str::<serde_json::Map<String, Value>>(text).ok();
    let (old, new) = match (before, after) {
        (Some(before), Some(after)) => match (fields(before), fields(after)) {
            (Some(old), Some(new)) => (old, new),
            _ => return vec![value_line(&what, Some(before), Some(after))],
        },
        (None, after) => return with_script(format!("{what} is new:"), '+', after.and_then(fields)),
        (before, None) => return with_script(format!("{what} is gone:"), '-', before.and_then(fields)),
    };
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut lines = Vec::new();
    for name in names.into_iter().filter(|name| old.get(*name) != new.get(*name)) {
        match (name.as_str(), old.get(name).and_then(Value::as_str), new.get(name).and_then(Value::as_str)) {
            ("run", Some(old), Some(new)) => {
                lines.push(format!("{what}, its command:"));
                lines.extend(script_difference(old, new));
            }
            _ => {
                let text = |value: Option<&Value>| value.map(Value::to_string);
                let (old, new) = (text(old.get(name)), text(new.get(name)));
                lines.push(value_line(&format!("{what}, {name}"), old.as_deref(), new.as_deref()));
            }
        }
    }
    lines
}

fn with_script(first: String, sign: char, fields: Option<serde_json::Map<String, Value>>) -> Vec<String> {
    let script = fields.as_ref().and_then(|fields| fields.get("run")?.as_str()).unwrap_or_default();
    std::iter::once(first).chain(limited(script.lines().map(|line| (sign, line)).collect())).collect()
}

/// The lines that two scripts do not have in common, `-` before the old ones and `+` before the new ones.
fn script_difference(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let start = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let end = old[start..].iter().rev().zip(new[start..].iter().rev()).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[start..old.len() - end], &new[start..new.len() - end]);
    limited(changes(old, new))
}

/// The shortest way from `old` to `new` by taking lines out and putting lines in.
fn changes<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    let all = || old.iter().map(|line| ('-', *line)).chain(new.iter().map(|line| ('+', *line))).collect();
    if old.len().saturating_mul(new.len()) > PAIRS_MAX {
        return all();
    }
    // The longest common subsequence of what is left from each pair of places on.
    let width = new.len() + 1;
    let mut common = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = match old[i] == new[j] {
                true => common[(i + 1) * width + j + 1] + 1,
                false => common[(i + 1) * width + j].max(common[i * width + j + 1]),
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut changes = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            changes.push(('-', old[i]));
            i += 1;
        } else {
            changes.push(('+', new[j]));
            j += 1;
        }
    }
    changes
}

fn limited(changes: Vec<(char, &str)>) -> Vec<String> {
    let hidden = changes.len().saturating_sub(LINES_SHOWN_MAX);
    let shown = changes.iter().take(LINES_SHOWN_MAX);
    let mut lines: Vec<String> =
        shown.map(|(sign, line)| format!("  {sign} {}", columns::cut(&columns::bare(line), VALUE_CELLS_MAX))).collect();
    if hidden > 0 {
        lines.push(format!("  … {}", words::count(hidden, "more line")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(part: &str, before: Option<&str>, after: Option<&str>, expected: &str) {
        let difference =
            Difference { part: part.to_owned(), before: before.map(str::to_owned), after: after.map(str::to_owned) };
        assert_eq!(lines(&difference).join("\n"), expected);
    }

    #[test]
    fn each_kind_has_its_words() {
        let (one, two) = ("1".repeat(64), "2".repeat(64));
        check("file:a/b:c.rs", Some(&one), Some(&two), "file a/b:c.rs changed (111111111111 → 222222222222)");
        check("file:new", None, Some(&two), "file new is new");
        check("file:old", Some(&one), None, "file old is gone");
        check("env:MODE", Some("\"fast\""), Some("\"slow\""), "variable MODE: \"fast\" → \"slow\"");
        check("env:LONG", Some("\"a\""), Some(&format!("digest {two}")), "variable LONG: \"a\" → (long, 222222222222)");
        check("output:plan/x:version", Some("\"1\""), Some("\"2\""), "output version of plan/x: \"1\" → \"2\"");
        check("artifact:build:bin", Some(&one), None, "artifact bin of build is gone");
        check("git:commit", Some("1a"), Some("2b"), "what git says, its commit: 1a → 2b");
        check("environment", Some("\"host\""), Some("{\"sandbox\":{}}"), "environment: \"host\" → {\"sandbox\":{}}");
    }

    #[test]
    fn a_changed_script_is_told_line_by_line() {
        check(
            "step:0:0",
            Some(r#"{"run":"set -x\nmake\nmake test\nexit"}"#),
            Some(r#"{"run":"set -x\nmake all\nmake test\necho ok\nexit","shell":"bash"}"#),
            "step 1, its command:\n  - make\n  + make all\n  + echo ok\nstep 1, shell is new: \"bash\"",
        );
        check("step:1:lint", None, Some(r#"{"run":"lint"}"#), "step 2 (lint) is new:\n  + lint");
    }
}
