//! The one tree under every dialect: values with the place of every key and value, and the sources they came from.
//!
//! Four readers fill it, `yaml.rs`, `json.rs`, `edn.rs` and `toml.rs`; [`Sources::read`] picks one.
//! Nothing here knows what any key means, and nothing here computes a line number before somebody asks for it.
//!
//! Pitfalls for readers: spans are *byte* offsets into the stored text (without a byte order mark), columns count
//! *characters*; every loop over the input must count its nodes against [`Limits`]; depth is counted, never recursed
//! into beyond [`Limits::depth_max`].

use std::sync::{Arc, OnceLock};

use graph::{Diagnostic, Location};

use crate::reading::{self, Reading};
use crate::{edn, json, toml, yaml};

/// Where something stands: a half-open range of bytes in one source. `start <= end`, both on character boundaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The index of the source in its [`Sources`].
    pub source: u32,
    /// The first byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The span from the start of `self` to the end of `last`; both must be of one source.
    pub fn to(self, last: Span) -> Span {
        assert_eq!(self.source, last.source, "a span lies in one source");
        Span { source: self.source, start: self.start.min(last.start), end: self.end.max(last.end) }
    }
}

/// A place as people count: both from 1; the column counts characters, not bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The line, from 1.
    pub line: u32,
    /// The character in the line, from 1.
    pub column: u32,
}

/// One file's text under the name that is shown to the user.
#[derive(Clone, Debug)]
pub struct Source {
    name: Arc<str>,
    text: Arc<str>,
    /// The offset of the first byte of every line, computed at the first question.
    line_starts: OnceLock<Arc<[u32]>>,
    /// The places of a source whose text nobody has; its spans are numbers of these.
    places: Arc<Vec<Position>>,
}

/// Columns that a [`Location`] tells apart in a source of which only places are known.
const UNSEEN_COLUMNS: u32 = 4096;

impl Source {
    /// A source of this name and text. The text must not be longer than 4 GiB (readers take far less).
    pub fn new(name: &str, text: Arc<str>) -> Source {
        assert!(u32::try_from(text.len()).is_ok(), "a source is addressed by 32 bits");
        Source { name: name.into(), text, line_starts: OnceLock::new(), places: Arc::default() }
    }

    /// A source of which only places are known: a span from `index` to `index + 1` is the place of that number.
    /// Reports name such a place and show no line.
    pub fn unseen(name: &str, places: Vec<Position>) -> Source {
        Source { places: Arc::new(places), ..Source::new(name, "".into()) }
    }

    /// The path as the user knows it.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The line and column of a byte offset; an offset beyond the end is the end.
    pub fn position(&self, offset: u32) -> Position {
        if let Some(last) = self.places.len().checked_sub(1) {
            return self.places[(offset as usize).min(last)];
        }
        let line_starts = self.line_starts.get_or_init(|| line_starts(&self.text).into());
        let mut offset = (offset as usize).min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = line_starts.partition_point(|&start| start as usize <= offset);
        let start = line_starts[line - 1] as usize;
        let column = self.text[start..offset].chars().count() + 1;
        Position { line: line as u32, column: column as u32 }
    }
}

/// Offsets of the first byte of every line; `\n`, `\r\n` and a lone `\r` end lines. Never empty.
fn line_starts(text: &str) -> Vec<u32> {
    let bytes = text.as_bytes();
    let mut starts = vec![0];
    for (offset, &byte) in bytes.iter().enumerate() {
        let ends_line = byte == b'\n' || (byte == b'\r' && bytes.get(offset + 1) != Some(&b'\n'));
        if ends_line {
            starts.push(offset as u32 + 1);
        }
    }
    starts
}

/// The sources of one reading; spans of all nodes read into it are resolved here.
#[derive(Debug, Default)]
pub struct Sources {
    list: Vec<Source>,
}

impl Sources {
    /// No sources yet.
    pub fn new() -> Sources {
        Sources::default()
    }

