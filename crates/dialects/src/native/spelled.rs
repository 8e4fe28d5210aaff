//! Where the expressions of a text spell what they read, and with which texts they compare it.
//!
//! What an expression reads is said by the expression itself; this only finds the places again, without the words of
//! scripts around expressions and of strings inside them. What is spelled in a way that is not understood here has no place.

use std::ops::{Range, RangeInclusive};

use expression::{Condition, ContextPath, PathKey, Scope, Segment, Template};

/// One read of a context, as it is spelled: `needs.build.result`, `needs['build'].result`.
#[derive(Debug)]
pub(crate) struct Spelled<'t> {
    /// The context and the keys; `*` for all.
    pub keys: Vec<&'t str>,
    /// Where each of the keys stands, those in brackets with what closes them.
    places: Vec<Range<usize>>,
    pub compared: Option<Compared<'t>>,
}

/// A text with which what is read is compared.
#[derive(Debug)]
pub(crate) struct Compared<'t> {
    pub text: &'t str,
    /// Where it stands, with its quotes.
    pub place: Range<usize>,
    pub by: Comparison,
}

/// How something is compared with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// By `==` or `!=`; or as `contains(it, 'text')` with each of all.
    Whole,
    /// As `contains(it, 'text')` with one text, which is also true of a part of it.
    Part,
}

impl Spelled<'_> {
    /// Where it begins in the text, in bytes.
    pub(crate) fn start(&self) -> usize {
        self.places[0].start
    }

    /// Whether this is the path.
    fn is(&self, path: &ContextPath) -> bool {
        let is_key = |(key, spelled): (&PathKey, &&str)| match key {
            PathKey::Name(name) => **name == **spelled,
            PathKey::Any => *spelled == "*",
            PathKey::Computed => false,
        };
        let known = path.keys.iter().take_while(|key| **key != PathKey::Computed).count();
        self.keys[0].eq_ignore_ascii_case(&path.context)
            && self.keys.len() == known + 1
            && path.keys.iter().zip(&self.keys[1..]).all(is_key)
    }
}

/// Where a text spells a path from one key to another, both included; the context is the first. Nowhere is the empty range.
pub(crate) fn place(text: &str, path: &ContextPath, keys: RangeInclusive<usize>) -> Range<usize> {
    let spelled = spelled(text).into_iter().find(|spelled| spelled.is(path));
    let place =
        |spelled: Spelled<'_>| Some(spelled.places.get(*keys.start())?.start..spelled.places.get(*keys.end())?.end);
    spelled.and_then(place).unwrap_or(0..0)
}

/// All reads of contexts in a template; of a text without `${{ }}`, which must be a condition, in all of it.
pub(crate) fn spelled(text: &str) -> Vec<Spelled<'_>> {
    if !Template::is_needed(text) {
        let (condition, _) = Condition::read(text, &Scope::default());
        return condition.expression().map(|_| spelled_in(text, 0..text.len())).unwrap_or_default();
    }
    let (template, _) = Template::read(text, &Scope::default());
    let places = template.segments().iter().filter_map(|segment| match segment {
        Segment::Expression { expression, offset, .. } => Some(*offset..*offset + expression.text().len()),
        Segment::Text { .. } => None,
    });
    places.flat_map(|place| spelled_in(text, place)).collect()
}

/// A word of an expression, with its place.
#[derive(Clone, Debug)]
struct Word<'t> {
    text: &'t str,
    range: Range<usize>,
}

impl<'t> Word<'t> {
    /// What stands between the quotes, if it is a string without a quote in it.
    fn string(&self) -> Option<&'t str> {
        self.text.strip_prefix('\'')?.strip_suffix('\'').filter(|inside| !inside.contains('\''))
    }

    fn is_name(&self) -> bool {
        self.text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
    }
}

fn spelled_in(text: &str, place: Range<usize>) -> Vec<Spelled<'_>> {
    let words = words(text, place);
    let is = |at: usize, word: &str| words.get(at).is_some_and(|found| found.text == word);
    let mut found = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let first = at;
        at += 1;
        let is_key = first.checked_sub(1).is_some_and(|before| is(before, "."));
        if !words[first].is_name() || is_key || is(at, "(") {
            continue;
        }
        let (mut keys, mut places) = (vec![words[first].text], vec![words[first].range.clone()]);
        loop {
            let (key, next) = match words.get(at..) {
                Some([dot, key, ..]) if dot.text == "." && (key.is_name() || key.text == "*") => (key.text, at + 2),
                Some([open, key, close, ..]) if open.text == "[" && close.text == "]" => match key.string() {
                    Some(name) => (name, at + 3),
                    None if key.text == "*" => (key.text, at + 3),
                    None => break,
                },
                _ => break,
            };
            keys.push(key);
            places.push(words[at + 1].range.start..words[next - 1].range.end);
            at = next;
        }
        let is_all = keys.contains(&"*");
        let compared = compared(&words, first, at).map(|(text, place, by)| Compared {
            text,
            place,
            by: if is_all { Comparison::Whole } else { by },
        });
        found.push(Spelled { keys, places, compared });
    }
    found
}

