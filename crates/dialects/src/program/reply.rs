//! A program's reply as it was read: bounded, its places still marks.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use graph::{JobName, Question, Severity, Status};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::reading::{Mark, Marks, Part, Reading, Value};
use super::{PROTOCOL, ProtocolError};
use crate::native::{Kept, Words};
use crate::tree::{Node, Span};

/// The longest reply, in bytes.
pub const REPLY_BYTES_MAX: usize = 64 << 20;
/// The most values in a reply's document and hooks, keys included and marks left out.
pub const VALUES_MAX: usize = 4_000_000;
/// The most files a reply may name.
pub const FILES_MAX: usize = 4096;
/// The most hooks of a program.
pub const HOOKS_MAX: usize = 1000;
/// The most holes of one evaluation.
pub const HOLES_MAX: usize = 100_000;
/// The most jobs that one hole waits for.
const AFTER_MAX: usize = 20_000;
/// The most questions of one evaluation.
pub const QUESTIONS_MAX: usize = 200_000;
/// The most statuses.
const STATUSES_MAX: usize = 1000;
/// The most diagnostics that a program may tell; what is beyond is an error of the reply.
pub const DIAGNOSTICS_MAX: usize = 10_000;
/// The most places beside a diagnostic's own.
const RELATED_MAX: usize = 100;
/// The longest text of a name, a status or a diagnostic, in bytes; longer ones are cut.
const TEXT_BYTES_MAX: usize = 4096;

/// What a program replied. Its places are resolved by [`super::lower`].
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub(super) sdk: String,
    pub(super) files: Vec<String>,
    pub(super) hooks: Vec<Hook>,
    pub(super) document: Option<Node>,
    pub(super) holes: Vec<HoleReply>,
    pub(super) questions: BTreeSet<Question>,
    pub(super) statuses: BTreeMap<String, Status>,
    pub(super) diagnostics: Vec<DiagnosticReply>,
    pub(super) marks: Vec<Mark>,
    /// How each job of the document's map was read, if the reply was read by a session; else empty.
    pub(super) words: Vec<Words>,
}

impl Reply {
    /// The version of the SDK that the program was built with; empty if it does not say.
    #[must_use]
    pub fn sdk(&self) -> &str {
        &self.sdk
    }

    /// The program's files that places are in, as the compiler named them. May be renamed for people before
    /// [`super::lower`]; their order must stay.
    pub fn files(&mut self) -> &mut [String] {
        &mut self.files
    }

    /// The names of the program's hooks, in order; a hook's place is its number.
    pub fn hooks(&self) -> impl ExactSizeIterator<Item = &str> {
        self.hooks.iter().map(|hook| hook.name.as_str())
    }

    /// Whether it waits for answers: it is asked again once there are some.
    #[must_use]
    pub fn asks(&self) -> bool {
        !self.questions.is_empty()
    }

    pub(super) fn hooks_on(&self) -> Vec<Option<&Node>> {
        self.hooks.iter().map(|hook| hook.on.as_ref()).collect()
    }
}

/// A function of the program and the events it answers to.
#[derive(Clone, Debug)]
pub(super) struct Hook {
    pub name: String,
    pub on: Option<Node>,
    pub place: Span,
}

/// Jobs that will come.
#[derive(Clone, Debug)]
pub(super) struct HoleReply {
    pub name: String,
    pub after: Vec<JobName>,
    pub place: Span,
}

/// What the program itself found wrong.
#[derive(Clone, Debug)]
pub(super) struct DiagnosticReply {
    pub code: String,
    pub severity: Severity,
    pub message: String,
    pub label: String,
    pub help: String,
    pub place: Option<Span>,
    pub related: Vec<(Span, String)>,
}

/// The most characters of a text that is no reply that are told.
const TOLD_CHARACTERS_MAX: usize = 60;