    /// Keeps a text and returns its number, the `source` of its spans.
    pub fn add(&mut self, name: &str, text: Arc<str>) -> u32 {
        self.keep(Source::new(name, text))
    }

    /// Reads a file of any bytes into a tree, with everything that is wrong with it in the order of the file.
    ///
    /// There is no tree if the bytes are no UTF-8, pass a bound of [`Limits`] or break the grammar (TOML: its reader goes
    /// on and finds every fault first); other faults leave a tree with the faulty value made null or dropped.
    /// The source is kept in every case, so that the diagnostics can be shown with their lines; a byte order mark is not
    /// part of it. Takes time and memory linear in the bytes and in what aliases add within their bound.
    pub fn read(
        &mut self,
        name: &str,
        bytes: &[u8],
        notation: Notation,
        rules: &Rules,
    ) -> (Option<Node>, Vec<Diagnostic>) {
        if bytes.len() > rules.limits.bytes_max {
            self.add(name, "".into());
            return (None, vec![reading::file_too_large(name, bytes.len(), rules.limits)]);
        }
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let offset = error.valid_up_to();
                let source = self.add(name, String::from_utf8_lossy(bytes).into());
                let end = offset + char::REPLACEMENT_CHARACTER.len_utf8();
                let span = Span { source, start: offset as u32, end: end as u32 };
                return (None, vec![reading::not_utf8(bytes, offset, self.location(span))]);
            }
        };
        let source = self.add(name, text.into());
        let mut reading = Reading::new(self, source, rules.limits);
        let node = match notation {
            Notation::Yaml => yaml::read(&mut reading, &rules.yaml),
            Notation::Json => json::read(&mut reading),
            Notation::Edn => edn::read(&mut reading),
            Notation::Toml => toml::read(&mut reading),
        };
        (node.ok(), reading.finish())
    }

    /// Keeps a source and returns its number, the `source` of its spans.
    pub fn keep(&mut self, source: Source) -> u32 {
        self.list.push(source);
        self.list.len() as u32 - 1
    }

    /// Adds a place to a source of which only places are known, and returns its span.
    pub(crate) fn add_place(&mut self, source: u32, position: Position) -> Span {
        let places = Arc::make_mut(&mut self.list[source as usize].places);
        let start = u32::try_from(places.len()).unwrap_or(u32::MAX);
        places.push(position);
        Span { source, start, end: start.saturating_add(1) }
    }

    /// The sources from this number on.
    pub(crate) fn from(&self, number: usize) -> &[Source] {
        &self.list[number..]
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// The text of a source and the byte of a line and column in it; `None` if it has no such place.
    pub fn at(&self, source: u32, position: Position) -> Option<(&str, usize)> {
        let source = self.list.get(source as usize)?;
        let line_starts = source.line_starts.get_or_init(|| line_starts(&source.text).into());
        let line = position.line.checked_sub(1)? as usize;
        let start = *line_starts.get(line)? as usize;
        let end = line_starts.get(line + 1).map_or(source.text.len(), |&next| next as usize);
        let column = position.column.checked_sub(1)? as usize;
        let (offset, _) = source.text[start..end].char_indices().nth(column)?;
        Some((&source.text, start + offset))
    }

    /// The source a span lies in. The span must come from a reading into this collection.
    pub fn source(&self, span: Span) -> &Source {
        &self.list[span.source as usize]
    }

    /// The source shown under this name, if one was read whose text is known.
    pub fn named(&self, name: &str) -> Option<&Source> {
        self.list.iter().find(|source| **source.name() == *name && source.places.is_empty())
    }

    /// The text under a span, as it stands in the file; empty where nobody has the text.
    pub fn text(&self, span: Span) -> &str {
        let source = self.source(span);
        if source.places.is_empty() { &source.text[span.start as usize..span.end as usize] } else { "" }
    }

    /// A span as diagnostics carry it.
    pub fn location(&self, span: Span) -> Location {
        let source = self.source(span);
        let Position { line, column } = source.position(span.start);
        let (start, end) = if source.places.is_empty() {
            (span.start, span.end)
        } else {
            // There is no text to count bytes in; these only order the places of one file.
            let start = line.saturating_mul(UNSEEN_COLUMNS).saturating_add(column.min(UNSEEN_COLUMNS - 1));
            (start, start.saturating_add(1))
        };
        Location { file: source.name().clone(), line, column, start, end }
    }

    /// The line and column where a span starts.
    pub fn start(&self, span: Span) -> Position {
        self.source(span).position(span.start)
    }

    /// The line and column just after a span.
    pub fn end(&self, span: Span) -> Position {
        self.source(span).position(span.end)
    }
}

