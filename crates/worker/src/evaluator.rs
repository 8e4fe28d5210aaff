//! Evaluates a pipeline that is a program: a process without network, environment, files or clock, asked line by line.
//!
//! The program's verb `evaluate` reads one request a line and answers each with one line. The process stays for as long
//! as its [`Evaluator`], so that a graph that grows costs no new process. It ends with whoever started it.
//!
//! The walls are bubblewrap's: a root that holds the system's libraries and the program, and nothing else, and in which
//! nothing can be written. The clock cannot be taken away from here, because the dynamic linker reads it: the SDK does so
//! before it calls the pipeline (`sdk/clock.rs`). A program that reads the time nevertheless dies by SIGSYS, or by SIGSEGV if it
//! reads the processor's counter, and [`EvaluatorError::Died`] says what that means.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::sandbox::Sandbox;

/// How far an evaluation may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For one answer, by the clock on the wall.
    pub time: Duration,
    /// Of address space, in bytes.
    pub memory_bytes: u64,
    /// Of one answer, in bytes; also of what it prints to stderr in one evaluation.
    pub answer_bytes: usize,
}

impl Default for Limits {
    /// Ten seconds, 1 GiB, 64 MiB.
    fn default() -> Self {
        Self { time: Duration::from_secs(10), memory_bytes: 1 << 30, answer_bytes: 64 << 20 }
    }
}

/// The most bytes of stderr that an error quotes: the last ones.
const QUOTED_BYTES_MAX: usize = 16 << 10;

/// How long a program has to end after the last question.
const ENDING: Duration = Duration::from_millis(100);

/// Directories of the system that a dynamically linked program needs to start.
const SYSTEM: [&str; 6] = ["/usr", "/lib", "/lib64", "/lib32", "/nix/store", "/gnu/store"];

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum EvaluatorError {
    /// The process could not be started.
    #[error("cannot start the pipeline's program {}", program.display())]
    Start {
        /// What was to be started.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("the pipeline did not answer within {} s: an evaluation must end without waiting for anything", limit.as_secs())]
    TooSlow {
        /// The limit.
        limit: Duration,
    },
    /// It said too much.
    #[error("the pipeline's answer is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// It ended.
    #[error("the pipeline's program ended without an answer: {how}{}", quoted(said))]
    Died {
        /// With which code or signal, and what that commonly means.
        how: String,
        /// The end of what it printed to stderr.
        said: String,
    },
}

fn quoted(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(":\n{}", said.trim_end()) }
}

/// A program that answers.
#[derive(Debug)]
pub struct Evaluator {
    child: Child,
    /// `None` when nothing more is asked.
    requests: Option<ChildStdin>,
    answers: ChildStdout,
    errors: ChildStderr,
    limits: Limits,
    /// What came after the last line that was taken.
    rest: Vec<u8>,
    said: Vec<u8>,
}

impl Evaluator {
    /// Starts the program within `walls`; without walls it runs with an empty environment and the limits alone, and the
    /// caller must say so to people. The program dies with the thread that calls this (`PR_SET_PDEATHSIG`).
    ///
    /// # Errors
    /// [`EvaluatorError::Start`].
    pub fn start(program: &Path, walls: Option<&Sandbox>, limits: Limits) -> Result<Self, EvaluatorError> {
        let failed = |source| EvaluatorError::Start { program: program.to_owned(), source };
        let mut command = match walls {
            Some(sandbox) => {
                let mut command = Command::new(sandbox.program());
                command.args(arguments(program));
                command
            }
            None => Command::new(program),
        };
        command.arg("evaluate").env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let memory_bytes = limits.memory_bytes;
        // SAFETY: what runs between fork and exec only makes system calls.
        unsafe { command.pre_exec(move || confine(memory_bytes)) };
        let mut child = command.spawn().map_err(failed)?;
        let missing = || failed(io::Error::other("a pipe is missing"));
        let requests = child.stdin.take().ok_or_else(missing)?;
        let answers = child.stdout.take().ok_or_else(missing)?;
        let errors = child.stderr.take().ok_or_else(missing)?;
        for pipe in [requests.as_fd(), answers.as_fd(), errors.as_fd()] {
            rustix::io::ioctl_fionbio(pipe, true).map_err(|error| failed(error.into()))?;
        }
        let requests = Some(requests);
        Ok(Self { child, requests, answers, errors, limits, rest: Vec::new(), said: Vec::new() })
    }

