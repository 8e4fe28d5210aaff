//! Pipelines as programs: what crosses between a program and the binary, and its lowering.
//!
//! A program is asked by one line ([`request`]) and answers by one ([`read`]). Its reply holds a document of the native
//! format; [`lower`] merges it behind the config files, as one more file with four freedoms, and everything after is
//! the native road. Places of the program stand in the reply as marks (`reply.rs`) and become spans of its sources
//! (`places.rs`). [`document`] is the way back: the files as a document that plugins extend.
//!
//! The contract is `docs/design/2026-11-21-rust-pipelines.md`. A reply comes from a program of the user's: nothing in it
//! is trusted, everything is bounded. Nothing here starts a process.

mod document;
mod places;
mod reading;
mod reply;
mod trial;

use std::collections::HashMap;
use std::fmt;

use graph::{Digest, Event, Known};
use serde::Serialize;

pub use document::{Document, document};
pub use reply::{
    DIAGNOSTICS_MAX, FILES_MAX, HOLES_MAX, HOOKS_MAX, QUESTIONS_MAX, REPLY_BYTES_MAX, Reply, VALUES_MAX, read,
};

use places::Places;
pub use trial::answer;

use crate::native::{self, EventTexts, Lowered, Parts, SourceFile};

/// The version of the contract; program and binary must have the same.
pub const PROTOCOL: u64 = 1;

/// Why a reply cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// Program and binary speak different versions: build the program again.
    Version {
        /// The program's.
        found: u64,
    },
    /// It is longer than [`REPLY_BYTES_MAX`].
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// It is no reply, or passes a bound.
    Malformed {
        /// What is wrong, and where in the line.
        cause: String,
    },
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { found } => write!(
                f,
                "the pipeline's program speaks version {found} of the protocol, and this ropewalk version {PROTOCOL}: let it name the SDK \
                 that ropewalk carries (`ropewalk = {{ path = \".sdk/ropewalk\" }}`), or use the ropewalk that its SDK is of"
            ),
            Self::TooLarge { bytes } => {
                write!(f, "the pipeline's program replied with {bytes} bytes, the most is {REPLY_BYTES_MAX}")
            }
            Self::Malformed { cause } => write!(
                f,
                "the pipeline's program replied with what is no reply ({cause}): its `main` has to call `ropewalk::Ci::main` and may \
                 print nothing to standard output before"
            ),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// One line that asks a program, without the line break.
///
/// `hooks` are the numbers of the hooks to evaluate (see [`triggered_hooks`]); `None` asks only what hooks there are.
/// `document` is what plugins may extend.
#[must_use]
pub fn request(known: &Known, hooks: Option<&[usize]>, document: Option<&Document>) -> String {
    #[derive(Serialize)]
    struct Request<'a> {
        protocol: u64,
        event: &'a Event,
        answers: Vec<(&'a graph::Question, &'a graph::Answer)>,
        hooks: Option<&'a [usize]>,
    }
    let request = Request { protocol: PROTOCOL, event: &known.event, answers: known.answers.iter().collect(), hooks };
    // Our own types serialize to JSON whatever they hold.
    let mut text = serde_json::to_string(&request).expect("a request always serializes");
    if let Some(document) = document {
        text.pop();
        let names = serde_json::to_string(&document.files).expect("names always serialize");
        text.push_str(&format!(r#","document":{},"document_files":{names}}}"#, document.text));
    }
    text
}

/// The numbers of the hooks that answer to the event, in order; empty if none does.
///
/// A hook without `on` answers as the config files beside the program do, and without any such `on` to all events but
/// commands.
#[must_use]
pub fn triggered_hooks(reply: &Reply, files: &[SourceFile], event: &Event) -> Vec<usize> {
    let (_, roots) = native::read(files, &mut native::Faults::default());
    native::triggered_hooks(&roots, &reply.hooks_on(), event)
}

/// Whether the config files beside a program answer to the event by their `on`; without one to all events but commands.
#[must_use]
pub fn files_answer(files: &[SourceFile], event: &Event) -> bool {
    let (_, roots) = native::read(files, &mut native::Faults::default());
    !native::triggered_hooks(&roots, &[None], event).is_empty()
}

/// Lowers the reply of a program together with the config files beside it.
///
/// `sources` are texts of the program's files under the names that the reply has for them ([`Reply::files`]); places in
/// other files are told by name, line and column alone. `program` is the digest of the binary, for steps that are
/// functions. Pure, and bounded like [`native::lower`].
#[must_use]
pub fn lower(
    reply: Reply,
    sources: Vec<(String, String)>,
    files: &[SourceFile],
    known: &Known,
    program: Digest,
) -> Lowered {
    let mut texts: HashMap<String, String> = sources.into_iter().collect();
    let mut places = Places::default();
    let mut reply = reply;
    places.marks.list = std::mem::take(&mut reply.marks);
    places.learn(&reply.files, &mut |name| NamedFile { name: name.to_owned(), text: texts.remove(name) });
    lower_placed(reply, &mut places, files, known, program, EventTexts::Finished, &mut native::Kept::default())
}

/// Reads a reply and lowers it as [`lower_again`] does, with texts that read the event or its parameters as they are
/// written: for [`crate::export`].
///
/// # Errors
/// As [`read`].
pub fn lower_as_written(
    text: &str,
    named: &mut dyn FnMut(&str) -> NamedFile,
    files: &[SourceFile],
    known: &Known,
    program: Digest,
) -> Result<Lowered, ProtocolError> {
    let mut reply = read(text)?;
    let mut places = Places::default();
    places.marks.list = std::mem::take(&mut reply.marks);
    places.learn(&reply.files, named);
    let kept = &mut native::Kept::default();
    Ok(lower_placed(reply, &mut places, files, known, program, EventTexts::AsWritten, kept))
}

/// A file of a program, as people know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// Its name in diagnostics.
    pub name: String,
    /// Its text, if it is there; else places in it are told by name, line and column alone.
    pub text: Option<String>,
}

