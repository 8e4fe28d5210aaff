//! Marks become places: spans of the program's sources, or of the config files where a plugin hands on what they say.

use std::collections::HashMap;

use graph::{Diagnostic, Digest, Hole, Location};

use super::reading::{MARKED, Mark};
use super::reply::{DiagnosticReply, Reply};
use crate::native::Written;
use crate::tree::{Node, NodeValue, Position, Source, Sources, Span};

/// The name of a place that the program did not say.
const UNKNOWN_FILE: &str = "program";

/// The reply with places; its sources are added to `all`, which holds those of the config files so far.
pub(super) fn written(
    reply: Reply,
    sources: Vec<(String, String)>,
    roots: &[Node],
    all: &mut Sources,
    program: Digest,
) -> Written {
    let Reply { files, mut hooks, mut document, holes, questions, statuses, diagnostics, marks, .. } = reply;
    let spans = spans(&marks, &files, sources, all);
    let unknown = all.keep(Source::unseen(UNKNOWN_FILE, vec![Position { line: 1, column: 1 }]));
    let unknown = spans.first().copied().unwrap_or(Span { source: unknown, start: 0, end: 1 });
    let resolved = |span: Span, around: Span| {
        if span.source == MARKED { spans.get(span.start as usize).copied().unwrap_or(around) } else { around }
    };
    for hook in &mut hooks {
        let around = resolved(hook.place, unknown);
        hook.on.iter_mut().for_each(|on| place(on, around, &resolved));
    }
    if let Some(document) = &mut document {
        place(document, unknown, &resolved);
        super::document::take_over(document, roots, all);
    }
    let location = |span: Span| all.location(resolved(span, unknown));
    Written {
        document,
        hooks: hooks.into_iter().map(|hook| hook.on).collect(),
        holes: holes
            .into_iter()
            .map(|hole| (Hole { name: hole.name, after: hole.after }, resolved(hole.place, unknown)))
            .collect(),
        questions,
        statuses,
        diagnostics: diagnostics.into_iter().map(|diagnostic| told(diagnostic, location)).collect(),
        program,
        files,
    }
}

fn told(diagnostic: DiagnosticReply, location: impl Fn(Span) -> Location) -> Diagnostic {
    Diagnostic {
        code: diagnostic.code.into(),
        severity: diagnostic.severity,
        message: diagnostic.message,
        location: diagnostic.place.map(&location),
        label: diagnostic.label,
        help: diagnostic.help,
        related: diagnostic.related.into_iter().map(|(span, remark)| (location(span), remark)).collect(),
    }
}

/// Gives every node under this one its place; what has none takes that of what holds it.
fn place(node: &mut Node, around: Span, resolved: &impl Fn(Span, Span) -> Span) {
    node.span = resolved(node.span, around);
    let own = node.span;
    match &mut node.value {
        NodeValue::Sequence(items) => items.iter_mut().for_each(|item| place(item, own, resolved)),
        NodeValue::Mapping(entries) => {
            for entry in entries {
                entry.key.span = resolved(entry.key.span, own);
                let key = entry.key.span;
                place(&mut entry.value, key, resolved);
            }
        }
        _ => {}
    }
}

/// The span of every mark.
fn spans(marks: &[Mark], files: &[String], texts: Vec<(String, String)>, all: &mut Sources) -> Vec<Span> {
    let n_config_files = all.count();
    let mut texts: HashMap<String, String> = texts.into_iter().collect();
    let mut seen: HashMap<i64, u32> = HashMap::new();
    // Places in files whose text nobody has, by file.
    let mut unseen: HashMap<i64, Vec<Position>> = HashMap::new();
    let mut spans = Vec::with_capacity(marks.len());
    // A second look at those of a file whose text is missing: its source can be made only when all are known.
    let mut open: Vec<usize> = Vec::new();
    for (index, mark) in marks.iter().enumerate() {
        let source = match seen.get(&mark.file) {
            Some(&source) => Some(source),
            None => source_of(mark.file, files, &mut texts, n_config_files, all).inspect(|&source| {
                seen.insert(mark.file, source);
            }),
        };
        let position = Position { line: mark.line.max(1), column: mark.column.max(1) };
        match source.and_then(|source| token(all, source, position)) {
            Some(span) => spans.push(span),
            None => {
                let places = unseen.entry(mark.file).or_default();
                let start = u32::try_from(places.len()).unwrap_or(u32::MAX);
                places.push(position);
                spans.push(Span { source: u32::MAX, start, end: start.saturating_add(1) });
                open.push(index);
            }
        }
    }
    let mut files_unseen: Vec<(i64, Vec<Position>)> = unseen.into_iter().collect();
    files_unseen.sort_by_key(|(file, _)| *file);
    let numbers: HashMap<i64, u32> = files_unseen
        .into_iter()
        .map(|(file, places)| {
            let name = usize::try_from(file).ok().and_then(|file| files.get(file)).map_or(UNKNOWN_FILE, String::as_str);
            (file, all.keep(Source::unseen(name, places)))
        })
        .collect();
    for index in open {
        spans[index].source = numbers[&marks[index].file];
    }
    spans
}

/// The source of a file that a mark names, if its text is there.
fn source_of(
    file: i64,
    files: &[String],
    texts: &mut HashMap<String, String>,
    n_config_files: usize,
    all: &mut Sources,
) -> Option<u32> {
    match usize::try_from(file) {
        Ok(index) => {
            let name = files.get(index)?;
            let text = texts.remove(name)?;
            u32::try_from(text.len()).ok()?;
            Some(all.add(name, text.into()))
        }
        Err(_) => {
            let index = usize::try_from(-1 - file).ok().filter(|index| *index < n_config_files)?;
            u32::try_from(index).ok()
        }
    }
}

/// What stands at a place: a name, a text in quotes, or else one character. `None` if the text has no such place.
fn token(all: &Sources, source: u32, position: Position) -> Option<Span> {
    let (text, start) = all.at(source, position)?;
    let rest = &text[start..];
    let name = rest.find(|character: char| !character.is_alphanumeric() && character != '_').unwrap_or(rest.len());
    let length = match rest.chars().next()? {
        _ if name > 0 => name,
        '"' => rest[1..].find(['"', '\n']).map_or(1, |end| end + 2),
        '\n' | '\r' => 0,
        character => character.len_utf8(),
    };
    let start = u32::try_from(start).ok()?;
    Some(Span { source, start, end: start + u32::try_from(length).ok()? })
}
