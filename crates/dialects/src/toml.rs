//! TOML as a tree (toml.io, v1.1): events from `toml_parser`; which table may be opened where is ours.
//!
//! Tables become maps in the order in which they are first named. A table's span is its header, that of a table made by
//! a dotted key is the key, that of the whole file is everything. Dates are strings.
//!
//! The grammar's reader goes on after a fault, so one reading finds many; faults of meaning (a key twice) are told only
//! where the grammar holds.

use std::borrow::Cow;
use std::collections::HashMap;

use graph::Diagnostic;
use toml_parser::decoder::{Encoding, ScalarKind};
use toml_parser::parser::{EventReceiver, RecursionGuard, ValidateWhitespace, parse_document};
use toml_parser::{ErrorSink, Expected, ParseError, Raw};

use crate::reading::{Reading, Stop, syntax};
use crate::scalar;
use crate::tree::{Entry, Node, NodeValue, Span, Style};

/// Tokens of a file at most, for every node that [`crate::tree::Limits::nodes_max`] allows.
const TOKENS_PER_NODE_MAX: usize = 8;
/// Tables up to this size are searched from the start; larger ones have an index.
const UNINDEXED_ENTRIES_MAX: usize = 12;

/// The table of a file.
pub(crate) fn read(reading: &mut Reading<'_>) -> Result<Node, Stop> {
    let text = reading.text;
    let source = toml_parser::Source::new(text);
    let tokens_max = reading.limits.nodes_max.saturating_mul(TOKENS_PER_NODE_MAX);
    let tokens: Vec<_> = source.lex().take(tokens_max.saturating_add(1)).collect();
    if let Some(token) = tokens.get(tokens_max) {
        let span = reading.span(token.span().start(), token.span().end());
        return reading.count(usize::MAX, span).map(|()| unreachable!("no limit is that high"));
    }
    let diagnostics_max = reading.limits.diagnostics_max;
    let depth_max = u32::try_from(reading.limits.depth_max).unwrap_or(u32::MAX);
    let mut errors = Errors { kept: Vec::new(), kept_max: diagnostics_max, dropped: 0 };
    let whole = reading.span(0, text.len());
    reading.count(1, whole)?;
    let mut toml = Toml::new(reading, whole);
    {
        let mut guarded = RecursionGuard::new(&mut toml, depth_max);
        let mut validated = ValidateWhitespace::new(&mut guarded, source);
        parse_document(&tokens, &mut validated, &mut errors);
    }
    let stopped = toml.stopped;
    let root = toml.root;
    if stopped.is_some() {
        return Err(Stop);
    }
    if !errors.kept.is_empty() {
        reading.forget_faults();
        for error in errors.kept {
            let diagnostic = syntax_error(reading, &error);
            reading.report(diagnostic);
        }
        reading.drop_faults(errors.dropped);
        return Err(Stop);
    }
    Ok(root.into_node())
}

/// Faults of the grammar, as many as are shown.
struct Errors {
    kept: Vec<ParseError>,
    kept_max: usize,
    dropped: usize,
}

impl ErrorSink for Errors {
    fn report_error(&mut self, error: ParseError) {
        if self.kept.len() < self.kept_max {
            self.kept.push(error);
        } else {
            self.dropped += 1;
        }
    }
}

fn syntax_error(reading: &Reading<'_>, error: &ParseError) -> Diagnostic {
    let place = error.unexpected().or(error.context());
    let span = match place {
        Some(place) if place.is_empty() => reading.character_at(place.start()),
        Some(place) => reading.span(place.start(), place.end()),
        None => reading.span(0, 0),
    };
    let expected: Vec<String> = error.expected().unwrap_or_default().iter().filter_map(expectation).collect();
    let help = match expected.as_slice() {
        _ if error.description() == "string values must be quoted" => "put the text in double quotes".to_owned(),
        [] => "see https://toml.io/en/v1.1.0 for the grammar; texts stand in double quotes".to_owned(),
        [one] => format!("expected here: {one}"),
        several => format!("expected here: one of {}", several.join(", ")),
    };
    let message = format!("this is no TOML: {}", error.description());
    syntax("toml-syntax", message, reading.location(span), "the reader gave up here", &help)
}

fn expectation(expected: &Expected) -> Option<String> {
    match expected {
        Expected::Literal("\n") => Some("the end of the line".to_owned()),
        Expected::Literal(text) => Some(format!("`{text}`")),
        Expected::Description(text) => Some((*text).to_owned()),
        _ => None,
    }
}

/// How a table came to be, which decides who may add to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TableKind {
    /// Named on the way to another header; may be opened once itself.
    Implied,
    /// Opened by its header, or the root.
    Header,
    /// Made by a dotted key; further dotted keys of the same section may add to it.
    Dotted,
    /// Written in braces: closed.
    Inline,
}

