//! What travels between `ropewalk` and its keeper: one packet is one request or one answer.
//!
//! Numbers are little-endian; a text is its length and its bytes, and inside a command every text ends in NUL as well, so
//! that the keeper points `execve` straight into the packet. Both ends are the same program, so there are no versions; the
//! reading side still checks every length and answers `None` to what it cannot read.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use graph::{Timestamp, Usage};

use super::view::{View, ViewError, ViewStage};
use super::{COMMAND_BYTES_MAX, Command, Ending, Left, Leftover, MARKER_VARIABLE, Role, Signal, SpawnFailure, StepEnd};

/// Requests and answers up to here travel as they are; longer requests in sealed memory. Answers are cut to fit.
pub const INLINE_BYTES_MAX: usize = 64 << 10;

/// How many leftovers an answer names; more are killed just the same.
pub const LEFTOVERS_NAMED_MAX: usize = 256;

const SPAWN: u8 = 1;
const SIGNAL_STEP: u8 = 2;
const SIGNAL_JOB: u8 = 3;
const END_JOB: u8 = 4;
const OPEN_VIEW: u8 = 5;
const CLOSE_VIEW: u8 = 6;
const IN_MEMORY: u8 = 7;

const ENDED: u8 = 1;
const NOT_STARTED: u8 = 2;
const JOB_ENDED: u8 = 3;
const VIEW_OPENED: u8 = 4;
const VIEW_FAILED: u8 = 5;

/// The short requests.
pub enum Request<'a> {
    SignalStep { step: u64, signal: Signal },
    SignalJob { marker: &'a str, signal: Signal },
    EndJob { id: u64, marker: &'a str },
    CloseView { view: u64 },
}

/// A request as the keeper reads it; borrows from the packet.
pub enum Incoming<'a> {
    Spawn(Spawn<'a>),
    SignalStep {
        step: u64,
        signal: Signal,
    },
    SignalJob {
        marker: &'a [u8],
        signal: Signal,
    },
    EndJob {
        id: u64,
        marker: &'a [u8],
    },
    OpenView {
        id: u64,
        view: View,
    },
    CloseView {
        view: u64,
    },
    /// The request itself is in the attached memory.
    InMemory {
        bytes: usize,
    },
}

/// A command as the keeper reads it. Every text ends in NUL and has no other.
pub struct Spawn<'a> {
    pub id: u64,
    /// Zero is none.
    pub view: u64,
    pub role: Role,
    pub marker: &'a [u8],
    pub program: &'a [u8],
    pub directory: &'a [u8],
    /// The program's name first.
    pub arguments: Vec<*const libc::c_char>,
    pub environment: Vec<*const libc::c_char>,
    /// The value of `PATH` in the environment; empty if it has none.
    pub path: &'a [u8],
}

/// At which point starting a step failed; with the error number it becomes a [`SpawnFailure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LaunchStage {
    Clone = 1,
    View = 2,
    Directory = 3,
    Program = 4,
    Descriptors = 5,
    NoView = 6,
}

impl LaunchStage {
    /// The stage of this number; `None` for zero and what is none.
    pub fn of(number: u8) -> Option<Self> {
        [Self::Clone, Self::View, Self::Directory, Self::Program, Self::Descriptors, Self::NoView]
            .into_iter()
            .find(|stage| *stage as u8 == number)
    }
}

/// An answer as the callers see it.
#[derive(Debug)]
pub enum Answer {
    Ended(StepEnd),
    NotStarted(SpawnFailure),
    JobEnded(Vec<Leftover>),
    /// With the mounted directory.
    ViewOpened(OwnedFd),
    ViewFailed(ViewError),
}

struct Writer(Vec<u8>);