/// What a session with one program remembers from evaluation to evaluation, so that jobs which have not changed are not
/// read and lowered again. Takes about as much memory as the last reply and its graph.
#[derive(Default)]
pub struct Memory {
    kept: native::Kept,
    places: Places,
    /// The config files beside the program in the last evaluation.
    files: Vec<SourceFile>,
}

/// Marks that a session remembers; with more of them it begins anew.
const MARKS_MAX: usize = 1_000_000;

/// Reads the reply of a program and lowers it, as [`read`] and [`lower`] do, quicker where `memory` has seen an earlier reply
/// of the session. Whatever it has seen, the result is the same.
///
/// `named` is asked once in a session for each file that replies name.
///
/// # Errors
/// As [`read`].
pub fn lower_again(
    text: &str,
    named: &mut dyn FnMut(&str) -> NamedFile,
    files: &[SourceFile],
    known: &Known,
    program: Digest,
    memory: &mut Memory,
) -> Result<Lowered, ProtocolError> {
    if memory.files != files || memory.places.marks.list.len() > MARKS_MAX {
        *memory = Memory { files: files.to_vec(), ..Memory::default() };
    }
    let reply = match read_again(text, memory) {
        Some(reply) => reply,
        None => {
            *memory = Memory { files: files.to_vec(), ..Memory::default() };
            // What it says is said by the plain way of reading.
            match read_again(text, memory) {
                Some(reply) => reply,
                None => {
                    let mut reply = read(text)?;
                    memory.places.marks.list = std::mem::take(&mut reply.marks);
                    let lowered = lower_named(reply, named, files, known, program, memory);
                    *memory = Memory::default();
                    return Ok(lowered);
                }
            }
        }
    };
    Ok(lower_named(reply, named, files, known, program, memory))
}

/// The reply, with the marks in the memory. `None` if it does not go with the memory, which is of no more use then.
fn read_again(text: &str, memory: &mut Memory) -> Option<Reply> {
    let (marks, kept) = (std::mem::take(&mut memory.places.marks), std::mem::take(&mut memory.kept));
    let (reply, marks, kept) = reply::read_again(text, marks, kept)?;
    (memory.places.marks, memory.kept) = (marks, kept);
    // Marks count files.
    reply.files.starts_with(&memory.places.files).then_some(reply)
}

fn lower_named(
    reply: Reply,
    named: &mut dyn FnMut(&str) -> NamedFile,
    files: &[SourceFile],
    known: &Known,
    program: Digest,
    memory: &mut Memory,
) -> Lowered {
    memory.places.learn(&reply.files, named);
    lower_placed(reply, &mut memory.places, files, known, program, EventTexts::Finished, &mut memory.kept)
}

fn lower_placed(
    reply: Reply,
    places: &mut Places,
    files: &[SourceFile],
    known: &Known,
    program: Digest,
    texts: EventTexts,
    kept: &mut native::Kept,
) -> Lowered {
    let mut faults = native::Faults::default();
    let (mut all, roots) = native::read(files, &mut faults);
    let written = places::written(reply, places, &roots, &mut all, program);
    let parts = Parts { sources: all, roots, program: Some(written), faults };
    let mut lowered = native::lower_parts(parts, files, known, texts, kept);
    lowered.evaluation.program = Some(program);
    lowered
}