struct Table {
    kind: TableKind,
    span: Span,
    entries: Vec<(Node, Item)>,
    /// Places in `entries` by name, once there are many.
    index: Option<HashMap<Box<str>, usize>>,
}

enum Item {
    Value(Node),
    Table(Table),
    /// `[[name]]`: never empty.
    Tables(Vec<Table>),
}

impl Table {
    fn new(kind: TableKind, span: Span) -> Table {
        Table { kind, span, entries: Vec::new(), index: None }
    }

    fn position(&self, name: &str) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(name).copied(),
            None => self.entries.iter().position(|(key, _)| key.as_str() == Some(name)),
        }
    }

    /// Adds an entry that is not there yet and returns its place.
    fn push(&mut self, key: Node, item: Item) -> usize {
        let position = self.entries.len();
        if let Some(index) = &mut self.index {
            index.insert(key_name(&key).into(), position);
        }
        self.entries.push((key, item));
        if self.index.is_none() && self.entries.len() > UNINDEXED_ENTRIES_MAX {
            let names = self.entries.iter().enumerate();
            self.index = Some(names.map(|(position, (key, _))| (key_name(key).into(), position)).collect());
        }
        position
    }

    fn into_node(self) -> Node {
        let entries = self.entries.into_iter().map(|(key, item)| Entry { key, value: item.into_node() }).collect();
        let style = if self.kind == TableKind::Inline { Style::Flow } else { Style::Indented };
        Node::new(NodeValue::Mapping(entries), self.span, style)
    }
}

impl Item {
    fn into_node(self) -> Node {
        match self {
            Item::Value(node) => node,
            Item::Table(table) => table.into_node(),
            Item::Tables(tables) => {
                let span = tables[0].span;
                let items = tables.into_iter().map(Table::into_node).collect();
                Node::new(NodeValue::Sequence(items), span, Style::Indented)
            }
        }
    }
}

fn key_name(key: &Node) -> &str {
    key.as_str().expect("keys of TOML are strings")
}

/// A list or inline table whose end has not come, with the key it belongs to.
struct Open {
    children: Children,
    span: Span,
    keys: Vec<Node>,
    /// The lists and maps it is in, itself included.
    depth: usize,
}

enum Children {
    Items(Vec<Node>),
    Table(Table),
}

/// The state between two events.
struct Toml<'r, 's> {
    reading: &'r mut Reading<'s>,
    root: Table,
    /// The way from the root to the table of the last header; in a list of tables it goes on into the last one.
    section: Vec<usize>,
    /// The lists and maps the section's table is in, itself included.
    section_depth: usize,
    /// The last header was faulty: what follows is read, and dropped.
    section_is_lost: bool,
    /// The parts of the key that is being read.
    keys: Vec<Node>,
    header_start: Span,
    open: Vec<Open>,
    stopped: Option<Stop>,
}

impl<'r, 's> Toml<'r, 's> {
    fn new(reading: &'r mut Reading<'s>, whole: Span) -> Self {
        let root = Table::new(TableKind::Header, whole);
        let header_start = Span { end: whole.start, ..whole };
        let (section, keys, open) = (Vec::new(), Vec::new(), Vec::new());
        Toml {
            reading,
            root,
            section,
            section_depth: 1,
            section_is_lost: false,
            keys,
            header_start,
            open,
            stopped: None,
        }
    }

    fn span(&self, span: toml_parser::Span) -> Span {
        self.reading.span(span.start(), span.end())
    }