impl Writer {
    fn new(kind: u8, id: u64) -> Self {
        let mut bytes = Vec::with_capacity(512);
        bytes.push(kind);
        bytes.extend_from_slice(&id.to_le_bytes());
        Self(bytes)
    }

    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// The caller has checked that `text` is shorter than [`COMMAND_BYTES_MAX`].
    fn text(&mut self, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.0.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        for part in parts {
            self.0.extend_from_slice(part);
        }
        self.0.push(0);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Option<u64> {
        self.take(8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes)
    }

    fn signed(&mut self) -> Option<i32> {
        i32::try_from(self.number()?.cast_signed()).ok()
    }

    fn length(&mut self) -> Option<usize> {
        self.take(4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes).map(|length| length as usize)
    }

    /// With its NUL, which `execve` needs.
    fn text_and_nul(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?.checked_add(1)?;
        self.take(length).filter(|text| text.last() == Some(&0))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        self.text_and_nul().and_then(|text| text.split_last()).map(|(_, text)| text)
    }
}

/// A spawn request.
pub fn spawn(id: u64, command: &Command) -> Result<Vec<u8>, SpawnFailure> {
    let bytes = speakable(command)?;
    if bytes > COMMAND_BYTES_MAX {
        return Err(SpawnFailure::TooLong { bytes });
    }
    let mut writer = Writer::new(SPAWN, id);
    writer.0.reserve(bytes + 5 * (command.arguments.len() + command.environment.len()) + 128);
    writer.number(command.view.map_or(0, |view| view.0));
    writer.byte(u8::from(command.role == Role::Wrapper));
    writer.text(&[command.marker.as_bytes()]);
    writer.text(&[command.program.as_bytes()]);
    writer.text(&[command.directory.as_os_str().as_bytes()]);
    writer.number(command.arguments.len() as u64 + 1);
    writer.text(&[command.program.as_bytes()]);
    for argument in &command.arguments {
        writer.text(&[argument.as_bytes()]);
    }
    writer.number(command.environment.len() as u64 + 1);
    writer.text(&[MARKER_VARIABLE.as_bytes(), b"=", command.marker.as_bytes()]);
    for (pair, _) in command.environment.pairs() {
        writer.text(&[pair]);
    }
    Ok(writer.0)
}

/// The command's size in bytes if every text of it can be handed to `execve`.
fn speakable(command: &Command) -> Result<usize, SpawnFailure> {
    let check = |what: &'static str, text: &[u8]| match memchr::memchr(0, text) {
        Some(_) => Err(SpawnFailure::Unspeakable { what }),
        None => Ok(text.len()),
    };
    let mut bytes = check("the attempt's marker", command.marker.as_bytes())?;
    bytes += check("the program's name", command.program.as_bytes())?;
    bytes += check("the directory's name", command.directory.as_os_str().as_bytes())?;
    for argument in &command.arguments {
        bytes += check("an argument", argument.as_bytes())?;
    }
    for (pair, name_bytes) in command.environment.pairs() {
        // Without the equals sign.
        bytes += pair.len() - 1;
        if !command.environment.is_doubtful() {
            continue;
        }
        if name_bytes == 0 || memchr::memchr(b'=', pair) != Some(name_bytes) {
            return Err(SpawnFailure::Unspeakable { what: "an environment variable's name" });
        }
        check("an environment variable", pair)?;
    }
    Ok(bytes)
}

/// A request other than a spawn.
pub fn request(request: &Request) -> Vec<u8> {
    match request {
        Request::SignalStep { step, signal } => {
            let mut writer = Writer::new(SIGNAL_STEP, *step);
            writer.byte(signal_number(*signal));
            writer.0
        }
        Request::SignalJob { marker, signal } => {
            let mut writer = Writer::new(SIGNAL_JOB, 0);
            writer.byte(signal_number(*signal));
            writer.text(&[marker.as_bytes()]);
            writer.0
        }
        Request::EndJob { id, marker } => {
            let mut writer = Writer::new(END_JOB, *id);
            writer.text(&[marker.as_bytes()]);
            writer.0
        }
        Request::CloseView { view } => Writer::new(CLOSE_VIEW, *view).0,
    }
}

/// A request to open a view.
pub fn open_view(id: u64, view: &View) -> Vec<u8> {
    let mut writer = Writer::new(OPEN_VIEW, id);
    let views: Vec<&View> = std::iter::successors(Some(view), |view| view.beside.as_deref()).collect();
    writer.number(views.len() as u64);
    for view in views {
        writer.text(&[view.target.as_os_str().as_bytes()]);
        writer.text(&[view.upper.as_os_str().as_bytes()]);
        writer.text(&[view.work.as_os_str().as_bytes()]);
        writer.number(view.lower.len() as u64);
        for layer in &view.lower {
            writer.text(&[layer.as_os_str().as_bytes()]);
        }
    }
    writer.0
}

/// Whether a packet is a command, which is kept until its process no longer needs it.
pub fn is_spawn(packet: &[u8]) -> bool {
    packet.first() == Some(&SPAWN)
}

/// Says that the request is in the attached memory.
pub fn in_memory(bytes: usize) -> Vec<u8> {
    Writer::new(IN_MEMORY, bytes as u64).0
}

