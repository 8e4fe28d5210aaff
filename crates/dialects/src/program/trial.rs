//! What `ropewalk lower` is asked: a reply that a program's tests made, to be lowered as a build would.

use std::cell::Cell;
use std::fmt;

use graph::{Digest, Evaluation, Known};
use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::reading::Reading;
use super::reply::{Reply, ReplySeed};
use super::{ProtocolError, lower, triggered_hooks};
use crate::native::{SourceFile, Triggered};

/// The longest request, in bytes.
const REQUEST_BYTES_MAX: usize = 2 * super::REPLY_BYTES_MAX;

/// Answers one line of `ropewalk lower` by one line.
///
/// Asked `{"hooks": REPLY, "known": K}` it says `{"hooks": [N…]}`: those that answer to the event. Asked
/// `{"reply": REPLY, "known": K}`, perhaps with `"sources": [[NAME, TEXT]…]` of the program and `"files": [[NAME, TEXT]…]`
/// of configuration, it says `{"graph", "questions", "diagnostics", "triggered": {"answers", "reason", "hooks"}}`. What
/// cannot be read is answered by `{"error": TEXT}`. Steps that are functions name a program of zeros.
#[must_use]
pub fn answer(line: &str) -> String {
    let answer = match read(line) {
        Ok(trial) => answered(trial),
        Err(error) => serde_json::to_string(&Refusal { error: error.to_string() }),
    };
    // Our own types serialize to JSON whatever they hold.
    answer.expect("an answer always serializes")
}

#[derive(Serialize)]
struct Refusal {
    error: String,
}

#[derive(Serialize)]
struct Hooks {
    hooks: Vec<usize>,
}

#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    evaluation: Evaluation,
    triggered: Heard,
}

#[derive(Serialize)]
struct Heard {
    answers: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    hooks: Vec<usize>,
}

fn answered(trial: Trial) -> serde_json::Result<String> {
    let Trial { reply, known, sources, files, task } = trial;
    let files: Vec<SourceFile> = files.into_iter().map(|(name, text)| SourceFile::new(name, text)).collect();
    let hooks = triggered_hooks(&reply, &files, &known.event);
    if task == Task::Hooks {
        return serde_json::to_string(&Hooks { hooks });
    }
    let lowered = lower(reply, sources, &files, &known, Digest([0; 32]));
    let (answers, reason) = match lowered.triggered {
        Triggered::Yes => (true, String::new()),
        Triggered::No { reason } => (false, reason),
    };
    serde_json::to_string(&Answer { evaluation: lowered.evaluation, triggered: Heard { answers, reason, hooks } })
}

/// What one line asks.
struct Trial {
    task: Task,
    reply: Reply,
    known: Known,
    sources: Vec<(String, String)>,
    files: Vec<(String, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Task {
    Hooks,
    Lower,
}

fn read(line: &str) -> Result<Trial, ProtocolError> {
    if line.len() > REQUEST_BYTES_MAX {
        return Err(ProtocolError::TooLarge { bytes: line.len() });
    }
    let reading = Reading::default();
    let version = Cell::new(None);
    let mut deserializer = serde_json::Deserializer::from_str(line);
    let trial = TrialSeed { reading: &reading, version: &version }
        .deserialize(&mut deserializer)
        .and_then(|trial| deserializer.end().map(|()| trial));
    match (trial, version.get()) {
        (_, Some(found)) if found != super::PROTOCOL => Err(ProtocolError::Version { found }),
        (Err(error), _) => Err(ProtocolError::Malformed { cause: error.to_string() }),
        (Ok(mut trial), _) => {
            trial.reply.marks = reading.into_marks().list;
            Ok(trial)
        }
    }
}

struct TrialSeed<'r> {
    reading: &'r Reading,
    version: &'r Cell<Option<u64>>,
}

impl<'de> DeserializeSeed<'de> for TrialSeed<'_> {
    type Value = Trial;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Trial, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TrialSeed<'_> {
    type Value = Trial;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map with `reply` and `known`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Trial, A::Error> {
        let (mut reply, mut known) = (None, None);
        let (mut sources, mut files) = (Vec::new(), Vec::new());
        while let Some(key) = access.next_key::<String>()? {
            let task = if key == "hooks" { Task::Hooks } else { Task::Lower };
            match key.as_str() {
                "reply" | "hooks" if reply.is_some() => return Err(A::Error::custom("there are two replies")),
                "reply" | "hooks" => {
                    let seed = ReplySeed { reading: self.reading, version: self.version };
                    reply = Some((task, access.next_value_seed(seed)?));
                }
                "known" => known = Some(access.next_value()?),
                "sources" => sources = access.next_value()?,
                "files" => files = access.next_value()?,
                _ => drop(access.next_value::<IgnoredAny>()?),
            }
        }
        let (task, reply) = reply.ok_or_else(|| A::Error::missing_field("reply"))?;
        let known = known.ok_or_else(|| A::Error::missing_field("known"))?;
        Ok(Trial { task, reply, known, sources, files })
    }
}