    fn raw(&self, span: toml_parser::Span, encoding: Option<Encoding>) -> Raw<'s> {
        let text = self.reading.text.get(span.start()..span.end()).unwrap_or_default();
        Raw::new_unchecked(text, encoding, span)
    }

    /// Keeps that a bound was reached; from then on nothing is added.
    fn note(&mut self, result: Result<(), Stop>) -> bool {
        if let Err(stop) = result {
            self.stopped = Some(stop);
        }
        self.stopped.is_none()
    }

    fn open_header(&mut self, is_list: bool, end: Span) {
        let keys = std::mem::take(&mut self.keys);
        if self.stopped.is_some() {
            return;
        }
        let span = self.header_start.to(end);
        let counted = self.reading.count(keys.len() + 1, span);
        if keys.is_empty() || !self.note(counted) {
            return;
        }
        let mut section = Vec::with_capacity(keys.len());
        let mut table = &mut self.root;
        let last = keys.len() - 1;
        let mut depth = 1;
        let mut clash = None;
        for (index, key) in keys.into_iter().enumerate() {
            let place = if index < last {
                HeaderPlace::Parent
            } else if is_list {
                HeaderPlace::List
            } else {
                HeaderPlace::Table
            };
            match enter(table, key, place, span) {
                Ok((position, levels, next)) => {
                    section.push(position);
                    depth += levels;
                    table = next;
                }
                Err(found) => {
                    clash = Some(found);
                    break;
                }
            }
        }
        match clash {
            None => {
                let deep = self.reading.check_depth(depth, span);
                self.note(deep);
                self.section = section;
                self.section_depth = depth;
                self.section_is_lost = false;
            }
            Some(Clash { name, first, again }) => {
                let diagnostic = self.clash(&name, first, again);
                self.reading.report(diagnostic);
                self.section_is_lost = true;
            }
        }
    }

    fn clash(&self, name: &str, first: Span, again: Span) -> Diagnostic {
        let (first, again) = (self.reading.location(first), self.reading.location(again));
        Diagnostic::error("duplicate-key", format!("`{name}` is defined twice"))
            .at(again, format!("line {} has it already", first.line))
            .related(first, "the first one")
            .help("keep one of them; a table is opened once, and a list of tables is `[[name]]` each time")
    }

    /// Puts a finished value where it belongs: into the open list, the open inline table, or the section's table.
    fn value(&mut self, node: Node) {
        if self.stopped.is_some() {
            return;
        }
        let keys = std::mem::take(&mut self.keys);
        let deep = self.reading.check_depth(self.depth_under(keys.len()) - 1, node.span);
        let counted = self.reading.count(keys.len() + 1, node.span);
        if !self.note(deep) || !self.note(counted) {
            return;
        }
        let found = match self.open.last_mut().map(|open| &mut open.children) {
            Some(Children::Items(items)) => {
                items.push(node);
                Ok(())
            }
            Some(Children::Table(table)) => insert(table, keys, node),
            None if self.section_is_lost => Ok(()),
            None => insert(section_table(&mut self.root, &self.section), keys, node),
        };
        if let Err(Clash { name, first, again }) = found {
            let diagnostic = self.clash(&name, first, again);
            self.reading.report(diagnostic);
        }
    }

    fn open_value(&mut self, children: Children, span: Span) -> bool {
        let keys = std::mem::take(&mut self.keys);
        let depth = self.depth_under(keys.len());
        self.open.push(Open { children, span, keys, depth });
        let deep = if self.stopped.is_some() { Ok(()) } else { self.reading.check_depth(depth, span) };
        self.note(deep)
    }

    /// The depth of a list or map that comes next, under a key of so many parts; an item of a list has none.
    fn depth_under(&self, key_parts: usize) -> usize {
        self.open.last().map_or(self.section_depth, |open| open.depth) + key_parts.max(1)
    }

    fn close_value(&mut self, end: Span) {
        let Some(open) = self.open.pop() else { return };
        let span = open.span.to(end);
        let node = match open.children {
            Children::Items(items) => Node::new(NodeValue::Sequence(items), span, Style::Flow),
            Children::Table(mut table) => {
                table.span = span;
                table.into_node()
            }
        };
        self.keys = open.keys;
        self.value(node);
    }

    fn scalar_value(&self, text: &str, kind: ScalarKind, raw: &str) -> NodeValue {
        let value = match kind {
            ScalarKind::Boolean(value) => Some(NodeValue::Bool(value)),
            ScalarKind::Integer(radix) => {
                let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
                scalar::integer(&raw.replace('_', ""), text.starts_with('-'), digits, radix.value())
            }
            ScalarKind::Float => {
                text.parse().ok().map(|value| NodeValue::Float { value, raw: raw.replace('_', "").into() })
            }
            ScalarKind::String | ScalarKind::DateTime => None,
        };
        value.unwrap_or_else(|| NodeValue::String(text.into()))
    }
}

impl EventReceiver for Toml<'_, '_> {
    fn std_table_open(&mut self, span: toml_parser::Span, _error: &mut dyn ErrorSink) {
        self.header_start = self.span(span);
        self.keys.clear();
        self.open.clear();
    }

    fn std_table_close(&mut self, span: toml_parser::Span, _error: &mut dyn ErrorSink) {
        self.open_header(false, self.span(span));
    }

    fn array_table_open(&mut self, span: toml_parser::Span, error: &mut dyn ErrorSink) {
        self.std_table_open(span, error);
    }

    fn array_table_close(&mut self, span: toml_parser::Span, _error: &mut dyn ErrorSink) {
        self.open_header(true, self.span(span));
    }

    fn inline_table_open(&mut self, span: toml_parser::Span, _error: &mut dyn ErrorSink) -> bool {
        let span = self.span(span);
        self.open_value(Children::Table(Table::new(TableKind::Inline, span)), span)
    }

    fn inline_table_close(&mut self, span: toml_parser::Span, _error: &mut dyn ErrorSink) {
        self.close_value(self.span(span));
    }

    fn array_open(&mut self, span: toml_parser::Span, _error: &mut dyn ErrorSink) -> bool {
        self.open_value(Children::Items(Vec::new()), self.span(span))
    }

