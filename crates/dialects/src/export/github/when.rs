//! What a job's `when` asks of the event, in GitHub's words.
//!
//! Which files changed GitHub does not ask: that counts as true whatever stands around it, as in Ropewalk where changes are
//! not known. All else comes out only if it never holds where Ropewalk's does not.

use graph::{Condition, EventKind};
use serde_json::Value;

use super::words::Reader;
use super::{alternatives, input};
use crate::native::when::spoken;

/// The expression, or `None` if it holds for every event; else the part of the `when` that GitHub has no words for.
pub(super) fn expression(when: &Condition, reader: Reader<'_>) -> Result<Option<String>, String> {
    part(when, Wanted::Holds, reader)
}

/// Whether it asks which files changed.
pub(super) fn asks_changes(when: &Condition) -> bool {
    match when {
        Condition::Changed(_) => true,
        Condition::All(parts) | Condition::Any(parts) => parts.iter().any(asks_changes),
        Condition::Not(part) => asks_changes(part),
        _ => false,
    }
}

/// What a condition must come to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Holds,
    Fails,
}

fn part(when: &Condition, wanted: Wanted, reader: Reader<'_>) -> Result<Option<String>, String> {
    match (when, wanted) {
        (Condition::Changed(_), _) => Ok(None),
        (Condition::Not(part), Wanted::Holds) => self::part(part, Wanted::Fails, reader),
        (Condition::Not(part), Wanted::Fails) => self::part(part, Wanted::Holds, reader),
        (Condition::All(parts), Wanted::Holds) | (Condition::Any(parts), Wanted::Fails) => {
            let parts: Vec<Option<String>> =
                parts.iter().map(|part| self::part(part, wanted, reader)).collect::<Result<_, _>>()?;
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            Ok(Some(parts.join(" && ")).filter(|_| !parts.is_empty()))
        }
        (Condition::Any(parts), Wanted::Holds) | (Condition::All(parts), Wanted::Fails) => {
            let parts: Vec<Option<String>> =
                parts.iter().map(|part| self::part(part, wanted, reader)).collect::<Result<_, _>>()?;
            Ok(parts.into_iter().collect::<Option<Vec<String>>>().map(|parts| one_of(&parts)))
        }
        (leaf, _) => self::leaf(leaf, wanted, reader).map(Some).ok_or_else(|| spoken(leaf)),
    }
}

fn one_of(parts: &[String]) -> String {
    match parts {
        [] => "false".to_owned(),
        [one] => one.clone(),
        parts => format!("({})", parts.join(" || ")),
    }
}

/// A question about the event.
fn leaf(leaf: &Condition, wanted: Wanted, reader: Reader<'_>) -> Option<String> {
    let equals = if wanted == Wanted::Holds { "==" } else { "!=" };
    match leaf {
        Condition::Branch(regex) => {
            let matches = matches(regex, &reader.branch(), wanted)?;
            // Of a tag Ropewalk asks which branches hold its commit.
            let tags = [EventKind::Tag, EventKind::Manual, EventKind::Command, EventKind::Build];
            let may_be_tag = wanted == Wanted::Fails && tags.into_iter().any(|kind| reader.starts_for(kind));
            Some(if may_be_tag { format!("github.ref_type == 'branch' && {matches}") } else { matches })
        }
        Condition::Tag(regex) => matches(regex, &reader.tag(), wanted),
        Condition::Actor(regex) => matches(regex, "github.actor", wanted),
        Condition::Event(kind) => {
            let (path, word) = reader.compared_kind(kind.name())?;
            Some(format!("{path} {equals} '{word}'"))
        }
        Condition::Param(name, value) => {
            // Where nobody fills it in, and it has no default, it is empty, which is like all that counts as false.
            let has_value = reader.plan.params.get(name).is_some_and(|field| field.default.is_some());
            let literal = match value {
                Value::String(text) if has_value || !text.is_empty() => format!("'{}'", text.replace('\'', "''")),
                Value::Bool(value) if has_value || *value => value.to_string(),
                Value::Number(number) if has_value || number.as_f64() != Some(0.0) => number.to_string(),
                _ => return None,
            };
            Some(format!("({}) {equals} {literal}", input(reader.plan, name)))
        }
        Condition::Changed(_) | Condition::All(_) | Condition::Any(_) | Condition::Not(_) => None,
    }
}

