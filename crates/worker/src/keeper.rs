//! The keeper: a small process that starts every step, so that steps are counted, reaped and never left behind.
//!
//! [`Keeper::start`] forks it from `ropewalk` before any thread exists. It is the subreaper of everything that steps
//! start, so a daemon that forks twice and calls `setsid` comes back to it. When `ropewalk` ends, by `kill -9` too,
//! the keeper reads the end of its socket, kills every descendant and exits. It runs no async code, holds no lock and
//! blocks all signals but SIGCHLD, which it takes only while it waits.
//!
//! Reading order: here what callers use; [`message`] what travels; [`service`] the keeper's own loop; [`launch`] how
//! one step is started; [`turn`] how soon both get a processor; [`tree`] who descends from whom; [`orphans`] whose the
//! processes are that outlived their parents; [`leftover`] what an earlier `ropewalk` left behind.
//!
//! **Pitfalls.** What runs between `clone` and `exec` shares its memory with the keeper: it must not panic and must not
//! return. In `view` the keeper is suspended meanwhile; in `launch` it is not, so nothing there may allocate or touch
//! `errno`. A launch whose child has not called `exec` yet is a running step like any other. A new request needs a line in `message`, in
//! `service` and here.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use graph::{Timestamp, Usage};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

mod launch;
mod leftover;
mod message;
mod orphans;
mod service;
pub(crate) mod socket;
mod tree;
mod turn;
mod view;

pub use leftover::{Leftover, kill_leftovers, leftovers};
pub use turn::ask_for_early_turns;
pub(crate) use view::Right;
pub use view::{View, ViewError, ViewStage};

use crate::variables::Variables;
use message::{Answer, Request};

/// The environment variable by which a process is known to belong to an attempt. Every step has it.
pub const MARKER_VARIABLE: &str = "ROPEWALK_ATTEMPT";

/// The descriptor at which a step finds [`Command::attachment`].
pub const ATTACHMENT_DESCRIPTOR: i32 = 3;

/// The longest single argument that Linux takes (`MAX_ARG_STRLEN`, 32 pages), its NUL included.
pub const ARGUMENT_BYTES_MAX: usize = 32 * 4096;

/// The most bytes of program, directory, arguments and environment of one step. Linux itself refuses more than a quarter of
/// the stack's limit, 2 MiB unless somebody raised it; a longer command is refused with [`SpawnFailure::TooLong`].
pub const COMMAND_BYTES_MAX: usize = 8 << 20;

/// The pipe's size that [`enlarge_pipe`] asks for: what Linux allows to everyone (`/proc/sys/fs/pipe-max-size`).
pub const PIPE_BYTES_MAX: usize = 1 << 20;

/// The keeper, started and not yet attached to an async runtime.
#[derive(Debug)]
pub struct Keeper {
    pid: i32,
    socket: OwnedFd,
}

/// The keeper could not be started, or is gone.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The system refused a process or a socket.
    #[error("start the keeper process")]
    Start(#[source] io::Error),
    /// It was called after a thread had been started, so a fork would be unsound.
    #[error("start the keeper process: this process already has {threads} threads")]
    Threads {
        /// How many threads there are.
        threads: usize,
    },
    /// The keeper ended or was killed; what it had started is killed too.
    #[error("reach the keeper process: it has ended")]
    Lost,
    /// The socket to the keeper failed.
    #[error("talk to the keeper process")]
    Socket(#[source] io::Error),
}

/// One step's process to be.
#[derive(Debug)]
pub struct Command {
    /// Which attempt it belongs to; becomes [`MARKER_VARIABLE`] in its environment. All steps of one attempt have the same.
    pub marker: String,
    /// A path, or a name that is looked up in the `PATH` of `environment`.
    pub program: OsString,
    /// The arguments, without the program's own name.
    pub arguments: Vec<OsString>,
    /// The whole environment: nothing is inherited.
    pub environment: Variables,
    /// Where it starts. Absolute, as seen inside the view.
    pub directory: PathBuf,
    /// The files it sees; `None` is the machine as it is.
    pub view: Option<ViewId>,
    /// Whether the program is the step itself or a wrapper that starts it in namespaces of its own.
    pub role: Role,
    /// A descriptor that the step finds at [`ATTACHMENT_DESCRIPTOR`].
    pub attachment: Option<OwnedFd>,
}

/// What a [`Command`]'s direct child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Role {
    /// The step itself.
    #[default]
    Step,
    /// A wrapper such as bubblewrap: gentle signals go to what it started, not to itself, and what it leaves in its session
    /// is killed when it ends.
    Wrapper,
}