fn beginning(text: &str) -> String {
    text.chars().take(TOLD_CHARACTERS_MAX).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// Reads a program's reply.
///
/// # Errors
/// If it is none, passes a bound, or is of another version of the protocol.
pub fn read(text: &str) -> Result<Reply, ProtocolError> {
    if text.len() > REPLY_BYTES_MAX {
        return Err(ProtocolError::TooLarge { bytes: text.len() });
    }
    let reading = Reading::default();
    let version = Cell::new(None);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = ReplySeed { reading: &reading, version: &version }
        .deserialize(&mut deserializer)
        .and_then(|reply| deserializer.end().map(|()| reply));
    match (read, version.get().or_else(|| protocol_of(text))) {
        (_, Some(found)) if found != PROTOCOL => Err(ProtocolError::Version { found }),
        (Err(error), _) => {
            Err(ProtocolError::Malformed { cause: format!("{error}; it begins with `{}`", beginning(text)) })
        }
        (Ok(_), None) => Err(ProtocolError::Malformed { cause: "it does not say its `protocol`".to_owned() }),
        (Ok(mut reply), Some(_)) => {
            reply.marks = reading.into_marks().list;
            Ok(reply)
        }
    }
}

/// Reads a reply of a session, taking over jobs that stand in it as they stood in an earlier one. The reply has no marks:
/// they are among those of the session. `None` if [`read`] must read it, for what is wrong with it or for its form.
pub(super) fn read_again(text: &str, marks: Marks, kept: Kept) -> Option<(Reply, Marks, Kept)> {
    if text.len() > REPLY_BYTES_MAX {
        return None;
    }
    let reading = Reading::again(marks, kept);
    let version = Cell::new(None);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut reply = ReplySeed { reading: &reading, version: &version }.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    version.get()?;
    let (marks, kept, words) = reading.into_parts()?;
    reply.words = words;
    Some((reply, marks, kept))
}

/// The version that a text says which could not be read otherwise.
fn protocol_of(text: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Head {
        protocol: Option<u64>,
    }
    serde_json::from_str::<Head>(text).ok()?.protocol
}

/// Reads a reply. Its marks are in the reading afterwards, its version in `version`.
pub(super) struct ReplySeed<'r> {
    pub reading: &'r Reading,
    pub version: &'r Cell<Option<u64>>,
}

impl<'de> DeserializeSeed<'de> for ReplySeed<'_> {
    type Value = Reply;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Reply, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ReplySeed<'_> {
    type Value = Reply;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a reply")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Reply, A::Error> {
        let mut reply = Reply::default();
        let reading = self.reading;
        while let Some(key) = access.next_key::<String>()? {
            match key.as_str() {
                "protocol" => {
                    let found = access.next_value()?;
                    self.version.set(Some(found));
                    if found != PROTOCOL {
                        return Err(A::Error::custom("another version"));
                    }
                }
                "sdk" => reply.sdk = cut(access.next_value()?),
                "files" => reply.files = access.next_value_seed(ListOf::<String>::new("files", FILES_MAX))?,
                "hooks" => {
                    let hooks =
                        access.next_value_seed(ListSeed { what: "hooks", most: HOOKS_MAX, seed: HookSeed(reading) })?;
                    reply.hooks = hooks;
                }
                "document" => {
                    let document = access.next_value_seed(Value { reading, part: Part::Document })?;
                    reply.document = (!document.is_null()).then_some(document);
                }
                "holes" => {
                    let holes = access.next_value_seed(ListOf::<WireHole>::new("holes", HOLES_MAX))?;
                    reply.holes = holes.into_iter().map(|hole| hole.read(reading)).collect::<Result<_, _>>()?;
                }
                "questions" => {
                    let questions = access.next_value_seed(ListOf::<Question>::new("questions", QUESTIONS_MAX))?;
                    reply.questions = questions.into_iter().collect();
                }
                "statuses" => {
                    let statuses: BTreeMap<String, Status> = access.next_value()?;
                    at_most("statuses", statuses.len(), STATUSES_MAX)?;
                    let cut_text =
                        |(name, status): (String, Status)| (cut(name), Status { text: cut(status.text), ..status });
                    reply.statuses = statuses.into_iter().map(cut_text).collect();
                }
                "diagnostics" => {
                    let wire = access.next_value_seed(ListOf::<WireDiagnostic>::new("diagnostics", DIAGNOSTICS_MAX))?;
                    reply.diagnostics = wire.into_iter().map(|wire| wire.read(reading)).collect();
                }
                // A later SDK may say more.
                _ => drop(access.next_value::<IgnoredAny>()?),
            }
        }
        Ok(reply)
    }
}