/// How a value was written. Notations without a choice use [`Style::Plain`] for scalars and [`Style::Flow`] for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Style {
    /// A bare scalar: `word`, `12`.
    Plain,
    /// A scalar in quotes of any kind.
    Quoted,
    /// A YAML block scalar (`|` or `>`) or a TOML multi-line string.
    Block,
    /// A list or map in brackets.
    Flow,
    /// A list or map by indentation, or a TOML table under its header.
    Indented,
}

/// A value with its place.
///
/// Equality is that of all fields, places included; use [`Node::same_value`] to compare what was said and not where.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What was said.
    pub value: NodeValue,
    /// Where. An alias's node has the place of the anchor's; [`Node::alias`] has the place of the alias.
    pub span: Span,
    /// How it was written.
    pub style: Style,
    properties: Option<Box<Properties>>,
}

/// What few nodes have; boxed, so that the others pay one word.
#[derive(Debug, Clone, PartialEq, Default)]
struct Properties {
    tag: Option<Box<str>>,
    anchor: Option<Box<str>>,
    alias: Option<Span>,
}

/// The shapes a value can have.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeValue {
    /// `null`, `~`, `nil`, nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number that fits; larger ones are floats.
    Integer {
        /// The number.
        value: i64,
        /// As it was written: `0x1f`, `007`; without TOML's `_` and EDN's `N`.
        raw: Box<str>,
    },
    /// Any other number, also infinities and NaN.
    Float {
        /// The number, rounded to the nearest double.
        value: f64,
        /// As it was written: `1.10`, which a version number needs; without TOML's `_` and EDN's `M`.
        raw: Box<str>,
    },
    /// A text.
    String(Box<str>),
    /// A list, in the order of the file.
    Sequence(Vec<Node>),
    /// A map, in the order of the file. Whether keys repeat is a rule of the reader.
    Mapping(Vec<Entry>),
}

/// One key and value of a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key with its place; almost always a string.
    pub key: Node,
    /// The value with its place.
    pub value: Node,
}

impl Entry {
    /// The key as text: a string, or a number or boolean as [`Node::scalar_text`] spells it. Null, lists and maps have none.
    pub fn name(&self) -> Option<&str> {
        self.key.scalar_text()
    }
}

impl Node {
    /// A node without tag or anchor.
    pub fn new(value: NodeValue, span: Span, style: Style) -> Node {
        Node { value, span, style, properties: None }
    }

    /// The same node with a tag, as it is written in the file: `!reference`, `#inst`.
    pub fn with_tag(mut self, tag: &str) -> Node {
        self.properties.get_or_insert_default().tag = Some(tag.into());
        self
    }

    /// The same node with the name it is anchored under.
    pub fn with_anchor(mut self, anchor: &str) -> Node {
        self.properties.get_or_insert_default().anchor = Some(anchor.into());
        self
    }

    /// The same node, reached through an alias that stands at this place.
    pub fn with_alias(mut self, alias: Span) -> Node {
        self.properties.get_or_insert_default().alias = Some(alias);
        self
    }

    /// The custom tag, with its sign: `!reference` in YAML, `#inst` in EDN. Core tags (`!!str`) are applied and not kept.
    pub fn tag(&self) -> Option<&str> {
        self.properties.as_ref()?.tag.as_deref()
    }