impl Command {
    /// `shell ARGUMENTS… -c SCRIPT`, and for scripts that Linux does not take as an argument `shell ARGUMENTS…
    /// /proc/self/fd/3` with the script in sealed memory.
    ///
    /// # Errors
    /// The system refused memory for a long script.
    pub fn shell(shell: &str, arguments: &[&str], script: &[u8]) -> io::Result<Self> {
        use std::os::unix::ffi::OsStringExt;
        let mut command = Self {
            marker: String::new(),
            program: shell.into(),
            arguments: arguments.iter().map(OsString::from).collect(),
            environment: Variables::default(),
            directory: PathBuf::from("/"),
            view: None,
            role: Role::Step,
            attachment: None,
        };
        if script.len() < ARGUMENT_BYTES_MAX && !script.contains(&0) {
            command.arguments.push("-c".into());
            command.arguments.push(OsString::from_vec(script.to_vec()));
        } else {
            command.attachment = Some(socket::sealed_memory(script)?);
            command.arguments.push(format!("/proc/self/fd/{ATTACHMENT_DESCRIPTOR}").into());
        }
        Ok(command)
    }
}

/// A step that was asked for.
#[derive(Debug)]
pub struct Running {
    /// By which it is signaled.
    pub id: StepId,
    /// What it prints to stdout: a pipe's end that does not block. It may stay open after the step has ended, if a background
    /// process holds it: the reader decides how long to drain.
    pub stdout: OwnedFd,
    /// What it prints to stderr, likewise.
    pub stderr: OwnedFd,
    /// How it ends.
    pub end: End,
}

/// The end of a step, to come.
#[derive(Debug)]
pub struct End(oneshot::Receiver<Answer>);

impl Running {
    /// As [`End::ended`].
    ///
    /// # Errors
    /// Those of [`End::ended`].
    pub async fn ended(&mut self) -> Result<StepEnd, StepError> {
        self.end.ended().await
    }
}

impl End {
    /// Waits until the step's direct child has ended, or was found not to have started. Cancel safe; to be awaited to its
    /// end once.
    ///
    /// # Errors
    /// [`StepError::NotStarted`] with the reason, or [`StepError::Lost`] with the keeper.
    pub async fn ended(&mut self) -> Result<StepEnd, StepError> {
        match (&mut self.0).await {
            Ok(Answer::Ended(end)) => Ok(end),
            Ok(Answer::NotStarted(failure)) => Err(StepError::NotStarted(failure)),
            Ok(_) | Err(_) => Err(StepError::Lost),
        }
    }
}

/// How a step's direct child ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepEnd {
    /// Its process id, for people.
    pub pid: i32,
    /// How.
    pub ending: Ending,
    /// What it and the children it waited for used.
    pub usage: Usage,
    /// Just before it was started.
    pub started: Timestamp,
    /// When it was reaped.
    pub finished: Timestamp,
    /// The same span on a clock that nobody sets.
    pub duration: Duration,
    /// Whether processes that steps had started outlived them, at the moment this one ended.
    pub left: Left,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

impl Ending {
    /// The exit code, or 128 + the signal's number, as shells have it.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
        }
    }
}

/// Whether a step left processes running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// None of any job.
    Nothing,
    /// Some, of this or another job; [`Processes::end_job`] finds and kills this one's.
    Processes,
}

/// Why a step did not come to an end that can be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// It never started.
    #[error(transparent)]
    NotStarted(#[from] SpawnFailure),
    /// The keeper is gone, so nobody knows.
    #[error("reach the keeper process: it has ended")]
    Lost,
}