    fn array_close(&mut self, span: toml_parser::Span, _error: &mut dyn ErrorSink) {
        self.close_value(self.span(span));
    }

    fn simple_key(&mut self, span: toml_parser::Span, encoding: Option<Encoding>, error: &mut dyn ErrorSink) {
        let mut name = Cow::Borrowed("");
        self.raw(span, encoding).decode_key(&mut name, error);
        let style = if encoding.is_some() { Style::Quoted } else { Style::Plain };
        let span = self.span(span);
        if self.stopped.is_some() {
            return;
        }
        let deep = self.reading.check_depth(self.keys.len(), span);
        if self.note(deep) {
            self.keys.push(Node::new(NodeValue::String(name.into()), span, style));
        }
    }

    fn scalar(&mut self, span: toml_parser::Span, encoding: Option<Encoding>, error: &mut dyn ErrorSink) {
        let raw = self.raw(span, encoding);
        let mut text = Cow::Borrowed("");
        let kind = raw.decode_scalar(&mut text, error);
        let value = self.scalar_value(&text, kind, raw.as_str());
        let style = match encoding {
            None => Style::Plain,
            Some(Encoding::BasicString | Encoding::LiteralString) => Style::Quoted,
            Some(Encoding::MlBasicString | Encoding::MlLiteralString) => Style::Block,
        };
        self.value(Node::new(value, self.span(span), style));
    }

    fn newline(&mut self, _span: toml_parser::Span, _error: &mut dyn ErrorSink) {
        if self.open.is_empty() {
            // Only a broken line leaves parts of a key behind.
            self.keys.clear();
        }
    }
}

/// What a header's part asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HeaderPlace {
    Parent,
    Table,
    List,
}

/// Two definitions of one name.
struct Clash {
    name: Box<str>,
    first: Span,
    again: Span,
}

impl Clash {
    fn new(first: &Node, again: &Node) -> Clash {
        Clash { name: key_name(again).into(), first: first.span, again: again.span }
    }
}

/// Goes one part of a header down, making what is not there; returns the place, how many lists and maps down, and the table.
fn enter(table: &mut Table, key: Node, place: HeaderPlace, span: Span) -> Result<(usize, usize, &mut Table), Clash> {
    let position = match table.position(key_name(&key)) {
        None => {
            let item = match place {
                HeaderPlace::Parent => Item::Table(Table::new(TableKind::Implied, key.span)),
                HeaderPlace::Table => Item::Table(Table::new(TableKind::Header, span)),
                HeaderPlace::List => Item::Tables(vec![Table::new(TableKind::Header, span)]),
            };
            table.push(key, item)
        }
        Some(position) => {
            let (first, item) = &mut table.entries[position];
            match (place, item) {
                (HeaderPlace::Parent, Item::Table(found)) if found.kind != TableKind::Inline => {}
                (HeaderPlace::Parent, Item::Tables(_)) => {}
                (HeaderPlace::Table, Item::Table(found)) if found.kind == TableKind::Implied => {
                    found.kind = TableKind::Header;
                    found.span = span;
                }
                (HeaderPlace::List, Item::Tables(tables)) => tables.push(Table::new(TableKind::Header, span)),
                _ => return Err(Clash::new(first, &key)),
            }
            position
        }
    };
    let levels = if matches!(table.entries[position].1, Item::Tables(_)) { 2 } else { 1 };
    Ok((position, levels, reached(table, position)))
}

/// The table at a place; of a list of tables the last.
fn reached(table: &mut Table, position: usize) -> &mut Table {
    match &mut table.entries[position].1 {
        Item::Table(table) => table,
        Item::Tables(tables) => tables.last_mut().expect("a list of tables begins with one"),
        Item::Value(_) => unreachable!("a section's way goes through tables only"),
    }
}

fn section_table<'t>(root: &'t mut Table, section: &[usize]) -> &'t mut Table {
    section.iter().fold(root, |table, &position| reached(table, position))
}

/// Puts a value under a dotted key.
fn insert(mut table: &mut Table, mut keys: Vec<Node>, value: Node) -> Result<(), Clash> {
    let Some(last) = keys.pop() else { return Ok(()) };
    for key in keys {
        let position = match table.position(key_name(&key)) {
            None => {
                let made = Table::new(TableKind::Dotted, key.span);
                table.push(key, Item::Table(made))
            }
            Some(position) => match &table.entries[position] {
                (_, Item::Table(found)) if found.kind == TableKind::Dotted => position,
                (first, _) => return Err(Clash::new(first, &key)),
            },
        };
        table = reached(table, position);
    }
    match table.position(key_name(&last)) {
        Some(position) => Err(Clash::new(&table.entries[position].0, &last)),
        None => {
            table.push(last, Item::Value(value));
            Ok(())
        }
    }
}