/// The string with which what stands from `first` to before `behind` is compared.
fn compared<'t>(words: &[Word<'t>], first: usize, behind: usize) -> Option<(&'t str, Range<usize>, Comparison)> {
    let word = |at: Option<usize>| at.and_then(|at| words.get(at));
    let is_comparison = |word: Option<&Word<'_>>| word.is_some_and(|word| matches!(word.text, "==" | "!="));
    let (before, next) = (word(first.checked_sub(1)), word(Some(behind)));
    let (string, by) = if is_comparison(next) && before.is_none_or(|word| word.text != "!") {
        (word(Some(behind + 1)), Comparison::Whole)
    } else if is_comparison(before) && next.is_none_or(|word| !matches!(word.text, "." | "[")) {
        (word(first.checked_sub(2)), Comparison::Whole)
    } else {
        let is_contains = before.is_some_and(|word| word.text == "(")
            && word(first.checked_sub(2)).is_some_and(|word| word.text.eq_ignore_ascii_case("contains"))
            && next.is_some_and(|word| word.text == ",")
            && word(Some(behind + 2)).is_some_and(|word| word.text == ")");
        (word(Some(behind + 1)).filter(|_| is_contains), Comparison::Part)
    };
    string.and_then(|word| Some((word.string()?, word.range.clone(), by)))
}

fn words(text: &str, place: Range<usize>) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut at = place.start;
    while let Some(rest) = text.get(at..place.end).filter(|rest| !rest.is_empty()) {
        let first = rest.chars().next().unwrap_or_default();
        let length = match first {
            '\'' => string_length(rest),
            _ if first.is_ascii_alphanumeric() || first == '_' => {
                let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
                rest.find(|letter| !is_part(letter)).unwrap_or(rest.len())
            }
            _ if ["==", "!=", "<=", ">=", "&&", "||"].iter().any(|operator| rest.starts_with(operator)) => 2,
            _ => first.len_utf8(),
        };
        if !first.is_whitespace() {
            words.push(Word { text: &rest[..length], range: at..at + length });
        }
        at += length;
    }
    words
}

/// How long the string is at the beginning of a text; a quote in it is doubled.
fn string_length(text: &str) -> usize {
    let mut at = 1;
    while let Some(end) = text[at..].find('\'') {
        at += end + 1;
        if !text[at..].starts_with('\'') {
            return at;
        }
        at += 1;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::{Comparison, spelled};

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let found: Vec<String> = spelled(text)
            .iter()
            .map(|spelled| {
                let sign = |by| if by == Comparison::Whole { "=" } else { "~" };
                let compared = spelled.compared.as_ref();
                let compared = compared.map(|with| format!(" {} {}", sign(with.by), with.text)).unwrap_or_default();
                let (first, last) = (&spelled.places[0], &spelled.places[spelled.places.len() - 1]);
                format!("{}: {}{compared}", spelled.keys.join("/"), &text[first.start..last.end])
            })
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn paths_are_found_as_they_are_spelled() {
        check("needs.a.result", &["needs/a/result: needs.a.result"]);
        check("Needs [ 'a/1' ] . outputs.x-y", &["Needs/a/1/outputs/x-y: Needs [ 'a/1' ] . outputs.x-y"]);
        check("needs.*.result", &["needs/*/result: needs.*.result"]);
        check("matrix[env.x].y", &["matrix: matrix", "env/x: env.x"]);
    }

    #[test]
    fn scripts_and_strings_spell_nothing() {
        check("# needs.a\necho ${{ format('needs.a {0} it''s', needs.b) }} needs.c", &["needs/b: needs.b"]);
        check("it is plain", &[]);
        check("${{ 1 + }} ${{ nofun(needs.a) }}", &["needs/a: needs.a"]);
    }

    #[test]
    fn comparisons_with_texts() {
        check(
            "needs.a.result == 'x' && 'y' != job.status",
            &["needs/a/result: needs.a.result = x", "job/status: job.status = y"],
        );
        check("contains(needs.*.result, 'x')", &["needs/*/result: needs.*.result = x"]);
        check("contains(needs.a.result, 'x')", &["needs/a/result: needs.a.result ~ x"]);
        check(
            "!job.status == 'x' || job.status == job.name || contains('x', job.name)",
            &["job/status: job.status", "job/status: job.status", "job/name: job.name", "job/name: job.name"],
        );
    }
}