/// Why a step could not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpawnFailure {
    /// No such program; text is the name as asked for.
    #[error("no program `{0}` was found")]
    NoProgram(String),
    /// The program is there and may not be run, or is no program.
    #[error("`{program}` cannot be run: {cause}")]
    NotRunnable {
        /// As asked for.
        program: String,
        /// The system's words.
        cause: String,
    },
    /// The directory is not there or may not be entered.
    #[error("cannot enter the directory `{directory}`: {cause}")]
    Directory {
        /// As asked for.
        directory: String,
        /// The system's words.
        cause: String,
    },
    /// Arguments and environment are too long for the system, together or one of them.
    #[error("arguments and environment are too long for this system ({bytes} bytes)")]
    TooLong {
        /// Their sum.
        bytes: usize,
    },
    /// The user's limit of processes is reached.
    #[error("the limit of processes is reached")]
    TooManyProcesses,
    /// The limit of open files is reached.
    #[error("the limit of open files is reached")]
    TooManyFiles,
    /// There is no memory for it.
    #[error("there is not enough memory to start a process")]
    NoMemory,
    /// An argument, a variable, a path or the marker holds a NUL byte, or a variable's name holds `=`.
    #[error("{what} holds a NUL byte, or a name holds `=`")]
    Unspeakable {
        /// Which.
        what: &'static str,
    },
    /// The view it was to run in was never opened, or is closed.
    #[error("its workspace is not open")]
    NoView,
    /// Entering the view failed.
    #[error("cannot enter the workspace: {cause}")]
    View {
        /// The system's words.
        cause: String,
    },
    /// Anything else.
    #[error("cannot start a process: {cause}")]
    Other {
        /// The system's words.
        cause: String,
    },
}

/// Names a step within this process's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepId(pub(crate) u64);

/// Names an open view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewId(pub(crate) u64);

/// A signal for a process tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ends gently: SIGTERM to every process, then SIGCONT so that a stopped one hears it.
    Terminate,
    /// As a terminal's Ctrl-C: SIGINT.
    Interrupt,
    /// Ends at once: the tree is stopped, then killed, until none is left.
    Kill,
}

/// The handle by which the rest of the worker starts processes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Processes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    socket: Arc<AsyncFd<OwnedFd>>,
    waiting: Arc<Waiting>,
    next: AtomicU64,
    reader: Mutex<Option<JoinHandle<()>>>,
    keeper_pid: i32,
}

/// Who waits for an answer, by request. An entry is made before the request is sent and taken when its answer comes; `None`
/// when the keeper is gone.
#[derive(Debug)]
struct Waiting {
    answers: Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>,
    /// Whether the latest step that ended left processes of any job.
    left: AtomicBool,
}

impl Keeper {
    /// Forks the keeper. To be called first in `main`, while there is one thread and no descriptor that steps must not see.
    /// This thread then asks the system for early turns, as the keeper does.
    ///
    /// # Errors
    /// [`KeeperError::Threads`] when it is called too late, [`KeeperError::Start`] when the system refuses.
    pub fn start() -> Result<Self, KeeperError> {
        let threads = tree::thread_count().map_err(KeeperError::Start)?;
        if threads != 1 {
            return Err(KeeperError::Threads { threads });
        }
        let (socket, pid) = service::fork().map_err(KeeperError::Start)?;
        turn::ask_for_early_turns();
        Ok(Self { pid, socket })
    }

    /// The keeper's process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }
}