    /// The YAML anchor of this node, without `&`.
    pub fn anchor(&self) -> Option<&str> {
        self.properties.as_ref()?.anchor.as_deref()
    }

    /// The place of the YAML alias through which this node came here, if it did.
    pub fn alias(&self) -> Option<Span> {
        self.properties.as_ref()?.alias
    }

    /// The value under a key of a map; the last one where keys repeat. `None` also if this is no map.
    ///
    /// Walks the entries: read large maps through [`Node::entries`].
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.get_entry(key).map(|entry| &entry.value)
    }

    /// Key and value under a key of a map, as [`Node::get`].
    pub fn get_entry(&self, key: &str) -> Option<&Entry> {
        self.entries()?.iter().rev().find(|entry| entry.name() == Some(key))
    }

    /// The entries of a map.
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            NodeValue::Mapping(entries) => Some(entries),
            _ => None,
        }
    }

    /// The items of a list.
    pub fn items(&self) -> Option<&[Node]> {
        match &self.value {
            NodeValue::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// The text of a string; numbers and booleans are no strings here.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            NodeValue::String(text) => Some(text),
            _ => None,
        }
    }

    /// The truth of a boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match self.value {
            NodeValue::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The value of a whole number.
    pub fn as_integer(&self) -> Option<i64> {
        match self.value {
            NodeValue::Integer { value, .. } => Some(value),
            _ => None,
        }
    }

    /// The value of any number.
    pub fn as_float(&self) -> Option<f64> {
        match self.value {
            NodeValue::Integer { value, .. } => Some(value as f64),
            NodeValue::Float { value, .. } => Some(value),
            _ => None,
        }
    }

    /// Whether the value is null.
    pub fn is_null(&self) -> bool {
        self.value == NodeValue::Null
    }

    /// A scalar as text: strings as they are, numbers as they are written, `true` and `false`. Null, lists and maps have none.
    pub fn scalar_text(&self) -> Option<&str> {
        match &self.value {
            NodeValue::String(text) => Some(text),
            NodeValue::Integer { raw, .. } | NodeValue::Float { raw, .. } => Some(raw),
            NodeValue::Bool(true) => Some("true"),
            NodeValue::Bool(false) => Some("false"),
            NodeValue::Null | NodeValue::Sequence(_) | NodeValue::Mapping(_) => None,
        }
    }

    /// The kind for messages, with its article: "a string", "a list", "a map", "nothing".
    pub fn kind(&self) -> &'static str {
        match self.value {
            NodeValue::Null => "nothing",
            NodeValue::Bool(_) => "a boolean",
            NodeValue::Integer { .. } => "a whole number",
            NodeValue::Float { .. } => "a number",
            NodeValue::String(_) => "a string",
            NodeValue::Sequence(_) => "a list",
            NodeValue::Mapping(_) => "a map",
        }
    }

    /// Whether both say the same: values, order and custom tags, whatever the places, styles, anchors and spelling of numbers.
    pub fn same_value(&self, other: &Node) -> bool {
        self.tag() == other.tag()
            && match (&self.value, &other.value) {
                (NodeValue::Integer { value: left, .. }, NodeValue::Integer { value: right, .. }) => left == right,
                (NodeValue::Float { value: left, .. }, NodeValue::Float { value: right, .. }) => {
                    left == right || (left.is_nan() && right.is_nan())
                }
                (NodeValue::Sequence(left), NodeValue::Sequence(right)) => {
                    left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left.same_value(right))
                }
                (NodeValue::Mapping(left), NodeValue::Mapping(right)) => {
                    left.len() == right.len()
                        && left
                            .iter()
                            .zip(right)
                            .all(|(left, right)| left.key.same_value(&right.key) && left.value.same_value(&right.value))
                }
                (left, right) => left == right,
            }
    }
}

