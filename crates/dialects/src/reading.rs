//! What the four readers share: the bounds they count against, the faults they collect, and the law of repeated keys.

use std::collections::HashMap;

use graph::{Diagnostic, Location};

use crate::tree::{DuplicateKeys, Entry, Limits, Node, NodeValue, Sources, Span, Style};

/// Maps up to this size are searched for repeated keys by comparing all pairs, which needs no memory.
const PAIRWISE_ENTRIES_MAX: usize = 12;

/// The fault is reported and nothing more of this file can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stop;

/// One file on its way to a tree.
pub(crate) struct Reading<'s> {
    sources: &'s Sources,
    source: u32,
    /// The whole text of the file.
    pub text: &'s str,
    pub limits: Limits,
    nodes: usize,
    diagnostics: Vec<Diagnostic>,
    diagnostics_dropped: usize,
}

impl<'s> Reading<'s> {
    pub fn new(sources: &'s Sources, source: u32, limits: Limits) -> Reading<'s> {
        let text = sources.source(Span { source, start: 0, end: 0 }).text();
        Reading { sources, source, text, limits, nodes: 0, diagnostics: Vec::new(), diagnostics_dropped: 0 }
    }

    /// Ends the reading with everything that was found wrong, in the order of the file.
    pub fn finish(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|diagnostic| diagnostic.location.as_ref().map(|location| location.start));
        if self.diagnostics_dropped > 0 {
            let (count, bound) = (self.diagnostics_dropped, self.limits.diagnostics_max);
            self.diagnostics.push(
                Diagnostic::error("too-many-faults", format!("further faults of this file are not shown: {count}"))
                    .help(format!("mend the first ones; at most {bound} are shown at once")),
            );
        }
        self.diagnostics
    }

    pub fn span(&self, start: usize, end: usize) -> Span {
        let clamp = |offset: usize| offset.min(self.text.len()) as u32;
        Span { source: self.source, start: clamp(start), end: clamp(end.max(start)) }
    }

    /// The place of a span for a fault.
    ///
    /// Once no more faults are kept, only its file is told: a line is counted from its start, and a hostile file has
    /// as many faults as bytes.
    pub fn location(&self, span: Span) -> Location {
        if self.is_full() {
            let file = self.sources.source(span).name().clone();
            return Location { file, line: 1, column: 1, start: span.start, end: span.end };
        }
        self.sources.location(span)
    }

    /// Whether further faults are only counted.
    pub fn is_full(&self) -> bool {
        self.diagnostics.len() >= self.limits.diagnostics_max
    }

    /// Forgets the faults so far.
    pub fn forget_faults(&mut self) {
        self.diagnostics.clear();
        self.diagnostics_dropped = 0;
    }

