//! Texts with `${{ }}` in the words of another system, and variables of scripts under names that people would give.

use graph::{Job, Text};

/// What comes of the parts of a text.
pub(super) enum Part<'t> {
    /// As it is.
    Plain(&'t str),
    /// The expression between `${{` and `}}`.
    Expression(&'t str),
    /// The value of an axis.
    Axis(&'t str),
}

/// The parts of a text: marks of axes everywhere, expressions only in a template.
pub(super) fn parts(text: &Text) -> Vec<Part<'_>> {
    let is_template = matches!(text, Text::Template(_));
    let mut parts = Vec::new();
    for (index, piece) in text.as_written().split(super::legs::MARK).enumerate() {
        if index % 2 == 1 {
            parts.push(Part::Axis(piece));
            continue;
        }
        let mut rest = piece;
        while let Some((before, after)) = rest.split_once("${{").filter(|_| is_template) {
            let Some((expression, behind)) = after.split_once("}}") else { break };
            parts.push(Part::Plain(before));
            parts.push(Part::Expression(expression.trim()));
            rest = behind;
        }
        parts.push(Part::Plain(rest));
    }
    parts
}

/// A text in other words; `None` if one of its expressions has none.
pub(super) fn in_words(
    text: &Text,
    axis: impl Fn(&str) -> String,
    expression: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let mut out = String::new();
    for part in parts(text) {
        match part {
            Part::Plain(plain) => out.push_str(plain),
            Part::Axis(name) => out.push_str(&axis(name)),
            Part::Expression(written) => out.push_str(&expression(written)?),
        }
    }
    Some(out)
}

/// What an expression holds that another system may call otherwise.
pub(super) enum Word<'w> {
    /// `needs.build.outputs.x` as a list of names, `*` for all; with the byte at which it begins.
    Path(usize, &'w [&'w str]),
    /// The name of a function that is called.
    Function(&'w str),
    /// A text between its quotes, with the byte at which the first of these stands.
    Quoted(usize, &'w str),
}

/// An expression with its words replaced by others. `None` if one of them has none.
pub(super) fn translated(expression: &str, other: impl Fn(Word<'_>) -> Option<String>) -> Option<String> {
    let mut out = String::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        if first == '\'' {
            let end = rest[1..].find('\'').map_or(rest.len(), |end| end + 2);
            out.push_str(&other(Word::Quoted(expression.len() - rest.len(), &rest[..end]))?);
            rest = &rest[end..];
            continue;
        }
        if !(first.is_ascii_alphabetic() || first == '_') {
            // A number's exponent is no name.
            let end = match first.is_ascii_digit() {
                true => rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len()),
                false => first.len_utf8(),
            };
            out.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        let start = expression.len() - rest.len();
        let (names, behind) = names(rest);
        rest = behind;
        match names.as_slice() {
            [word] if matches!(*word, "true" | "false" | "null" | "NaN" | "Infinity") => out.push_str(word),
            [name] if rest.trim_start().starts_with('(') => out.push_str(&other(Word::Function(name))?),
            names => out.push_str(&other(Word::Path(start, names))?),
        }
    }
    Some(out)
}

/// The names of a path that stands at the start: `a.b-c['d'].*`; and what is behind it.
fn names(text: &str) -> (Vec<&str>, &str) {
    let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_' || character == '-';
    let mut names = Vec::new();
    let mut rest = text;
    loop {
        let end = match rest.starts_with('*') {
            true => 1,
            false => rest.find(|character| !is_name(character)).unwrap_or(rest.len()),
        };
        names.push(&rest[..end]);
        rest = &rest[end..];
        loop {
            let in_quotes = rest.strip_prefix("['").and_then(|inside| inside.split_once("']"));
            let all = || rest.strip_prefix("[*]").map(|behind| ("*", behind));
            let Some((name, behind)) = in_quotes.or_else(all) else { break };
            names.push(name);
            rest = behind;
        }
        match rest.strip_prefix('.').filter(|after| {
            after.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_' || first == '*')
        }) {
            Some(after) => rest = after,
            None => return (names, rest),
        }
    }
}

/// Whether an expression is one path to one value and nothing else; its names.
pub(super) fn single_path(expression: &str) -> Option<Vec<&str>> {
    let (names, rest) = names(expression);
    (rest.is_empty() && !names[0].is_empty() && !names.contains(&"*")).then_some(names)
}

/// Names of variables that lowering made become ones after what they hold: `ROPEWALK_EXPR_1` with
/// `${{ needs.build.outputs.version }}` becomes `VERSION`.
pub(super) fn rename_variables(job: &mut Job) {
    for step in &mut job.steps {
        let made: Vec<String> = step.env.keys().filter(|name| name.starts_with("ROPEWALK_EXPR_")).cloned().collect();
        for name in made {
            let Some(value) = step.env.remove(&name) else { continue };
            let last = value.as_written().rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let word = last.into_iter().find(|word| word.starts_with(|first: char| first.is_ascii_alphabetic()));
            let word = match value {
                Text::Template(_) => word.unwrap_or("VALUE").to_ascii_uppercase(),
                Text::Plain(_) => "VALUE".to_owned(),
            };
            let is_free = |word: &str| {
                !step.env.contains_key(word)
                    && !job.env.contains_key(word)
                    && !job.secrets.contains(word)
                    && !word.is_empty()
                    && word != "PATH"
                    && word != "HOME"
                    && !step.run.contains(&format!("${word}"))
                    && !step.run.contains(&format!("${{{word}}}"))
            };
            let mut fresh = word.clone();
            let mut number = 2;
            while !is_free(&fresh) {
                fresh = format!("{word}_{number}");
                number += 1;
            }
            step.run = step.run.replace(&format!("${{{name}}}"), &format!("${{{fresh}}}")).into();
            step.env.insert(fresh, value);
        }
    }
}

/// A script with the names of Ropewalk's own variables in other words; those without one are listed.
pub(super) fn own_variables(script: &str, word: impl Fn(&str) -> Option<&'static str>) -> (String, Vec<String>) {
    let mut out = String::new();
    let mut missing = Vec::new();
    let mut rest = script;
    while let Some(start) = rest.find("ROPEWALK_") {
        let name_end =
            rest[start..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(rest.len(), |end| start + end);
        let name = &rest[start..name_end];
        out.push_str(&rest[..start]);
        match word(name) {
            Some(word) => out.push_str(word),
            None => {
                out.push_str(name);
                if !missing.iter().any(|known| known == name) {
                    missing.push(name.to_owned());
                }
            }
        }
        rest = &rest[name_end..];
    }
    out.push_str(rest);
    (out, missing)
}
