//! What people and programs are told: diagnostics as text with the lines they speak of, as JSON, and as SARIF.
//!
//! Texts of users go to terminals from here, so no control character or direction mark of theirs passes
//! [`text`] alive. JSON and SARIF carry them as JSON escapes.

use std::collections::BTreeMap;
use std::fmt::Write;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use graph::{Diagnostic, Location, Severity};
use serde_json::{Value, json};

use crate::tree::{Source, Sources};

/// Bytes of a source line that are laid out at most; of longer lines a window around the place.
const LINE_BYTES_MAX: usize = 4_096;
/// Characters of the window before the place.
const CHARACTERS_BEFORE: usize = 60;
/// Characters of the window from the start of the place.
const CHARACTERS_AFTER: usize = 80;
/// Characters of a message, label, help or file name that are shown at most.
const TEXT_CHARACTERS_MAX: usize = 2_000;
/// Columns of the screen the text is made for.
const SCREEN_COLUMNS: usize = 140;

/// Whether the text may hold colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// Plain characters only.
    Never,
    /// With the escape sequences of ANSI terminals.
    Always,
}

/// All diagnostics as text for people, each with the line it speaks of, carets, cause and help, parted by empty lines.
///
/// Ends with a line break unless there are none. Where a file is not among the sources only its place is named.
pub fn text(diagnostics: &[Diagnostic], sources: &Sources, color: Color) -> String {
    let renderer = match color {
        Color::Never => Renderer::plain(),
        Color::Always => Renderer::styled(),
    };
    let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(SCREEN_COLUMNS);
    let mut out = String::new();
    for (index, diagnostic) in diagnostics.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        for line in renderer.render(&[group(diagnostic, sources)]).lines().filter(|line| !is_nameless(line)) {
            out.push_str(line);
            out.push('\n');
        }
        // What a compiler or a test said stands as it was said.
        for line in diagnostic.message.lines().skip(1) {
            out.push_str(harmless(line).trim_end());
            out.push('\n');
        }
    }
    out
}

/// Whether a rendered line is the `:::` over a source without a name: its name stands over it already.
fn is_nameless(line: &str) -> bool {
    let mut bare = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        bare.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    bare.push_str(rest);
    bare.trim() == ":::"
}

/// The count for the last line: "2 errors, 1 warning", "1 error", "nothing is wrong".
pub fn summary(diagnostics: &[Diagnostic]) -> String {
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
    let warnings = diagnostics.len() - errors;
    let counted = |count: usize, word: &str| match count {
        0 => None,
        1 => Some(format!("1 {word}")),
        _ => Some(format!("{count} {word}s")),
    };
    let parts: Vec<String> = [counted(errors, "error"), counted(warnings, "warning")].into_iter().flatten().collect();
    if parts.is_empty() { "nothing is wrong".to_owned() } else { parts.join(", ") }
}

fn group(diagnostic: &Diagnostic, sources: &Sources) -> Group<'static> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let first = diagnostic.message.lines().next().unwrap_or_default();
    let title = level.primary_title(harmless(first)).id(harmless(&diagnostic.code));
    let mut group = Group::with_title(title);
    if let Some(location) = &diagnostic.location {
        group = place(group, location, &diagnostic.label, AnnotationKind::Primary, sources);
    }
    for (location, remark) in &diagnostic.related {
        group = place(group, location, remark, AnnotationKind::Context, sources);
    }
    if !diagnostic.help.is_empty() {
        group = group.element(Level::HELP.message(harmless(&diagnostic.help)));
    }
    group
}

/// Adds the name of a place and, if its source is known, the line with its label.
fn place(
    group: Group<'static>,
    location: &Location,
    label: &str,
    kind: AnnotationKind,
    sources: &Sources,
) -> Group<'static> {
    let path = harmless(&location.file);
    let line = location.line as usize;
    let Some(source) = sources.named(&location.file) else {
        return group.element(Origin::path(path).line(line).char_column(location.column as usize));
    };
    let shown = ShownLine::new(source, location);
    let annotation = kind.span(shown.start..shown.end).label(harmless(label));
    let snippet = Snippet::source(shown.text).line_start(line).annotation(annotation);
    match shown.cut {
        // The snippet's own place would count from the cut.
        Cut::Before => {
            group.element(Origin::path(path).line(line).char_column(location.column as usize)).element(snippet)
        }
        Cut::Nowhere => group.element(snippet.path(path)),
    }
}

/// The source line on which a place starts, made harmless, and the bytes of it that are marked.
struct ShownLine {
    text: String,
    start: usize,
    end: usize,
    cut: Cut,
}

/// Where the beginning of a line was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Nowhere,
    Before,
}

impl ShownLine {
    /// What of the place goes on in further lines is not marked.
    fn new(source: &Source, location: &Location) -> ShownLine {
        let text = source.text();
        let start = boundary_before(text, location.start as usize);
        let end = boundary_before(text, location.end as usize).max(start);
        let is_line_end = |character: char| character == '\n' || character == '\r';
        let line_start = text[..start].rfind(is_line_end).map_or(0, |position| position + 1);
        let line_end = text[start..].find(is_line_end).map_or(text.len(), |position| start + position);
        let (mut before, mut after) = (&text[line_start..start], &text[start..line_end]);
        let mut cut = Cut::Nowhere;
        if line_end - line_start > LINE_BYTES_MAX {
            after = first_characters(after, CHARACTERS_AFTER);
            let kept = last_characters(before, CHARACTERS_BEFORE);
            cut = if kept.len() < before.len() { Cut::Before } else { Cut::Nowhere };
            before = kept;
        }
        // A point is shown under the character after it.
        let point = first_characters(after, 1).len();
        let (marked, rest) = after.split_at((end - start).min(after.len()).max(point));
        let ellipsis = if cut == Cut::Before { "…" } else { "" };
        let (before, marked, rest) = (format!("{ellipsis}{}", visible(before)), visible(marked), visible(rest));
        let (start, end) = (before.len(), before.len() + marked.len());
        ShownLine { text: format!("{before}{marked}{rest}"), start, end, cut }
    }
}

