//! A reader from JSON to the tree, for replies: marks become places while they are read, and every value is counted.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::reply::VALUES_MAX;
use crate::hashing::QuickMap;
use crate::native::{JobText, Kept, Words};
use crate::tree::{Entry, Node, NodeValue, Span, Style};

/// The `source` of a span that is no span yet but the number of a mark, in `start`.
pub(super) const MARKED: u32 = u32::MAX;
/// The `source` of a span that takes the place of what holds it.
pub(super) const UNMARKED: Span = Span { source: u32::MAX - 1, start: 0, end: 0 };
/// Maps up to this size are searched by comparing.
const SEARCHED_ENTRIES_MAX: usize = 16;

/// A place as a program says it; see the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mark {
    /// The number of a file of the reply; below zero `-1 - n` for file `n` of the request's document.
    pub file: i64,
    pub line: u32,
    pub column: u32,
}

/// What is shared while one reply is read.
#[derive(Default)]
pub(super) struct Reading {
    values: Cell<usize>,
    marks: RefCell<Marks>,
    known: Option<RefCell<Known>>,
}

/// What is known of jobs from an earlier reply of the session, and what this one adds.
struct Known {
    kept: Kept,
    /// How each job of the document's map was read, in order.
    words: Vec<Words>,
    /// How many maps or lists of jobs there were.
    n_sections: usize,
}

/// Every mark once; the numbers hold for a session.
#[derive(Default)]
pub(super) struct Marks {
    pub list: Vec<Mark>,
    numbers: QuickMap<Mark, u32>,
}

impl Reading {
    /// A reading that takes over jobs which stand in a reply as they stood in an earlier one.
    pub(super) fn again(marks: Marks, mut kept: Kept) -> Self {
        kept.begin_reading();
        let known = Known { kept, words: Vec::new(), n_sections: 0 };
        Self { values: Cell::default(), marks: RefCell::new(marks), known: Some(RefCell::new(known)) }
    }

    pub(super) fn into_marks(self) -> Marks {
        self.marks.into_inner()
    }

    /// Marks, jobs of earlier replies, and how each job of this one was read; `None` if its jobs are not one map.
    pub(super) fn into_parts(self) -> Option<(Marks, Kept, Vec<Words>)> {
        let Known { kept, words, n_sections } = self.known?.into_inner();
        (n_sections < 2).then(|| (self.marks.into_inner(), kept, words))
    }

    fn begin_section(&self) {
        if let Some(known) = &self.known {
            known.borrow_mut().n_sections += 1;
        }
    }

    /// Reads a job from its text, or takes it over.
    fn job<E: Error>(&self, id: &str, text: &str, known: &RefCell<Known>) -> Result<Node, E> {
        let known = &mut *known.borrow_mut();
        if let Some((body, n_values)) = known.kept.take_same(id, text) {
            known.words.push(Words::AsBefore);
            self.add(n_values)?;
            return Ok(body);
        }
        let before = self.values.get();
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let node = Value { reading: self, part: Part::Job }.deserialize(&mut deserializer).map_err(E::custom)?;
        // What has no place of its own may get another one with the same words.
        let is_placed = node.span != UNMARKED;
        let text = is_placed.then(|| JobText { text: text.into(), n_values: self.values.get() - before });
        known.words.push(Words::Fresh(text));
        Ok(node)
    }

    fn count<E: Error>(&self) -> Result<(), E> {
        self.add(1)
    }

    fn add<E: Error>(&self, n_values: usize) -> Result<(), E> {
        let count = self.values.get() + n_values;
        self.values.set(count);
        if count > VALUES_MAX { Err(E::custom(format!("it holds more than {VALUES_MAX} values"))) } else { Ok(()) }
    }

    /// The span that stands for a mark until places are known.
    pub(super) fn span(&self, mark: Mark) -> Span {
        let marks = &mut *self.marks.borrow_mut();
        let number = *marks.numbers.entry(mark).or_insert_with(|| {
            marks.list.push(mark);
            // There are fewer marks than values.
            marks.list.len() as u32 - 1
        });
        Span { source: MARKED, start: number, end: number }
    }
}

/// Which part of a document a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Document,
    Jobs,
    Job,
    Steps,
    Step,
    /// What a function is called with: the user's values, in which nothing is a mark.
    Payload,
    Other,
}

impl Part {
    fn of_key(self, key: &str) -> Self {
        match (self, key) {
            (Part::Document, "jobs") => Part::Jobs,
            (Part::Jobs, _) => Part::Job,
            (Part::Job, "run") => Part::Steps,
            (Part::Step, "function") | (Part::Payload, _) => Part::Payload,
            _ => Part::Other,
        }
    }