    /// Asks once: one line without its end goes in, one comes out. After an error the evaluator is of no more use.
    ///
    /// # Errors
    /// [`EvaluatorError`].
    pub fn ask(&mut self, request: &str) -> Result<String, EvaluatorError> {
        let deadline = Instant::now() + self.limits.time;
        let mut line = Vec::with_capacity(request.len() + 1);
        line.extend(request.bytes().map(|byte| if byte == b'\n' { b' ' } else { byte }));
        line.push(b'\n');
        let mut written = 0;
        let mut searched = 0;
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.rest[searched..]).map(|end| searched + end) {
                let mut answer: Vec<u8> = self.rest.drain(..=end).collect();
                answer.pop();
                self.said.clear();
                return Ok(String::from_utf8_lossy(&answer).into_owned());
            }
            searched = self.rest.len();
            if self.rest.len() > self.limits.answer_bytes {
                self.kill();
                return Err(EvaluatorError::TooLong { limit: self.limits.answer_bytes });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.kill();
                return Err(EvaluatorError::TooSlow { limit: self.limits.time });
            }
            self.wait(written < line.len(), left);
            if written < line.len() {
                match self.requests.as_mut().map(|requests| requests.write(&line[written..])) {
                    Some(Ok(bytes)) => written += bytes,
                    Some(Err(error)) if is_not_now(&error) => {}
                    Some(Err(_)) | None => return Err(self.died()),
                }
            }
            match read_some(&mut self.answers, &mut self.rest) {
                Ok(0) => return Err(self.died()),
                Ok(_) => {}
                Err(error) if is_not_now(&error) => {}
                Err(_) => return Err(self.died()),
            }
            self.take_errors();
        }
    }

    /// Waits until something can be read, or written if there is more to write.
    fn wait(&self, is_writing: bool, left: Duration) {
        let mut pipes = vec![PollFd::new(&self.answers, PollFlags::IN), PollFd::new(&self.errors, PollFlags::IN)];
        if is_writing {
            pipes.extend(self.requests.iter().map(|requests| PollFd::new(requests, PollFlags::OUT)));
        }
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
        // An interrupted wait is followed by another.
        let _ = poll(&mut pipes, Some(&timeout));
    }

    /// Keeps the end of what was printed to stderr.
    fn take_errors(&mut self) {
        while matches!(read_some(&mut self.errors, &mut self.said), Ok(1..)) {
            let surplus = self.said.len().saturating_sub(QUOTED_BYTES_MAX);
            self.said.drain(..surplus);
        }
    }

    /// Reaps the process and says how it ended.
    fn died(&mut self) -> EvaluatorError {
        let status = self.ended_within(Duration::from_secs(1));
        self.take_errors();
        self.kill();
        let said = String::from_utf8_lossy(&self.said).into_owned();
        let how = status.map_or_else(|| "it closed its answers".to_owned(), |status| how(status, &said));
        EvaluatorError::Died { how, said }
    }

    /// How the process ended; `None` if it has not within this time.
    fn ended_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_micros(500)),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Evaluator {
    /// Without another question the program ends, and its sandbox as a whole; of one that is killed a part ends later.
    fn drop(&mut self) {
        self.requests = None;
        if self.ended_within(ENDING).is_none() {
            self.kill();
        }
    }
}