/// The nearest character boundary at or before an offset, or the end.
fn boundary_before(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

fn first_characters(text: &str, count: usize) -> &str {
    text.char_indices().nth(count).map_or(text, |(position, _)| &text[..position])
}

fn last_characters(text: &str, count: usize) -> &str {
    if count == 0 {
        return "";
    }
    text.char_indices().rev().nth(count - 1).map_or(text, |(position, _)| &text[position..])
}

/// A message's text as terminals may have it: at most [`TEXT_CHARACTERS_MAX`] characters, none of them a command.
fn harmless(text: &str) -> String {
    let shown = first_characters(text, TEXT_CHARACTERS_MAX);
    let mut shown_text = visible(shown);
    if shown.len() < text.len() {
        shown_text.push('…');
    }
    shown_text
}

/// The text with a picture for every control character, and none of the marks that turn the direction of writing.
fn visible(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '\t' => ' ',
            '\0'..='\u{1f}' => char::from_u32(0x2400 + character as u32).unwrap_or(char::REPLACEMENT_CHARACTER),
            '\u{7f}' => '␡',
            '\u{80}'..='\u{9f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}'
            | '\u{feff}' => char::REPLACEMENT_CHARACTER,
            _ => character,
        })
        .collect()
}

/// One line for `check --output json`: `{"diagnostics": [{"code", "severity", "message", "file", "line", "column", "help"}]}`.
///
/// `file`, `line` and `column` are null where no text is to blame; `label` is the cause, `related` further places
/// (`file`, `line`, `column`, `message`). Ends without a line break.
pub fn json(diagnostics: &[Diagnostic]) -> String {
    let list: Vec<Value> = diagnostics.iter().map(json_diagnostic).collect();
    json!({ "diagnostics": list }).to_string()
}

fn json_diagnostic(diagnostic: &Diagnostic) -> Value {
    let location = diagnostic.location.as_ref();
    let related: Vec<Value> = diagnostic
        .related
        .iter()
        .map(|(location, remark)| {
            json!({ "file": *location.file, "line": location.line, "column": location.column, "message": remark })
        })
        .collect();
    json!({
        "code": diagnostic.code,
        "severity": severity_name(diagnostic.severity),
        "message": diagnostic.message,
        "label": diagnostic.label,
        "file": location.map(|location| &*location.file),
        "line": location.map(|location| location.line),
        "column": location.map(|location| location.column),
        "help": diagnostic.help,
        "related": related,
    })
}

fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

/// The diagnostics as a SARIF 2.1.0 log of one run, for code scanning services (docs.oasis-open.org/sarif/sarif/v2.1.0).
///
/// `version` is that of Ropewalk. Files are relative to the repository's root (`%SRCROOT%`). One line, without a line break.
pub fn sarif(diagnostics: &[Diagnostic], sources: &Sources, version: &str) -> String {
    let mut rules = BTreeMap::new();
    for diagnostic in diagnostics {
        rules.entry(&*diagnostic.code).or_insert(0);
    }
    for (index, place) in rules.values_mut().enumerate() {
        *place = index;
    }
    let results: Vec<Value> =
        diagnostics.iter().map(|diagnostic| sarif_result(diagnostic, rules[&*diagnostic.code], sources)).collect();
    let rules: Vec<Value> = rules.keys().map(|code| json!({ "id": code })).collect();
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "ropewalk", "version": version, "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
    .to_string()
}

fn sarif_result(diagnostic: &Diagnostic, rule_index: usize, sources: &Sources) -> Value {
    let mut text = diagnostic.message.clone();
    for part in [&diagnostic.label, &diagnostic.help].into_iter().filter(|part| !part.is_empty()) {
        let _ = write!(text, "; {part}");
    }
    let locations: Vec<Value> = diagnostic
        .location
        .iter()
        .map(|location| json!({ "physicalLocation": sarif_place(location, sources) }))
        .collect();
    let mut result = json!({
        "ruleId": diagnostic.code,
        "ruleIndex": rule_index,
        "level": severity_name(diagnostic.severity),
        "message": { "text": text },
        "locations": locations,
    });
    if !diagnostic.related.is_empty() {
        let related = diagnostic.related.iter().map(|(location, remark)| {
            json!({ "physicalLocation": sarif_place(location, sources), "message": { "text": remark } })
        });
        result["relatedLocations"] = related.collect();
    }
    result
}

fn sarif_place(location: &Location, sources: &Sources) -> Value {
    let mut region = json!({ "startLine": location.line, "startColumn": location.column });
    if let Some(source) = sources.named(&location.file) {
        let end = source.position(location.end);
        region["endLine"] = end.line.into();
        region["endColumn"] = end.column.into();
    }
    json!({
        "artifactLocation": { "uri": uri_reference(&location.file), "uriBaseId": "%SRCROOT%" },
        "region": region,
    })
}

/// A path as a relative reference of RFC 3986.
fn uri_reference(path: &str) -> String {
    let mut reference = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                reference.push(char::from(byte))
            }
            b'\\' if cfg!(windows) => reference.push('/'),
            _ => {
                let _ = write!(reference, "%{byte:02X}");
            }
        }
    }
    reference
}
