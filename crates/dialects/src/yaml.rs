//! YAML as a tree: events from `granit-parser`; schema, anchors, merges and bounds are ours, after [`YamlRules`].
//!
//! Traps: a node's event comes before the event that names its anchor; block collections have no end of their own in
//! the text, so theirs is the end of their last child; an alias is a copy, paid for by weight
//! ([`Limits::alias_weight_max`](crate::tree::Limits)), and only anchors that some alias names are kept for copying.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, StrInput, StructureStyle, Tag};
use graph::Diagnostic;

use crate::reading::{Reading, Stop, syntax};
use crate::scalar;
use crate::suggest;
use crate::tree::{DuplicateKeys, Entry, Feature, Node, NodeValue, Span, Style, YamlRules};

/// Bytes of text that weigh as much as one node when an alias copies them.
const BYTES_PER_WEIGHT: usize = 32;
/// Anchors that an unknown one is compared with.
const SUGGESTED_ANCHORS_MAX: usize = 1_000;
/// Words after stars that are kept apart; beyond, every anchor counts as named by some alias.
const ALIASED_WORDS_MAX: usize = 100_000;

/// The document of a file, or with [`YamlRules::documents`] allowed a list of all its documents. An empty file is null.
pub(crate) fn read(reading: &mut Reading<'_>, rules: &YamlRules) -> Result<Node, Stop> {
    let mut yaml = Yaml::new(reading, *rules);
    yaml.read_events()?;
    let whole = yaml.reading.span(0, 0);
    let mut documents = yaml.documents;
    if rules.documents == Feature::Allowed {
        let span = match (documents.first(), documents.last()) {
            (Some(first), Some(last)) => first.span.to(last.span),
            _ => whole,
        };
        return Ok(Node::new(NodeValue::Sequence(documents), span, Style::Indented));
    }
    Ok(if documents.is_empty() { Node::new(NodeValue::Null, whole, Style::Plain) } else { documents.swap_remove(0) })
}

/// The state between two events.
struct Yaml<'r, 's> {
    reading: &'r mut Reading<'s>,
    rules: YamlRules,
    parser: Parser<'s, StrInput<'s>>,
    /// The lists and maps that are open, outermost first.
    open: Vec<Open>,
    documents: Vec<Node>,
    /// Finished nodes with an anchor that some alias names, by the parser's number of the anchor.
    anchors: HashMap<usize, Anchored>,
    /// The names of all anchors seen, for suggestions.
    anchor_names: Vec<Box<str>>,
    /// Every word after a `*` in the text: no anchor outside can have an alias. `None` is every word there is.
    aliased: Option<HashSet<&'s str>>,
    alias_weight: usize,
}

/// A node that aliases may copy.
struct Anchored {
    node: Node,
    nodes: usize,
    weight: usize,
    /// Lists and maps inside one another, itself included.
    height: usize,
}

/// A list or map whose end has not come.
struct Open {
    children: Children,
    span: Span,
    style: Style,
    properties: Properties,
    /// The greatest height of a child so far.
    height: usize,
}

enum Children {
    Items(Vec<Node>),
    Entries { entries: Vec<Entry>, key: Option<Node> },
}

/// What stands before a node: a tag and an anchor.
#[derive(Default)]
struct Properties {
    tag: Option<Box<str>>,
    anchor: Option<(usize, Box<str>)>,
}

impl<'r, 's> Yaml<'r, 's> {
    fn new(reading: &'r mut Reading<'s>, rules: YamlRules) -> Self {
        let mut options = Options::default();
        options.set_emit_comments(false);
        options.emit_anchor_events = true;
        options.emit_unresolved_aliases = true;
        // The scanner looks ahead of the events that we count.
        options.flow_nesting_limit = reading.limits.depth_max.saturating_add(2);
        options.block_nesting_limit = reading.limits.depth_max.saturating_add(2);
        let text = reading.text;
        Yaml {
            parser: Parser::new_from_str_with_options(text, options),
            reading,
            rules,
            open: Vec::new(),
            documents: Vec::new(),
            anchors: HashMap::new(),
            anchor_names: Vec::new(),
            aliased: words_after_stars(text),
            alias_weight: 0,
        }
    }