fn at_most<E: Error>(what: &str, count: usize, most: usize) -> Result<(), E> {
    if count > most { Err(E::custom(format!("it has more than {most} {what}"))) } else { Ok(()) }
}

/// The beginning of a text that is too long.
fn cut(mut text: String) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// A list of at most so many values, each read by the same seed.
struct ListSeed<S> {
    what: &'static str,
    most: usize,
    seed: S,
}

impl<'de, S: DeserializeSeed<'de> + Clone> DeserializeSeed<'de> for ListSeed<S> {
    type Value = Vec<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, S: DeserializeSeed<'de> + Clone> Visitor<'de> for ListSeed<S> {
    type Value = Vec<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {}", self.what)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = access.next_element_seed(self.seed.clone())? {
            list.push(item);
            at_most(self.what, list.len(), self.most)?;
        }
        Ok(list)
    }
}

/// A list of plain values.
type ListOf<T> = ListSeed<std::marker::PhantomData<T>>;

impl<T> ListSeed<std::marker::PhantomData<T>> {
    fn new(what: &'static str, most: usize) -> Self {
        Self { what, most, seed: std::marker::PhantomData }
    }
}

#[derive(Clone, Copy)]
struct HookSeed<'r>(&'r Reading);

impl<'de> DeserializeSeed<'de> for HookSeed<'_> {
    type Value = Hook;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Hook, D::Error> {
        let node = Value { reading: self.0, part: Part::Other }.deserialize(deserializer)?;
        if node.entries().is_none() {
            return Err(D::Error::custom("a hook is no map"));
        }
        let name = cut(node.get("name").and_then(Node::as_str).unwrap_or_default().to_owned());
        let on = node.get("on").filter(|on| !on.is_null()).cloned();
        Ok(Hook { name, on, place: node.span })
    }
}

#[derive(Deserialize)]
struct WireHole {
    name: String,
    #[serde(default)]
    after: Vec<JobName>,
    #[serde(rename = "@")]
    mark: Option<(i64, u32, u32)>,
}

impl WireHole {
    fn read<E: Error>(self, reading: &Reading) -> Result<HoleReply, E> {
        at_most("jobs that one hole waits for", self.after.len(), AFTER_MAX)?;
        Ok(HoleReply { name: cut(self.name), after: self.after, place: span(self.mark, reading) })
    }
}

#[derive(Deserialize)]
struct WireDiagnostic {
    code: String,
    #[serde(default = "error")]
    severity: Severity,
    message: String,
    #[serde(default)]
    label: String,
    #[serde(default)]
    help: String,
    #[serde(rename = "@")]
    mark: Option<(i64, u32, u32)>,
    #[serde(default)]
    related: Vec<WireRelated>,
}

fn error() -> Severity {
    Severity::Error
}

#[derive(Deserialize)]
struct WireRelated {
    #[serde(rename = "@")]
    mark: Option<(i64, u32, u32)>,
    #[serde(default)]
    remark: String,
}

impl WireDiagnostic {
    fn read(self, reading: &Reading) -> DiagnosticReply {
        let related = self.related.into_iter().take(RELATED_MAX);
        DiagnosticReply {
            code: cut(self.code),
            severity: self.severity,
            message: cut(self.message),
            label: cut(self.label),
            help: cut(self.help),
            place: self.mark.map(|mark| span(Some(mark), reading)),
            related: related.map(|related| (span(related.mark, reading), cut(related.remark))).collect(),
        }
    }
}

fn span(mark: Option<(i64, u32, u32)>, reading: &Reading) -> Span {
    match mark {
        Some((file, line, column)) => reading.span(Mark { file, line, column }),
        None => super::reading::UNMARKED,
    }
}