    fn of_item(self) -> Self {
        match self {
            Part::Jobs => Part::Job,
            Part::Steps => Part::Step,
            Part::Payload => Part::Payload,
            _ => Part::Other,
        }
    }
}

/// Reads one value.
#[derive(Clone, Copy)]
pub(super) struct Value<'r> {
    pub reading: &'r Reading,
    pub part: Part,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        self.reading.count()?;
        deserializer.deserialize_any(self)
    }
}

fn plain(value: NodeValue) -> Node {
    Node::new(value, UNMARKED, Style::Plain)
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(plain(NodeValue::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(plain(NodeValue::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(plain(NodeValue::Integer { value, raw: value.to_string().into() }))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        let raw = value.to_string().into();
        Ok(plain(match i64::try_from(value) {
            Ok(value) => NodeValue::Integer { value, raw },
            #[expect(clippy::cast_precision_loss, reason = "what is larger is a float; its digits are kept")]
            Err(_) => NodeValue::Float { value: value as f64, raw },
        }))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(plain(NodeValue::Float { value, raw: format!("{value:?}").into() }))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::new(NodeValue::String(text.into()), UNMARKED, Style::Quoted))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        if self.part == Part::Jobs {
            self.reading.begin_section();
        }
        let seed = Value { part: self.part.of_item(), ..self };
        while let Some(item) = access.next_element_seed(seed)? {
            items.push(item);
        }
        Ok(Node::new(NodeValue::Sequence(items), UNMARKED, Style::Flow))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        // An item of a list of steps was told from a list by its form only.
        let part = self.part;
        let mut entries: Vec<Entry> = Vec::new();
        let mut marks: Vec<(Box<str>, Span)> = Vec::new();
        let mut own = UNMARKED;
        if part == Part::Jobs {
            self.reading.begin_section();
        }
        while let Some(key) = access.next_key_seed(Key(self.reading))? {
            if let Some(of) = key.strip_prefix('@').filter(|_| part != Part::Payload) {
                let span = self.reading.span(access.next_value_seed(MarkSeed)?);
                if of.is_empty() {
                    own = span;
                } else {
                    marks.push((of.into(), span));
                }
                continue;
            }
            let value = match &self.reading.known {
                Some(known) if part == Part::Jobs => {
                    self.reading.job(&key, access.next_value::<&RawValue>()?.get(), known)?
                }
                _ => access.next_value_seed(Value { part: part.of_key(&key), ..self })?,
            };
            entries.push(Entry { key: Node::new(NodeValue::String(key), UNMARKED, Style::Quoted), value });
        }
        set_marks(&mut entries, &marks);
        Ok(Node::new(NodeValue::Mapping(entries), own, Style::Flow))
    }
}

/// Gives entries the marks that name them.
fn set_marks(entries: &mut [Entry], marks: &[(Box<str>, Span)]) {
    let set = |entry: &mut Entry, span: Span| {
        entry.key.span = span;
        if entry.value.span == UNMARKED {
            entry.value.span = span;
        }
    };
    if entries.len() <= SEARCHED_ENTRIES_MAX {
        for (name, span) in marks {
            if let Some(entry) = entries.iter_mut().find(|entry| entry.name() == Some(name)) {
                set(entry, *span);
            }
        }
    } else if !marks.is_empty() {
        let marks: QuickMap<&str, Span> = marks.iter().map(|(name, span)| (&**name, *span)).collect();
        for entry in entries.iter_mut() {
            if let Some(&span) = entry.name().and_then(|name| marks.get(name)) {
                set(entry, span);
            }
        }
    }
    for entry in entries {
        if entry.key.span == UNMARKED {
            entry.key.span = entry.value.span;
        }
    }
}

/// Reads a key, and counts it.
struct Key<'r>(&'r Reading);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Box<str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Box<str>, D::Error> {
        self.0.count()?;
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Box<str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, text: &str) -> Result<Box<str>, E> {
        Ok(text.into())
    }
}

/// Reads a mark.
pub(super) struct MarkSeed;

impl<'de> DeserializeSeed<'de> for MarkSeed {
    type Value = Mark;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Mark, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for MarkSeed {
    type Value = Mark;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mark `[file, line, column]`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Mark, A::Error> {
        let short = || A::Error::custom("a mark is `[file, line, column]`");
        let file = access.next_element()?.ok_or_else(short)?;
        let line = access.next_element()?.ok_or_else(short)?;
        let column = access.next_element()?.ok_or_else(short)?;
        if access.next_element::<serde::de::IgnoredAny>()?.is_some() {
            return Err(short());
        }
        Ok(Mark { file, line, column })
    }
}