    fn read_events(&mut self) -> Result<(), Stop> {
        while let Some((event, span)) = self.next_event()? {
            match event {
                Event::DocumentStart(..) => match self.start_document(span) {
                    ControlFlow::Continue(()) => {}
                    ControlFlow::Break(()) => break,
                },
                Event::Scalar(text, style, anchor, tag) => self.scalar(text, style, anchor, tag, span)?,
                Event::SequenceStart(style, anchor, tag) => {
                    self.open_collection(Children::Items(Vec::new()), style, anchor, tag, span)?;
                }
                Event::MappingStart(style, anchor, tag) => {
                    let children = Children::Entries { entries: Vec::new(), key: None };
                    self.open_collection(children, style, anchor, tag, span)?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.close_collection(span)?,
                Event::Alias(anchor) => self.alias(anchor, span)?,
                Event::UnresolvedAlias(name) => self.unknown_anchor(&name, span)?,
                Event::StreamEnd => break,
                _ => {}
            }
        }
        Ok(())
    }

    fn next_event(&mut self) -> Result<Option<(Event<'s>, Span)>, Stop> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok((event, span))) => {
                let range = span.byte_range().expect("a parser over a string knows its offsets");
                Ok(Some((event, self.reading.span(range.start, range.end))))
            }
            Some(Err(error)) => {
                let diagnostic = self.syntax_error(&error);
                self.reading.stop(diagnostic)
            }
        }
    }

    /// Breaks, after a fault, at a document more than the rules take.
    fn start_document(&mut self, span: Span) -> ControlFlow<()> {
        self.anchors.clear();
        self.anchor_names.clear();
        if self.documents.is_empty() || self.rules.documents == Feature::Allowed {
            return ControlFlow::Continue(());
        }
        let location = self.reading.location(span);
        self.reading.report(
            Diagnostic::error("several-documents", "the file holds more than one YAML document")
                .at(location, "the second one begins here")
                .help("remove this `---`, or move what follows to a file of its own"),
        );
        ControlFlow::Break(())
    }

    fn scalar(
        &mut self,
        text: Cow<'s, str>,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<Cow<'s, Tag>>,
        span: Span,
    ) -> Result<(), Stop> {
        let is_core = tag.as_ref().is_some_and(|tag| tag.is_yaml_core_schema());
        let value = match (&tag, style) {
            (Some(tag), _) if is_core => self.tagged_scalar(&text, tag, span),
            (None, ScalarStyle::Plain) => scalar::plain(&text, self.rules.schema),
            (Some(tag), ScalarStyle::Plain) if tag.original() != "!" => scalar::plain(&text, self.rules.schema),
            _ => NodeValue::String(text.into()),
        };
        let style = match style {
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
            ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
        };
        let properties = self.properties(anchor, tag, span)?;
        self.reading.count(1, span)?;
        self.finish_node(Node::new(value, span, style), properties, 0)
    }

    /// The value of a scalar with a tag of the core schema; one that does not fit is a fault and a string.
    fn tagged_scalar(&mut self, text: &str, tag: &Tag, span: Span) -> NodeValue {
        let wanted = tag.core_suffix().unwrap_or_default();
        let value = scalar::plain(text, self.rules.schema);
        let fits = match (wanted, &value) {
            ("str", _) => return NodeValue::String(text.into()),
            ("float", NodeValue::Integer { value, raw }) => {
                return NodeValue::Float { value: *value as f64, raw: raw.clone() };
            }
            ("int", NodeValue::Integer { .. })
            | ("float", NodeValue::Float { .. })
            | ("bool", NodeValue::Bool(_))
            | ("null", NodeValue::Null) => true,
            _ => false,
        };
        if fits {
            return value;
        }
        let location = self.reading.location(span);
        self.reading.report(
            Diagnostic::error("wrong-tag", format!("the value does not fit its tag `!!{wanted}`"))
                .at(location, format!("no `{wanted}`"))
                .help("remove the tag, or write a value of its kind"),
        );
        NodeValue::String(text.into())
    }

    /// The tag and the name of the anchor of the node whose event has just been read.
    fn properties(&mut self, anchor: usize, tag: Option<Cow<'s, Tag>>, span: Span) -> Result<Properties, Stop> {
        let mut properties = Properties::default();
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema() && tag.original() != "!") {
            let tag = tag.original();
            if self.rules.custom_tags == Feature::Refused {
                let location = self.reading.location(span);
                self.reading.report(
                    Diagnostic::error("unknown-tag", format!("the tag `{tag}` has no meaning here"))
                        .at(location, "the tagged value")
                        .help("remove the tag; a value that begins with `!` stands in quotes"),
                );
            } else {
                properties.tag = Some(tag.into());
            }
        }
        if anchor == 0 {
            return Ok(properties);
        }
        let Some((Event::Anchor(id, name), anchor_span)) = self.next_event()? else {
            unreachable!("the parser names every anchor right after its node (granit-parser, `emit_anchor_events`)");
        };
        if self.rules.anchors == Feature::Refused {
            self.refuse_anchors(anchor_span);
        }
        let name: Box<str> = name.into();
        self.anchor_names.push(name.clone());
        properties.anchor = Some((id, name));
        Ok(properties)
    }

    fn refuse_anchors(&mut self, span: Span) {
        let location = self.reading.location(span);
        self.reading.report(
            Diagnostic::error("anchors-refused", "anchors and aliases are not taken here")
                .at(location, "an anchor or alias")
                .help("write the value out; a text that begins with `&` or `*` stands in quotes"),
        );
    }

    fn open_collection(
        &mut self,
        children: Children,
        style: StructureStyle,
        anchor: usize,
        tag: Option<Cow<'s, Tag>>,
        span: Span,
    ) -> Result<(), Stop> {
        self.reading.count(1, span)?;
        self.reading.check_depth(self.depth() + 1, span)?;
        let properties = self.properties(anchor, tag, span)?;
        let style = match style {
            StructureStyle::Block => Style::Indented,
            StructureStyle::Flow => Style::Flow,
        };
        self.open.push(Open { children, span, style, properties, height: 0 });
        Ok(())
    }

    fn close_collection(&mut self, end: Span) -> Result<(), Stop> {
        let open = self.open.pop().expect("the parser closes only what it opened");
        let last_child = match &open.children {
            Children::Items(items) => items.last().map(end_of),
            Children::Entries { entries, .. } => entries.last().map(|entry| end_of(&entry.value)),
        };
        let end = match (open.style, last_child) {
            (Style::Indented, last_child) => last_child.unwrap_or(open.span.start),
            _ => end.end,
        };
        let span = Span { end: end.max(open.span.start), ..open.span };
        let node = match open.children {
            Children::Items(items) => Node::new(NodeValue::Sequence(items), span, open.style),
            Children::Entries { entries, .. } => self.mapping(entries, span, open.style),
        };
        self.finish_node(node, open.properties, open.height + 1)
    }

    /// Gives a finished node its properties, keeps it for its aliases, and puts it where it belongs.
    fn finish_node(&mut self, mut node: Node, properties: Properties, height: usize) -> Result<(), Stop> {
        if let Some(tag) = properties.tag {
            node = node.with_tag(&tag);
        }
        if let Some((id, name)) = properties.anchor {
            node = node.with_anchor(&name);
            if self.aliased.as_ref().is_none_or(|words| words.contains(&*name)) {
                let (nodes, weight) = measure(&node);
                self.pay(weight, node.span)?;
                self.anchors.insert(id, Anchored { node: node.clone(), nodes, weight, height });
            }
        }
        self.place(node, height);
        Ok(())
    }

    /// The lists and maps that are open, that of all documents included.
    fn depth(&self) -> usize {
        self.open.len() + usize::from(self.rules.documents == Feature::Allowed)
    }

    fn place(&mut self, node: Node, height: usize) {
        let Some(open) = self.open.last_mut() else {
            self.documents.push(node);
            return;
        };
        open.height = open.height.max(height);
        match &mut open.children {
            Children::Items(items) => items.push(node),
            Children::Entries { entries, key } => match key.take() {
                None => *key = Some(node),
                Some(key) => entries.push(Entry { key, value: node }),
            },
        }
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Stop> {
        if self.rules.anchors == Feature::Refused {
            self.refuse_anchors(span);
            return self.place_null(span);
        }
        let Some(anchored) = self.anchors.get(&anchor) else {
            let location = self.reading.location(span);
            self.reading.report(
                Diagnostic::error("alias-in-itself", "an alias stands inside the value it names")
                    .at(location, "this would never end")
                    .help("name another anchor, or move the anchor to a value outside"),
            );
            return self.place_null(span);
        };
        let (nodes, weight, height) = (anchored.nodes, anchored.weight, anchored.height);
        self.reading.count(nodes, span)?;
        self.reading.check_depth(self.depth() + height, span)?;
        self.pay(weight, span)?;
        let node = self.anchors[&anchor].node.clone().with_alias(span);
        self.place(node, height);
        Ok(())
    }

    fn place_null(&mut self, span: Span) -> Result<(), Stop> {
        self.reading.count(1, span)?;
        self.place(Node::new(NodeValue::Null, span, Style::Plain), 0);
        Ok(())
    }

    /// Takes the weight of a copy from what aliases may add.
    fn pay(&mut self, weight: usize, span: Span) -> Result<(), Stop> {
        self.alias_weight = self.alias_weight.saturating_add(weight);
        let bound = self.reading.limits.alias_weight_max;
        if self.alias_weight <= bound {
            return Ok(());
        }
        let location = self.reading.location(span);
        self.reading.stop(
            Diagnostic::error("aliases-too-large", format!("aliases add more than {bound} values to this file"))
                .at(location, "the first one too many")
                .help("use fewer aliases, or anchor smaller values"),
        )
    }

    fn unknown_anchor(&mut self, name: &str, span: Span) -> Result<(), Stop> {
        if self.rules.anchors == Feature::Refused {
            self.refuse_anchors(span);
            return self.place_null(span);
        }
        let location = self.reading.location(span);
        let known = self.anchor_names.iter().take(if self.reading.is_full() { 0 } else { SUGGESTED_ANCHORS_MAX });
        let nearest = suggest::nearest(name, known.map(|name| &**name));
        let help = match nearest {
            Some(nearest) => format!("did you mean `*{nearest}`?"),
            None => format!("put `&{name}` before a value further up, or write the text in quotes: '*{name}'"),
        };
        self.reading.report(
            Diagnostic::error("unknown-anchor", format!("the alias `*{name}` names no anchor above it"))
                .at(location, "no value has this anchor")
                .help(help),
        );
        self.place_null(span)
    }

    /// A map of these entries with its `<<` merged and its repeated keys judged.
    fn mapping(&mut self, entries: Vec<Entry>, span: Span, style: Style) -> Node {
        let is_merge = |entry: &Entry| entry.key.style == Style::Plain && entry.key.as_str() == Some("<<");
        if self.rules.merge_keys == Feature::Refused || !entries.iter().any(is_merge) {
            return self.reading.mapping(entries, self.rules.duplicate_keys, span, style);
        }
        let merge_count = entries.iter().filter(|entry| is_merge(entry)).count();
        if merge_count > 1 && self.rules.duplicate_keys == DuplicateKeys::Error {
            let second = entries.iter().filter(|entry| is_merge(entry)).nth(1).map_or(span, |entry| entry.key.span);
            let location = self.reading.location(second);
            self.reading.report(
                Diagnostic::error("duplicate-key", "`<<` stands twice in one map")
                    .at(location, "the second one")
                    .help("merge several maps by one list: `<<: [*one, *two]`"),
            );
        }
        let mut explicit = Vec::with_capacity(entries.len());
        let mut merged = Vec::new();
        let mut position = 0;
        for entry in entries {
            if is_merge(&entry) {
                position = explicit.len();
                self.merge(entry.value, &mut merged);
            } else {
                explicit.push(entry);
            }
        }
        let node = self.reading.mapping(explicit, self.rules.duplicate_keys, span, style);
        let NodeValue::Mapping(mut explicit) = node.value else { unreachable!("a map was asked for") };
        let missing = missing_entries(&explicit, merged);
        let position = position.min(explicit.len());
        explicit.splice(position..position, missing);
        Node::new(NodeValue::Mapping(explicit), span, style)
    }

    /// Adds the entries of the value of a `<<`: a map, or a list of maps.
    fn merge(&mut self, value: Node, merged: &mut Vec<Entry>) {
        let span = value.alias().unwrap_or(value.span);
        let kind = value.kind();
        match value.value {
            NodeValue::Mapping(entries) => merged.extend(entries),
            NodeValue::Sequence(items) if items.iter().all(|item| item.entries().is_some()) => {
                for item in items {
                    if let NodeValue::Mapping(entries) = item.value {
                        merged.extend(entries);
                    }
                }
            }
            _ => {
                let location = self.reading.location(span);
                self.reading.report(
                    Diagnostic::error("wrong-merge", "`<<` merges maps only")
                        .at(location, format!("this is {kind}"))
                        .help("give it an alias of a map, `<<: *name`, or a list of such"),
                );
            }
        }
    }

    fn syntax_error(&self, error: &ScanError) -> Diagnostic {
        let offset = error.marker().byte_offset().unwrap_or(self.reading.text.len());
        let span = self.reading.character_at(offset);
        if *error.kind() == ErrorKind::RecursionLimitExceeded {
            return self.reading.too_deep(span);
        }
        let (message, help) = match error.kind() {
            ErrorKind::UnexpectedCharacter { character } if character.is_control() => (
                Some("a control character stands here"),
                "remove it, or write it as an escape in double quotes: `\"\\u0007\"`",
            ),
            _ if is_at_expression(self.reading.text.as_bytes(), offset) => (
                Some("an expression stands in brackets without quotes"),
                "put the expression in quotes: `\"${{ … }}\"`",
            ),
            kind => explain(kind),
        };
        let message = message.map_or_else(|| format!("this is no YAML: {}", error.info()), str::to_owned);
        syntax("yaml-syntax", message, self.reading.location(span), "the reader gave up here", help)
    }
}