/// What of a regex matches.
#[derive(Debug, PartialEq, Eq)]
enum Matcher {
    Text(String),
    /// `.*`.
    Anything,
}

/// Whether a whole name, empty if there is none, matches a regex of texts and `.*`; or that it does not.
fn matches(regex: &str, name: &str, wanted: Wanted) -> Option<String> {
    let mut all = Vec::new();
    for alternative in alternatives(regex) {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let (matchers, is_exact) = matchers(alternative)?;
        if !is_exact && wanted == Wanted::Fails {
            return None;
        }
        all.push(match matchers.as_slice() {
            [Matcher::Text(text)] => format!("{name} == {}", quoted(text)),
            [Matcher::Anything] => format!("{name} != ''"),
            [Matcher::Text(text), Matcher::Anything] => format!("startsWith({name}, {})", quoted(text)),
            [Matcher::Anything, Matcher::Text(text)] => format!("endsWith({name}, {})", quoted(text)),
            [Matcher::Anything, Matcher::Text(text), Matcher::Anything] => {
                format!("contains({name}, {})", quoted(text))
            }
            _ => return None,
        });
    }
    let matches = one_of(&all);
    Some(match wanted {
        Wanted::Holds => matches,
        Wanted::Fails => format!("!({matches})"),
    })
}

/// The parts of a regex, and whether they match all that it does: a point without a backslash stands for itself, as people mean it
/// in versions.
fn matchers(regex: &str) -> Option<(Vec<Matcher>, bool)> {
    let mut matchers: Vec<Matcher> = Vec::new();
    let mut is_exact = true;
    let mut characters = regex.chars().peekable();
    while let Some(character) = characters.next() {
        let literal = match character {
            '.' if characters.next_if_eq(&'*').is_some() => {
                matchers.push(Matcher::Anything);
                continue;
            }
            '\\' => characters.next().filter(|next| !next.is_ascii_alphanumeric())?,
            '.' => {
                is_exact = false;
                '.'
            }
            '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '^' | '$' => return None,
            plain => plain,
        };
        if characters.peek().is_some_and(|next| "*+?{".contains(*next)) {
            return None;
        }
        match matchers.last_mut() {
            Some(Matcher::Text(text)) => text.push(literal),
            _ => matchers.push(Matcher::Text(literal.into())),
        }
    }
    Some((matchers, is_exact))
}

#[cfg(test)]
mod tests {
    use super::{Wanted, matches};

    #[track_caller]
    fn check(regex: &str, holds: Option<&str>, fails: Option<&str>) {
        assert_eq!(matches(regex, "x", Wanted::Holds).as_deref(), holds, "{regex}");
        assert_eq!(matches(regex, "x", Wanted::Fails).as_deref(), fails, "{regex}");
    }

    #[test]
    fn regexes_become_comparisons_that_match_no_more() {
        check("main", Some("x == 'main'"), Some("!(x == 'main')"));
        check(
            "main|release/.*",
            Some("(x == 'main' || startsWith(x, 'release/'))"),
            Some("!((x == 'main' || startsWith(x, 'release/')))"),
        );
        check(
            ".*-rc|.*beta.*",
            Some("(endsWith(x, '-rc') || contains(x, 'beta'))"),
            Some("!((endsWith(x, '-rc') || contains(x, 'beta')))"),
        );
        check(".*", Some("x != ''"), Some("!(x != '')"));
        check(r"v1\.0", Some("x == 'v1.0'"), Some("!(x == 'v1.0')"));
        check("v1.0", Some("x == 'v1.0'"), None);
        for unsayable in ["v[0-9]+", "ab+", r"a\.+", "a.b?", "(a|b)", r"\d", "a.*b", "", "a{2}", "^a"] {
            check(unsayable, None, None);
        }
    }
}