impl Processes {
    /// Attaches the keeper to the current tokio runtime; a task of it reads the keeper's answers until [`Processes::close`].
    ///
    /// # Errors
    /// The socket cannot be registered.
    pub fn attach(keeper: Keeper) -> Result<Self, KeeperError> {
        // Only for reading: every request that the keeper takes would wake us as writable.
        // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives.
        let socket = unsafe { AsyncFd::register_with_interest(keeper.socket, Interest::READABLE) };
        let socket = Arc::new(socket.map_err(|error| KeeperError::Socket(error.into()))?);
        let waiting = Arc::new(Waiting { answers: Mutex::new(Some(HashMap::new())), left: AtomicBool::new(false) });
        let reader = tokio::spawn(read_answers(Arc::clone(&socket), Arc::clone(&waiting)));
        let inner = Inner {
            socket,
            waiting,
            next: AtomicU64::new(1),
            reader: Mutex::new(Some(reader)),
            keeper_pid: keeper.pid,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The keeper's process id.
    #[must_use]
    pub fn keeper_pid(&self) -> i32 {
        self.inner.keeper_pid
    }

    /// Asks the keeper to start a step. Comes back as soon as the request is sent: whether it started is told by
    /// [`Running::ended`].
    ///
    /// # Errors
    /// [`StepError::NotStarted`] for what is known here already: no pipes, a command that cannot be said;
    /// [`StepError::Lost`] if the keeper is gone.
    pub async fn spawn(&self, command: Command) -> Result<Running, StepError> {
        let stdout = socket::output_pipe()?;
        let stderr = socket::output_pipe()?;
        let (id, end) = self.spawn_into(command, [&stdout.write, &stderr.write]).await?;
        Ok(Running { id, stdout: stdout.read, stderr: stderr.read, end })
    }

    /// As [`Processes::spawn`], for a step that prints into pipes of the caller's: stdout, stderr.
    ///
    /// # Errors
    /// As [`Processes::spawn`].
    pub(crate) async fn spawn_into(&self, command: Command, output: [&OwnedFd; 2]) -> Result<(StepId, End), StepError> {
        let id = self.next_id();
        let request = message::spawn(id, &command)?;
        let descriptors = output.into_iter().chain(command.attachment.as_ref()).map(AsRawFd::as_raw_fd);
        let end = self.ask(id, &request, &descriptors.collect::<Vec<_>>()).await.map_err(|_| StepError::Lost)?;
        Ok((StepId(id), End(end)))
    }

    /// Sends a signal to a step's whole tree: the direct child, its descendants, its session, and those of its orphans that
    /// stayed in its session. Nothing happens if it has ended.
    ///
    /// # Errors
    /// The keeper is gone.
    pub async fn signal_step(&self, step: StepId, signal: Signal) -> Result<(), KeeperError> {
        self.send(&message::request(&Request::SignalStep { step: step.0, signal }), &[]).await
    }

    /// Sends a signal to everything an attempt started: its running steps and what earlier ones left.
    ///
    /// # Errors
    /// The keeper is gone.
    pub async fn signal_job(&self, marker: &str, signal: Signal) -> Result<(), KeeperError> {
        self.send(&message::request(&Request::SignalJob { marker, signal }), &[]).await
    }

    /// Kills what an attempt's steps left running, and comes back when it is dead. Sorted by process id, no duplicates; empty
    /// without asking anybody if the last step to end left nothing. To be called when no step of it runs.
    ///
    /// Found by descent from the keeper, and by the marker in its environment, its session or its view of the files. A process
    /// that tells none of these dies with the last of the attempts that had processes when it was first seen.
    ///
    /// # Errors
    /// The keeper is gone.
    pub async fn end_job(&self, marker: &str) -> Result<Vec<Leftover>, KeeperError> {
        if !self.inner.waiting.left.load(Ordering::Acquire) {
            return Ok(Vec::new());
        }
        let id = self.next_id();
        let request = message::request(&Request::EndJob { id, marker });
        match self.ask(id, &request, &[]).await?.await {
            Ok(Answer::JobEnded(leftovers)) => Ok(leftovers),
            Ok(_) | Err(_) => Err(KeeperError::Lost),
        }
    }

    /// Mounts a view of the files in namespaces of its own; steps enter it by [`Command::view`]. The descriptor is the mounted
    /// directory: through `/proc/self/fd/N` this process reads and writes the files as the steps see them. The mount lives
    /// until [`Processes::close_view`], the descriptor's end and that of the last process in it.
    ///
    /// # Errors
    /// [`ViewError`] says which stage the system refused.
    pub async fn open_view(&self, view: &View) -> Result<(ViewId, OwnedFd), ViewError> {
        let id = self.next_id();
        let request = message::open_view(id, view);
        let answer = self.ask(id, &request, &[]).await.map_err(|_| ViewError::lost())?;
        match answer.await {
            Ok(Answer::ViewOpened(files)) => Ok((ViewId(id), files)),
            Ok(Answer::ViewFailed(error)) => Err(error),
            Ok(_) | Err(_) => Err(ViewError::lost()),
        }
    }

    /// Lets go of a view: it is unmounted when its last process ends.
    ///
    /// # Errors
    /// The keeper is gone.
    pub async fn close_view(&self, view: ViewId) -> Result<(), KeeperError> {
        self.send(&message::request(&Request::CloseView { view: view.0 }), &[]).await
    }

    /// Ends the keeper, and with it everything that still runs. Comes back when it is all dead.
    pub async fn close(self) {
        let reader = self.inner.reader.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let _ = rustix::net::shutdown(&self.inner.socket, rustix::net::Shutdown::Write);
        if let Some(reader) = reader {
            let _ = reader.await;
        }
        if let Some(pid) = rustix::process::Pid::from_raw(self.inner.keeper_pid) {
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        }
    }

    fn next_id(&self) -> u64 {
        self.inner.next.fetch_add(1, Ordering::Relaxed)
    }

    async fn ask(
        &self,
        id: u64,
        request: &[u8],
        descriptors: &[i32],
    ) -> Result<oneshot::Receiver<Answer>, KeeperError> {
        let (sender, receiver) = oneshot::channel();
        self.inner.waiting.insert(id, sender)?;
        if let Err(error) = self.send(request, descriptors).await {
            self.inner.waiting.take(id);
            return Err(error);
        }
        Ok(receiver)
    }

    async fn send(&self, request: &[u8], descriptors: &[i32]) -> Result<(), KeeperError> {
        let in_memory;
        let mut all = descriptors.to_vec();
        let mut bytes = request;
        let stand_in;
        if request.len() > message::INLINE_BYTES_MAX {
            in_memory = socket::sealed_memory(request).map_err(KeeperError::Socket)?;
            all.push(in_memory.as_raw_fd());
            stand_in = message::in_memory(request.len());
            bytes = &stand_in;
        }
        let socket = &self.inner.socket;
        loop {
            match socket::send(socket.get_ref(), bytes, &all) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_until_writable().await?,
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(KeeperError::Lost),
                Err(error) => return Err(KeeperError::Socket(error)),
            }
        }
    }
}

impl Processes {
    /// For the rare case that more requests wait than the socket holds.
    async fn wait_until_writable(&self) -> Result<(), KeeperError> {
        let socket = self.inner.socket.get_ref().try_clone().map_err(KeeperError::Socket)?;
        // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::WRITABLE) };
        let socket = socket.map_err(|error| KeeperError::Socket(error.into()))?;
        socket.writable().await.map_err(KeeperError::Socket)?.retain_ready();
        Ok(())
    }
}

impl Waiting {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Answer>>>> {
        // No code can panic while it holds this lock.
        self.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn insert(&self, id: u64, sender: oneshot::Sender<Answer>) -> Result<(), KeeperError> {
        self.lock().as_mut().ok_or(KeeperError::Lost)?.insert(id, sender);
        Ok(())
    }