/// The notations a file can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Notation {
    /// YAML 1.2 or 1.1 ([`YamlRules::schema`]), `.yaml` and `.yml`.
    Yaml,
    /// JSON of RFC 8259, `.json`.
    Json,
    /// Extensible data notation, `.edn`.
    Edn,
    /// TOML 1.0, `.toml`.
    Toml,
}

impl Notation {
    /// The notation of a path by its extension.
    pub fn of_path(path: &str) -> Option<Notation> {
        let (_, extension) = path.rsplit_once('.')?;
        match extension {
            "yaml" | "yml" => Some(Notation::Yaml),
            "json" => Some(Notation::Json),
            "edn" => Some(Notation::Edn),
            "toml" => Some(Notation::Toml),
            _ => None,
        }
    }

    /// The name for messages.
    pub fn name(self) -> &'static str {
        match self {
            Notation::Yaml => "YAML",
            Notation::Json => "JSON",
            Notation::Edn => "EDN",
            Notation::Toml => "TOML",
        }
    }
}

/// What plain YAML scalars mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum YamlSchema {
    /// YAML 1.2 core: `true false null ~`, `0o17 0x1f`, `.inf .nan`; `on`, `no` and `1:30` are strings.
    Core12,
    /// YAML 1.1 as Psych and Go-YAML's older readers have it: also `yes no on off`, `017`, `0b1`, `1_000`, `1:30`.
    Core11,
}

/// What a second equal key in one map means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DuplicateKeys {
    /// An error at the second key; the tree keeps the first.
    Error,
    /// The last one stands, in the place of the first.
    LastWins,
}

/// Whether a YAML feature is taken or refused with a diagnostic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Taken.
    Allowed,
    /// An error that says so. For merge keys: `<<` is an ordinary key.
    Refused,
}

/// What a dialect makes of YAML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct YamlRules {
    /// What plain scalars mean.
    pub schema: YamlSchema,
    /// What repeated keys mean.
    pub duplicate_keys: DuplicateKeys,
    /// Whether `<<` merges a map, or a list of maps; keys written out win, then the earlier map.
    pub merge_keys: Feature,
    /// Whether `&anchor` and `*alias` are taken.
    pub anchors: Feature,
    /// Whether custom tags (`!reference`) are kept on their nodes.
    pub custom_tags: Feature,
    /// Whether further documents may follow the first; if allowed, the tree is a list of all documents.
    pub documents: Feature,
}

impl YamlRules {
    /// The rules of the native format (issue 2): YAML 1.2 core, duplicates are errors, anchors and merges work, one document.
    pub const NATIVE: YamlRules = YamlRules {
        schema: YamlSchema::Core12,
        duplicate_keys: DuplicateKeys::Error,
        merge_keys: Feature::Allowed,
        anchors: Feature::Allowed,
        custom_tags: Feature::Refused,
        documents: Feature::Refused,
    };
}

/// How much of a file is taken. Reaching a bound is an error diagnostic that names it; what was read until then is kept where it can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file.
    pub bytes_max: usize,
    /// Nodes of one tree, keys included, aliases expanded.
    pub nodes_max: usize,
    /// Weight of what aliases and merges add: a node weighs 1, and 1 more for every 32 bytes of its text.
    pub alias_weight_max: usize,
    /// Lists and maps inside one another.
    pub depth_max: usize,
    /// Diagnostics of one file; the ones after are dropped, and the last says so.
    pub diagnostics_max: usize,
}

impl Limits {
    /// Wide enough for 10,000 jobs of forty keys each; a tree at these limits takes about 150 MB.
    pub const DEFAULT: Limits = Limits {
        bytes_max: 16 << 20,
        nodes_max: 1_000_000,
        alias_weight_max: 250_000,
        depth_max: 100,
        diagnostics_max: 100,
    };
}

/// Everything a dialect chooses about reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// For YAML files.
    pub yaml: YamlRules,
    /// For all files.
    pub limits: Limits,
}

impl Rules {
    /// The rules of the native format.
    pub const NATIVE: Rules = Rules { yaml: YamlRules::NATIVE, limits: Limits::DEFAULT };
}
