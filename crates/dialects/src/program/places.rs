//! Marks become places: spans of the program's sources, or of the config files where a plugin hands on what they say.

use graph::{Diagnostic, Digest, Hole, Location};

use super::NamedFile;
use super::reading::{MARKED, Marks, UNMARKED};
use super::reply::{DiagnosticReply, Reply};
use crate::hashing::QuickMap;
use crate::native::{Words, Written};
use crate::tree::{Entry, Node, NodeValue, Position, Source, Sources, Span};

/// The name of a place that the program did not say.
const UNKNOWN_FILE: &str = "program";

/// The places of a session: every mark that it has met, and the sources they are in.
#[derive(Default)]
pub(super) struct Places {
    pub marks: Marks,
    /// The span of each mark.
    spans: Vec<Span>,
    /// The program's files as its replies name them, which marks count.
    pub files: Vec<String>,
    /// The same files as people know them.
    shown: Vec<String>,
    /// Their texts, until their source is made.
    texts: Vec<Option<String>>,
    /// The sources behind those of the config files.
    sources: Vec<Source>,
    /// The source of a file whose text is there, by file.
    seen: QuickMap<i64, Option<u32>>,
    /// The source of a file's places that nobody has the text of, by file.
    unseen: QuickMap<i64, u32>,
}

impl Places {
    /// Learns files that were not there before.
    pub(super) fn learn(&mut self, files: &[String], named: &mut dyn FnMut(&str) -> NamedFile) {
        for file in files.iter().skip(self.files.len()) {
            let NamedFile { name, text } = named(file);
            self.files.push(file.clone());
            self.shown.push(name);
            self.texts.push(text);
        }
    }

    /// Finds the spans of marks that were not there before. `all` holds the sources of the config files.
    fn resolve(&mut self, all: &mut Sources) {
        let n_config_files = all.count();
        for source in &self.sources {
            all.keep(source.clone());
        }
        for index in self.spans.len()..self.marks.list.len() {
            let mark = self.marks.list[index];
            let position = Position { line: mark.line.max(1), column: mark.column.max(1) };
            let source = self.source_of(mark.file, n_config_files, all);
            let span = source.and_then(|source| token(all, source, position));
            let span = span.unwrap_or_else(|| {
                let source = self.unseen(mark.file, all);
                all.add_place(source, position)
            });
            self.spans.push(span);
        }
        self.sources = all.from(n_config_files).to_vec();
    }

    /// The source of a file that a mark names, if its text is there.
    fn source_of(&mut self, file: i64, n_config_files: usize, all: &mut Sources) -> Option<u32> {
        let Self { shown, texts, seen, .. } = self;
        *seen.entry(file).or_insert_with(|| match usize::try_from(file) {
            Ok(index) => {
                let text = texts.get_mut(index)?.take()?;
                u32::try_from(text.len()).ok()?;
                Some(all.add(&shown[index], text.into()))
            }
            Err(_) => {
                let index = usize::try_from(-1 - i128::from(file)).ok().filter(|index| *index < n_config_files)?;
                u32::try_from(index).ok()
            }
        })
    }

    fn unseen(&mut self, file: i64, all: &mut Sources) -> u32 {
        let name =
            usize::try_from(file).ok().and_then(|file| self.shown.get(file)).map_or(UNKNOWN_FILE, String::as_str);
        *self.unseen.entry(file).or_insert_with(|| all.keep(Source::unseen(name, Vec::new())))
    }
}

/// The reply with places; its sources are added to `all`, which holds those of the config files so far.
pub(super) fn written(
    reply: Reply,
    places: &mut Places,
    roots: &[Node],
    all: &mut Sources,
    program: Digest,
) -> Written {
    let Reply { mut hooks, mut document, holes, questions, statuses, diagnostics, words, .. } = reply;
    places.resolve(all);
    let spans = &places.spans;
    let of_mark = |span: Span| (span.source == MARKED).then(|| spans.get(span.start as usize).copied()).flatten();
    let unknown = hooks.iter().find_map(|hook| of_mark(hook.place)).unwrap_or_else(|| {
        let source = all.keep(Source::unseen(UNKNOWN_FILE, vec![Position { line: 1, column: 1 }]));
        Span { source, start: 0, end: 1 }
    });
    // What has a place already was taken over from an earlier reply.
    let resolved = |span: Span, around: Span| match span {
        UNMARKED => around,
        Span { source: MARKED, .. } => of_mark(span).unwrap_or(around),
        span => span,
    };
    for hook in &mut hooks {
        let around = resolved(hook.place, unknown);
        hook.on.iter_mut().for_each(|on| place(on, around, &resolved));
    }
    if let Some(document) = &mut document {
        place_document(document, unknown, &words, &resolved);
        super::document::take_over(document, roots, all);
    }
    let location = |span: Span| all.location(resolved(span, unknown));
    Written {
        document,
        hook_names: hooks.iter().map(|hook| hook.name.clone()).collect(),
        hooks: hooks.into_iter().map(|hook| hook.on).collect(),
        holes: holes
            .into_iter()
            .map(|hole| (Hole { name: hole.name, after: hole.after }, resolved(hole.place, unknown)))
            .collect(),
        questions,
        statuses,
        diagnostics: diagnostics.into_iter().map(|diagnostic| told(diagnostic, location)).collect(),
        program,
        files: places.shown.clone(),
        words,
    }
}

/// Gives every node of the document its place, but those under jobs that were taken over with theirs.
fn place_document(document: &mut Node, around: Span, words: &[Words], resolved: &impl Fn(Span, Span) -> Span) {
    document.span = resolved(document.span, around);
    let own = document.span;
    let NodeValue::Mapping(entries) = &mut document.value else { return place(document, around, resolved) };
    for Entry { key, value } in entries {
        key.span = resolved(key.span, own);
        let jobs = match &mut value.value {
            NodeValue::Mapping(jobs) if jobs.len() == words.len() && key.scalar_text() == Some("jobs") => jobs,
            _ => {
                place(value, key.span, resolved);
                continue;
            }
        };
        value.span = resolved(value.span, key.span);
        for (job, words) in jobs.iter_mut().zip(words) {
            job.key.span = resolved(job.key.span, value.span);
            if matches!(words, Words::Fresh(_)) {
                place(&mut job.value, job.key.span, resolved);
            }
        }
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