    fn take(&self, id: u64) -> Option<oneshot::Sender<Answer>> {
        self.lock().as_mut()?.remove(&id)
    }

    fn answered(&self, id: u64, answer: Answer) {
        if let Answer::Ended(end) = &answer {
            self.left.store(end.left == Left::Processes, Ordering::Release);
        }
        if let Some(sender) = self.take(id) {
            // Nobody listening any more is no fault.
            let _ = sender.send(answer);
        }
    }
}

/// Hands the keeper's answers to those who wait, until its end of the socket closes.
async fn read_answers(socket: Arc<AsyncFd<OwnedFd>>, waiting: Arc<Waiting>) {
    let mut buffer = vec![0; message::INLINE_BYTES_MAX];
    'ready: while let Ok(mut ready) = socket.readable().await {
        loop {
            match socket::receive(socket.get_ref(), &mut buffer) {
                Ok((0, _)) => break 'ready,
                Ok((length, descriptors)) => {
                    if let Some((id, answer)) = message::read_answer(&buffer[..length], descriptors) {
                        waiting.answered(id, answer);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready.clear_ready();
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break 'ready,
            }
        }
    }
    // Dropping the senders tells everyone who waits.
    *waiting.lock() = None;
}

/// Makes a step's pipe as large as everybody may, for steps that print much. Does nothing where the system refuses.
pub fn enlarge_pipe(pipe: &OwnedFd) {
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES_MAX);
}