/// Whether the reader gave up at the braces of a `${{ }}`, which brackets around it do not let be text.
fn is_at_expression(text: &[u8], offset: usize) -> bool {
    let starts_with = |start: usize, what: &[u8]| text.get(start..).is_some_and(|rest| rest.starts_with(what));
    starts_with(offset, b"{{") || offset.checked_sub(1).is_some_and(|dollar| starts_with(dollar, b"${{"))
}

/// Where the last child of an indented collection ends in the text, which for a copy is where its alias ends.
fn end_of(node: &Node) -> u32 {
    node.alias().unwrap_or(node.span).end
}

/// The entries of `merged` that neither `explicit` nor an earlier one of themselves has.
fn missing_entries(explicit: &[Entry], merged: Vec<Entry>) -> Vec<Entry> {
    let mut names: HashSet<Box<str>> = explicit.iter().filter_map(Entry::name).map(Box::from).collect();
    merged.into_iter().filter(|entry| entry.name().is_none_or(|name| names.insert(name.into()))).collect()
}

/// The nodes of a tree and their weight for [`crate::tree::Limits::alias_weight_max`].
fn measure(node: &Node) -> (usize, usize) {
    let children: (usize, usize) = match &node.value {
        NodeValue::Sequence(items) => sum(items.iter().map(measure)),
        NodeValue::Mapping(entries) => {
            sum(entries.iter().flat_map(|entry| [measure(&entry.key), measure(&entry.value)]))
        }
        NodeValue::String(text) => (0, text.len() / BYTES_PER_WEIGHT),
        NodeValue::Integer { raw, .. } | NodeValue::Float { raw, .. } => (0, raw.len() / BYTES_PER_WEIGHT),
        NodeValue::Null | NodeValue::Bool(_) => (0, 0),
    };
    let names = node.tag().map_or(0, str::len) + node.anchor().map_or(0, str::len);
    (children.0 + 1, children.1 + 1 + names / BYTES_PER_WEIGHT)
}