/// Reads a request; `None` if it is none.
pub fn read_request(packet: &[u8]) -> Option<Incoming<'_>> {
    let mut reader = Reader(packet);
    let kind = reader.byte()?;
    let id = reader.number()?;
    Some(match kind {
        SPAWN => Incoming::Spawn(read_spawn(id, &mut reader)?),
        SIGNAL_STEP => Incoming::SignalStep { step: id, signal: signal_of(reader.byte()?)? },
        SIGNAL_JOB => Incoming::SignalJob { signal: signal_of(reader.byte()?)?, marker: reader.text()? },
        END_JOB => Incoming::EndJob { id, marker: reader.text()? },
        OPEN_VIEW => Incoming::OpenView { id, view: read_view(&mut reader)? },
        CLOSE_VIEW => Incoming::CloseView { view: id },
        IN_MEMORY => Incoming::InMemory { bytes: usize::try_from(id).ok()? },
        _ => return None,
    })
}

fn read_spawn<'a>(id: u64, reader: &mut Reader<'a>) -> Option<Spawn<'a>> {
    let view = reader.number()?;
    let role = if reader.byte()? == 1 { Role::Wrapper } else { Role::Step };
    let marker = reader.text()?;
    let program = reader.text_and_nul()?;
    let directory = reader.text_and_nul()?;
    let mut path: &[u8] = &[];
    let arguments = read_pointers(reader, |_| {})?;
    let environment = read_pointers(reader, |text| {
        if let Some(value) = text.strip_prefix(b"PATH=") {
            path = value.strip_suffix(&[0]).unwrap_or(value);
        }
    })?;
    Some(Spawn { id, view, role, marker, program, directory, arguments, environment, path })
}

/// The texts' addresses with a null at the end, as `execve` wants them.
fn read_pointers<'a>(reader: &mut Reader<'a>, mut seen: impl FnMut(&'a [u8])) -> Option<Vec<*const libc::c_char>> {
    let count = usize::try_from(reader.number()?).ok()?;
    let mut pointers = Vec::with_capacity(count.min(COMMAND_BYTES_MAX / 8) + 1);
    for _ in 0..count {
        let text = reader.text_and_nul()?;
        seen(text);
        pointers.push(text.as_ptr().cast());
    }
    pointers.push(std::ptr::null());
    Some(pointers)
}

/// The view, with those beside it.
fn read_view(reader: &mut Reader) -> Option<View> {
    let count = reader.number()?;
    let views = (0..count).map(|_| read_one_view(reader)).collect::<Option<Vec<_>>>()?;
    views.into_iter().rev().reduce(|beside, view| View { beside: Some(Box::new(beside)), ..view })
}

fn read_one_view(reader: &mut Reader) -> Option<View> {
    let path = |bytes: &[u8]| std::path::PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
    let target = path(reader.text()?);
    let upper = path(reader.text()?);
    let work = path(reader.text()?);
    let count = reader.number()?;
    let lower = (0..count).map(|_| reader.text().map(path)).collect::<Option<Vec<_>>>()?;
    Some(View { target, lower, upper, work, beside: None })
}

/// The answer to a spawn whose process has ended.
pub fn ended(id: u64, end: &StepEnd) -> Vec<u8> {
    let mut writer = Writer::new(ENDED, id);
    let (kind, code) = match end.ending {
        Ending::Exited(code) => (0, code),
        Ending::Signaled(signal) => (1, signal),
    };
    writer.byte(kind);
    writer.byte(u8::from(end.left == Left::Processes));
    writer.number(i64::from(code).cast_unsigned());
    writer.number(i64::from(end.pid).cast_unsigned());
    writer.number(end.usage.peak_memory_bytes);
    writer.number(end.usage.cpu_user_us);
    writer.number(end.usage.cpu_system_us);
    writer.number(end.started.0.cast_unsigned());
    writer.number(end.finished.0.cast_unsigned());
    writer.number(u64::try_from(end.duration.as_nanos()).unwrap_or(u64::MAX));
    writer.0
}

/// The answer to a spawn that failed. `about` is the program or the directory, cut to fit.
pub fn not_started(id: u64, stage: LaunchStage, error: i32, about: &[u8], bytes: usize) -> Vec<u8> {
    let mut writer = Writer::new(NOT_STARTED, id);
    writer.byte(stage as u8);
    writer.number(i64::from(error).cast_unsigned());
    writer.number(bytes as u64);
    writer.text(&[&about[..about.len().min(4096)]]);
    writer.0
}