fn is_not_now(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Appends what can be read at once; zero at the end.
fn read_some(from: &mut impl Read, to: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = [0; 64 << 10];
    let bytes = from.read(&mut chunk)?;
    to.extend_from_slice(&chunk[..bytes]);
    Ok(bytes)
}

/// What Rust prints where a program's stack is full.
const STACK_IS_FULL: &str = "has overflowed its stack";
/// What it prints where memory is refused.
const MEMORY_IS_REFUSED: &str = "memory allocation of";
/// The exit code of a program of Rust that panicked.
const EXIT_PANICKED: i32 = 101;

/// How a program ended and what it printed last, as what happened and what to do. Through bubblewrap a signal arrives as 128 and its number.
fn how(status: ExitStatus, said: &str) -> String {
    let signal = status.signal().or_else(|| status.code().filter(|code| *code > 128).map(|code| code - 128));
    match (signal, status.code()) {
        (Some(libc::SIGABRT), _) if said.contains(STACK_IS_FULL) => {
            "its stack is full: look for a function that calls itself without end, and keep what is large in a `Box` or `Vec`"
                .to_owned()
        }
        (Some(libc::SIGABRT), _) if said.contains(MEMORY_IS_REFUSED) => {
            "it asked for more memory than an evaluation has: let a job do what is large".to_owned()
        }
        // Within the walls a program does not see its own stack, so that it cannot tell these two apart either. What reads the
        // clock by a function of the system does not end here.
        (Some(libc::SIGSEGV), _) => "signal SEGV: its stack is full: look for a function that calls itself without end, and keep what \
             is large in a `Box` or `Vec`; or it read the processor's time stamp counter, which evaluations do not have"
            .to_owned(),
        (Some(libc::SIGSYS), _) => "signal SYS: it read the clock, which evaluations do not have: take the time from the event, or do it \
             in a job"
            .to_owned(),
        (Some(libc::SIGABRT), _) => "signal ABRT; it may have asked for more memory than an evaluation has".to_owned(),
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(0)) => {
            "its `main` came to its end; it has to call `ropewalk::Ci::main`, which answers, and nothing may end it before"
                .to_owned()
        }
        (None, Some(EXIT_PANICKED)) if said.contains("panicked at") => {
            "it panicked outside of the pipeline's function: `main` may only call `ropewalk::Ci::main`, where a panic is told \
             with its line"
                .to_owned()
        }
        (None, Some(code)) => format!(
            "exit code {code}: nothing in it may end it, such as `std::process::exit`; a pipeline that cannot go on returns \
             an `Err` from its function"
        ),
        (None, None) => "no exit code".to_owned(),
    }
}

/// bubblewrap's options and the program as it is found inside.
fn arguments(program: &Path) -> Vec<OsString> {
    const INSIDE: &str = "/pipeline";
    let mut options: Vec<OsString> = ["--die-with-parent", "--unshare-all", "--cap-drop", "ALL", "--new-session"]
        .into_iter()
        .map(OsString::from)
        .collect();
    for directory in SYSTEM {
        match std::fs::read_link(directory) {
            // `/lib` is commonly a link into `/usr`.
            Ok(target) => options.extend(["--symlink".into(), target.into(), directory.into()]),
            Err(_) if Path::new(directory).is_dir() => {
                options.extend(["--ro-bind".into(), directory.into(), directory.into()]);
            }
            Err(_) => {}
        }
    }
    options.extend(["--ro-bind".into(), program.into(), INSIDE.into(), "--chdir".into(), "/".into()]);
    // The root is a file system in memory: a file there would stay for the next evaluation, and its time be a clock.
    options.extend(["--remount-ro".into(), "/".into()]);
    options.extend(["--".into(), INSIDE.into()]);
    options
}

/// Limits of the process to be, which it cannot raise again. Called between fork and exec.
fn confine(memory_bytes: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
    setrlimit(Resource::As, Rlimit { current: Some(memory_bytes), maximum: Some(memory_bytes) })?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}