fn sum(pairs: impl Iterator<Item = (usize, usize)>) -> (usize, usize) {
    pairs.fold((0, 0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1))
}

/// Every word after a `*`, among them the names of all aliases; `None` if they are too many or not plain to tell.
fn words_after_stars(text: &str) -> Option<HashSet<&str>> {
    let mut words = HashSet::new();
    let mut rest = text;
    while let Some(star) = rest.find('*') {
        rest = &rest[star + 1..];
        let ends_word = |character: char| character.is_whitespace() || matches!(character, ',' | '[' | ']' | '{' | '}');
        let end = rest.find(ends_word).unwrap_or(rest.len());
        let word = &rest[..end];
        if word.contains('*') || words.len() > ALIASED_WORDS_MAX {
            return None;
        }
        words.insert(word);
        words.insert(word.trim_end_matches(':'));
        rest = &rest[end..];
    }
    Some(words)
}

/// What to say about a broken file, where the parser's own words are not the user's, and what to do.
fn explain(kind: &ErrorKind) -> (Option<&'static str>, &'static str) {
    use ErrorKind as E;
    match kind {
        E::TabNotAllowed | E::TabInBlockIndentation | E::TabInIndentation | E::TabAtBlockScalarStart => {
            (Some("a tab stands where YAML takes spaces only"), "indent with spaces")
        }
        E::MappingValueNotAllowed => (
            Some("a `:` stands where none is expected"),
            "put the value in quotes if it holds a `: `; else check the indentation, or whether the line above lacks its `:`",
        ),
        E::UnclosedQuotedScalar => {
            (Some("a quoted text does not end"), "close the quote, or double it inside the text")
        }
        E::UnclosedFlowCollection { .. }
        | E::UnexpectedEofFlowMapping
        | E::UnexpectedEofFlowSequence
        | E::UnexpectedEofImplicitFlowMapping => (Some("a bracket is not closed"), "close it with `]` or `}`"),
        E::InvalidQuotedScalarIndent => (
            Some("a quoted text goes on in a line that is not indented"),
            "close the quote, or indent every line of the text",
        ),
        E::InvalidColonPlacement => {
            (Some("a `key: value` stands inside brackets"), "close the bracket above, or write the map in braces")
        }
        E::MismatchedFlowCollectionEnd { .. } | E::MisplacedFlowCollectionEnd => {
            (Some("a bracket closes what was not opened"), "match every `[` with `]` and every `{` with `}`")
        }
        E::ExpectedFlowMappingSeparator => (Some("a `,` or `}` is missing in a map"), "put `,` between entries"),
        E::ExpectedFlowSequenceSeparator => (Some("a `,` or `]` is missing in a list"), "put `,` between items"),
        E::UnexpectedCharacter { .. } => (Some("a value cannot begin with this sign"), "put the value in quotes"),
        E::InvalidIndentation
        | E::ExpectedBlockMappingKey
        | E::ExpectedBlockSequenceEntry
        | E::InvalidBlockScalarIndent => (
            Some("this line does not fit the indentation of the lines above"),
            "indent it like its neighbours; a map has keys only, a list has `- ` items only",
        ),
        E::BlockSequenceEntryNotAllowed | E::BlockEntryInFlowCollection => (
            Some("a list item stands where none is expected"),
            "begin the list on a line of its own, or write `[a, b]`",
        ),
        E::SimpleKeyExpected | E::InvalidSimpleKey => (
            Some("this line is no `key: value`"),
            "end the key with `: `, or indent the line as part of the text above",
        ),
        E::UnknownQuotedScalarEscape => (
            Some("this escape is unknown in a double-quoted text"),
            "write `\\\\` for a backslash, or use single quotes",
        ),
        E::InvalidTrailingSingleQuotedScalar | E::InvalidTrailingDoubleQuotedScalar => {
            (Some("something follows the end of a quoted text"), "put the whole value in one pair of quotes")
        }
        E::CommentNotSeparated => (Some("a comment needs a space before its `#`"), "put a space before it"),
        E::MissingAnchorOrAliasName => {
            (Some("an `&` or `*` needs a name"), "put a text that begins with `&` or `*` in quotes")
        }
        E::UndeclaredTagHandle => {
            (Some("a tag's handle was not declared"), "put a text that begins with `!` in quotes")
        }
        _ => (None, "see https://yaml.org/spec/1.2.2 for the grammar"),
    }
}