/// The answer to an end of a job.
pub fn job_ended(id: u64, leftovers: &[Leftover]) -> Vec<u8> {
    let named = &leftovers[..leftovers.len().min(LEFTOVERS_NAMED_MAX)];
    let mut writer = Writer::new(JOB_ENDED, id);
    writer.number(named.len() as u64);
    for leftover in named {
        writer.number(i64::from(leftover.pid).cast_unsigned());
        writer.text(&[leftover.name.as_bytes()]);
    }
    writer.0
}

/// The answer to an opening of a view.
pub fn view_answer(id: u64, result: Result<(), ViewError>) -> Vec<u8> {
    match result {
        Ok(()) => Writer::new(VIEW_OPENED, id).0,
        Err(error) => {
            let mut writer = Writer::new(VIEW_FAILED, id);
            writer.byte(error.stage as u8);
            writer.number(i64::from(error.number).cast_unsigned());
            writer.0
        }
    }
}

/// Reads an answer and whom it is for; `None` if it is none.
pub fn read_answer(packet: &[u8], descriptors: Vec<OwnedFd>) -> Option<(u64, Answer)> {
    let mut reader = Reader(packet);
    let kind = reader.byte()?;
    let id = reader.number()?;
    let answer = match kind {
        ENDED => Answer::Ended(read_end(&mut reader)?),
        NOT_STARTED => Answer::NotStarted(read_failure(&mut reader)?),
        JOB_ENDED => {
            let count = reader.number()?;
            let leftovers = (0..count).map(|_| {
                let pid = reader.signed()?;
                Some(Leftover { pid, name: String::from_utf8_lossy(reader.text()?).into_owned() })
            });
            Answer::JobEnded(leftovers.collect::<Option<Vec<_>>>()?)
        }
        VIEW_OPENED => Answer::ViewOpened(descriptors.into_iter().next()?),
        VIEW_FAILED => {
            let stage = ViewStage::of(reader.byte()?)?;
            Answer::ViewFailed(ViewError { stage, number: reader.signed()? })
        }
        _ => return None,
    };
    Some((id, answer))
}

fn read_end(reader: &mut Reader) -> Option<StepEnd> {
    let kind = reader.byte()?;
    let left = if reader.byte()? == 1 { Left::Processes } else { Left::Nothing };
    let code = reader.signed()?;
    Some(StepEnd {
        ending: if kind == 0 { Ending::Exited(code) } else { Ending::Signaled(code) },
        left,
        pid: reader.signed()?,
        usage: Usage {
            peak_memory_bytes: reader.number()?,
            cpu_user_us: reader.number()?,
            cpu_system_us: reader.number()?,
        },
        started: Timestamp(reader.number()?.cast_signed()),
        finished: Timestamp(reader.number()?.cast_signed()),
        duration: std::time::Duration::from_nanos(reader.number()?),
    })
}

fn read_failure(reader: &mut Reader) -> Option<SpawnFailure> {
    let stage = reader.byte()?;
    let number = reader.signed()?;
    let bytes = usize::try_from(reader.number()?).ok()?;
    let about = String::from_utf8_lossy(reader.text()?).into_owned();
    let cause = std::io::Error::from_raw_os_error(number).to_string();
    let is = |stage_asked: LaunchStage| stage == stage_asked as u8;
    Some(match number {
        _ if is(LaunchStage::NoView) => SpawnFailure::NoView,
        libc::E2BIG => SpawnFailure::TooLong { bytes },
        libc::EAGAIN => SpawnFailure::TooManyProcesses,
        libc::EMFILE | libc::ENFILE => SpawnFailure::TooManyFiles,
        libc::ENOMEM => SpawnFailure::NoMemory,
        _ if is(LaunchStage::Directory) => SpawnFailure::Directory { directory: about, cause },
        libc::ENOENT | libc::ENOTDIR if is(LaunchStage::Program) => SpawnFailure::NoProgram(about),
        _ if is(LaunchStage::Program) => SpawnFailure::NotRunnable { program: about, cause },
        _ if is(LaunchStage::View) => SpawnFailure::View { cause },
        _ => SpawnFailure::Other { cause },
    })
}

fn signal_number(signal: Signal) -> u8 {
    match signal {
        Signal::Terminate => 1,
        Signal::Interrupt => 2,
        Signal::Kill => 3,
    }
}

fn signal_of(number: u8) -> Option<Signal> {
    Some(match number {
        1 => Signal::Terminate,
        2 => Signal::Interrupt,
        3 => Signal::Kill,
        _ => return None,
    })
}