    /// The character that starts at this byte, as a span; the end of the text is an empty one.
    pub fn character_at(&self, offset: usize) -> Span {
        let mut start = offset.min(self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let length = self.text[start..].chars().next().map_or(0, char::len_utf8);
        self.span(start, start + length)
    }

    /// Keeps a fault, or counts it beyond [`Limits::diagnostics_max`].
    pub fn report(&mut self, diagnostic: Diagnostic) {
        if self.is_full() {
            self.diagnostics_dropped += 1;
        } else {
            self.diagnostics.push(diagnostic);
        }
    }

    /// Counts faults that somebody else has dropped.
    pub fn drop_faults(&mut self, count: usize) {
        self.diagnostics_dropped += count;
    }

    /// Keeps a fault after which nothing can be read.
    pub fn stop<T>(&mut self, diagnostic: Diagnostic) -> Result<T, Stop> {
        self.report(diagnostic);
        Err(Stop)
    }

    /// Counts `count` nodes that begin at `span`.
    pub fn count(&mut self, count: usize, span: Span) -> Result<(), Stop> {
        self.nodes = self.nodes.saturating_add(count);
        if self.nodes <= self.limits.nodes_max {
            return Ok(());
        }
        let bound = self.limits.nodes_max;
        self.stop(
            Diagnostic::error("too-many-values", format!("the file holds more than {bound} values"))
                .at(self.location(span), "the first one too many")
                .help("split the pipeline into several files, or let a matrix make the jobs"),
        )
    }

    /// Refuses a list or map that would be inside too many others.
    pub fn check_depth(&mut self, depth: usize, span: Span) -> Result<(), Stop> {
        if depth <= self.limits.depth_max {
            return Ok(());
        }
        let diagnostic = self.too_deep(span);
        self.stop(diagnostic)
    }

    /// The fault of a list or map inside too many others.
    pub fn too_deep(&self, span: Span) -> Diagnostic {
        let bound = self.limits.depth_max;
        Diagnostic::error("too-deep", format!("lists and maps are nested more than {bound} deep"))
            .at(self.location(span), "one level too many")
            .help("no key of a pipeline lies this deep; look for a bracket that is not closed")
    }

    /// A map of these entries, after the law of repeated keys. Lists, maps and nulls as keys are not compared.
    pub fn mapping(&mut self, mut entries: Vec<Entry>, law: DuplicateKeys, span: Span, style: Style) -> Node {
        let repeated = repeated_keys(&entries);
        if !repeated.is_empty() {
            match law {
                DuplicateKeys::Error => {
                    for &(first, again) in &repeated {
                        let (first, again) = (&entries[first].key, &entries[again].key);
                        self.report(duplicate_key(again, self.location(first.span), self.location(again.span)));
                    }
                }
                DuplicateKeys::LastWins => {
                    for &(first, again) in &repeated {
                        entries[first].value = std::mem::replace(&mut entries[again].value, null(span));
                    }
                }
            }
            let mut again = repeated.iter().map(|&(_, again)| again).peekable();
            let mut index = 0;
            entries.retain(|_| {
                let is_again = again.next_if_eq(&index).is_some();
                index += 1;
                !is_again
            });
        }
        Node::new(NodeValue::Mapping(entries), span, style)
    }
}

fn null(span: Span) -> Node {
    Node::new(NodeValue::Null, span, Style::Plain)
}

/// Pairs of entries with one name: the first with it, and each later one; sorted by the later.
fn repeated_keys(entries: &[Entry]) -> Vec<(usize, usize)> {
    let mut repeated = Vec::new();
    if entries.len() <= PAIRWISE_ENTRIES_MAX {
        for (again, entry) in entries.iter().enumerate() {
            let Some(name) = entry.name() else { continue };
            if let Some(first) = entries[..again].iter().position(|earlier| earlier.name() == Some(name)) {
                repeated.push((first, again));
            }
        }
        return repeated;
    }
    let mut firsts = HashMap::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let Some(name) = entry.name() else { continue };
        let first = *firsts.entry(name).or_insert(index);
        if first != index {
            repeated.push((first, index));
        }
    }
    repeated
}

fn duplicate_key(key: &Node, first: Location, again: Location) -> Diagnostic {
    let name = key.scalar_text().unwrap_or_default();
    Diagnostic::error("duplicate-key", format!("`{name}` stands twice in one map"))
        .at(again, format!("line {} has it already", first.line))
        .related(first, "the first one")
        .help("keep one of them, or merge them by hand")
}

/// The fault of a file that is too long to be read.
pub(crate) fn file_too_large(name: &str, bytes: usize, limits: Limits) -> Diagnostic {
    let bound = limits.bytes_max;
    Diagnostic::error("file-too-large", format!("`{name}` has {bytes} bytes; at most {bound} are read"))
        .help("split the pipeline into several files, or let a matrix make the jobs")
}

/// The fault of bytes that are no text.
pub(crate) fn not_utf8(bytes: &[u8], offset: usize, location: Location) -> Diagnostic {
    let help = match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [_, 0, ..] | [0, ..] => {
            "the file looks like UTF-16; save it as UTF-8 without a byte order mark".to_owned()
        }
        _ => "save the file as UTF-8".to_owned(),
    };
    let byte = bytes.get(offset).copied().unwrap_or_default();
    Diagnostic::error("not-utf8", format!("the file is not UTF-8 text at byte {offset}"))
        .at(location, format!("the byte 0x{byte:02x} has no meaning here"))
        .help(help)
}

/// The fault of a file that breaks its notation's grammar.
pub(crate) fn syntax(
    code: &'static str,
    message: impl Into<String>,
    location: Location,
    label: &str,
    help: &str,
) -> Diagnostic {
    Diagnostic::error(code, message).at(location, label).help(help)
}
