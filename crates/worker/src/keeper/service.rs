//! The keeper process itself: one thread that waits for requests and for children that end, and does one after the other.
//! Only the children it launches get ready beside it; see `launch`.
//!
//! A step is *running* from its launch until its direct child is reaped; a wrapper's step is then *closing* until what it
//! left in its session is reaped too, so that its usage is counted. Then it is reported. A job that is *ending* is looked
//! at again after every death until nothing of it is found.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use graph::{Timestamp, Usage};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::launch::{LaunchFailure, Launcher, Order, Stdio};
use super::message::{self, Incoming, LaunchStage, Spawn};
use super::orphans::{Orphans, Trace, session_of};
use super::view::{self, OpenView, ViewError};
use super::{COMMAND_BYTES_MAX, Ending, Left, Leftover, Role, Signal, StepEnd};
use super::{socket, tree};
use crate::{memory, usage};

/// How often a tree is looked at again for processes that appeared while it was being stopped.
const LOOKS_MAX: usize = 100;

/// A keeper with nothing to keep gives memory back after so many seconds without a word. A single run at a desk ends before.
const REST_S: libc::time_t = 5;

/// Requests taken before children are looked after again.
const REQUESTS_PER_TURN: usize = 64;

/// Forks the keeper; gives our end of its socket and its process id. The caller has one thread.
pub fn fork() -> io::Result<(OwnedFd, i32)> {
    let (ours, keepers) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // SAFETY: there is one thread, so the child may do anything; it never returns from here.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(ours);
            let code = match settle(keepers) {
                Ok(socket) => {
                    Service::new(socket).run();
                    0
                }
                Err(_) => 1,
            };
            // SAFETY: ends the process without running anything of `ropewalk`'s.
            unsafe { libc::_exit(code) }
        }
        pid => Ok((ours, pid)),
    }
}

/// Makes the forked process a keeper: its own session, subreaper, quiet, deaf to signals, with no descriptor but its own.
fn settle(keepers: OwnedFd) -> io::Result<OwnedFd> {
    rustix::process::setsid()?;
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1))?;
    rustix::thread::set_name(tree::KEEPER_NAME)?;
    super::turn::ask_for_early_turns();
    rustix::process::chdir("/")?;
    /// The socket's, behind those that steps are given.
    const PLACE: i32 = 16;
    // Whoever started `ropewalk` may have left it a descriptor at any place.
    let socket = keepers.into_raw_fd();
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?.into_raw_fd();
    // SAFETY: system calls on numbers and on a signal set of our own. The descriptors that are closed or replaced belong to
    // `ropewalk`'s statics, of which nothing runs here any more, or were given up above.
    let socket = unsafe {
        let socket = libc::fcntl(socket, libc::F_DUPFD_CLOEXEC, 17);
        let null = libc::fcntl(null, libc::F_DUPFD_CLOEXEC, 17);
        if socket == -1 || null == -1 {
            return Err(io::Error::last_os_error());
        }
        libc::dup3(socket, PLACE, libc::O_CLOEXEC);
        for place in 0..=2 {
            libc::dup2(null, place);
        }
        // Place 3 is taken, so that no passed descriptor lands there, and closes on `exec` unless it is replaced.
        libc::dup3(null, super::ATTACHMENT_DESCRIPTOR, libc::O_CLOEXEC);
        libc::close_range(4, 15, 0);
        libc::close_range(17, u32::MAX, 0);
        let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
        // Ignored signals stay ignored in what we start, so none may be; Rust's own start ignores SIGPIPE.
        for signal in 1..=libc::SIGRTMAX() {
            if signal != libc::SIGCHLD && signal != libc::SIGKILL && signal != libc::SIGSTOP {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_child as *const () as usize;
        action.sa_flags = libc::SA_NOCLDSTOP;
        libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut());
        OwnedFd::from_raw_fd(PLACE)
    };
    Ok(socket)
}

/// Does nothing: a handler is what makes `ppoll` come back.
extern "C" fn on_child(_signal: libc::c_int) {}

struct Service {
    children: tree::OwnChildren,
    socket: OwnedFd,
    /// By the direct child's process id.
    running: HashMap<i32, RunningStep>,
    /// By the direct child's process id, which is its session's id too.
    closing: BTreeMap<i32, ClosingStep>,
    ending: Vec<EndingJob>,
    known: Orphans,
    views: HashMap<u64, OpenView>,
    launcher: Launcher,
}

struct RunningStep {
    id: u64,
    marker: Vec<u8>,
    /// Zero is none.
    view: u64,
    role: Role,
    started: Timestamp,
    clock: Instant,
    /// Of orphans of its session that were reaped already.
    usage: Usage,
}

struct ClosingStep {
    id: u64,
    end: StepEnd,
}

struct EndingJob {
    id: u64,
    marker: Vec<u8>,
    killed: BTreeMap<i32, String>,
}

/// How a wait ended.
#[derive(PartialEq, Eq)]
enum Awaited {
    Something,
    /// The time was over.
    Nothing,
}

/// Whether the keeper goes on.
#[derive(PartialEq, Eq)]
enum Turn {
    On,
    Over,
}

impl Service {
    fn new(socket: OwnedFd) -> Self {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        Self {
            children: tree::OwnChildren::of(pid),
            socket,
            running: HashMap::new(),
            closing: BTreeMap::new(),
            ending: Vec::new(),
            known: Orphans::default(),
            views: HashMap::new(),
            launcher: Launcher::new(pid),
        }
    }

    fn run(mut self) {
        let mut buffer = vec![0; message::INLINE_BYTES_MAX];
        let mut rest = Some(REST_S);
        loop {
            while self.wait(rest) == Awaited::Nothing {
                memory::give_back();
                rest = None;
            }
            self.look_after_children();
            if self.take_requests(&mut buffer) == Turn::Over {
                break;
            }
            rest = self.running.is_empty().then_some(REST_S);
        }
        self.kill_everything();
    }

    /// Until there is a request, the socket's end, or a child that ended; with `seconds` no longer than that.
    fn wait(&self, seconds: Option<libc::time_t>) -> Awaited {
        let mut interest = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: system calls on a structure and a signal set of our own.
        unsafe {
            let mut mask = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigfillset(mask.as_mut_ptr());
            libc::sigdelset(mask.as_mut_ptr(), libc::SIGCHLD);
            let limit = seconds.map(|tv_sec| libc::timespec { tv_sec, tv_nsec: 0 });
            let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            match libc::ppoll(&raw mut interest, 1, limit, mask.as_ptr()) {
                0 => Awaited::Nothing,
                _ => Awaited::Something,
            }
        }
    }

    fn take_requests(&mut self, buffer: &mut [u8]) -> Turn {
        for _ in 0..REQUESTS_PER_TURN {
            match socket::receive(&self.socket, buffer) {
                Ok((0, _)) => return Turn::Over,
                Ok((length, descriptors)) => self.handle_packet(&buffer[..length], descriptors),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // For one, no descriptors are free for those that were sent; the step that sent them is told nothing here,
                // so there is nothing left to keep to. `ropewalk` sees the socket's end.
                Err(_) => return Turn::Over,
            }
        }
        Turn::On
    }

    fn handle_packet(&mut self, packet: &[u8], mut descriptors: Vec<OwnedFd>) {
        if message::is_spawn(packet) {
            return self.spawn(packet.to_vec(), &descriptors);
        }
        match message::read_request(packet) {
            Some(Incoming::InMemory { bytes }) => {
                // A little more than a command's texts: their lengths.
                let Some(memory) = descriptors.pop().filter(|_| bytes <= 8 * COMMAND_BYTES_MAX) else { return };
                let Ok(long_packet) = socket::read_memory(&memory, bytes) else { return };
                if message::is_spawn(&long_packet) {
                    self.spawn(long_packet, &descriptors);
                } else if let Some(request) = message::read_request(&long_packet) {
                    self.handle(request);
                }
            }
            Some(request) => self.handle(request),
            None => {}
        }
    }

    fn handle(&mut self, request: Incoming) {
        match request {
            Incoming::SignalStep { step, signal } => self.signal_step(step, signal),
            Incoming::SignalJob { marker, signal } => self.signal_job(marker, signal),
            Incoming::EndJob { id, marker } => {
                self.ending.push(EndingJob { id, marker: marker.to_vec(), killed: BTreeMap::new() });
                self.look_after_endings();
            }
            Incoming::OpenView { id, view } => {
                let result = view::open(&view).map(|opened| {
                    self.views.insert(id, opened.view);
                    opened.files
                });
                self.answer_view(id, result);
            }
            Incoming::CloseView { view } => {
                self.views.remove(&view);
            }
            // Looked at before.
            Incoming::Spawn(_) | Incoming::InMemory { .. } => {}
        }
    }

    fn answer_view(&self, id: u64, result: Result<OwnedFd, ViewError>) {
        let files = result.as_ref().map(AsRawFd::as_raw_fd);
        let descriptors: Vec<i32> = files.into_iter().collect();
        let packet = message::view_answer(id, result.as_ref().map(|_| ()).map_err(|error| *error));
        let _ = socket::send_blocking(&self.socket, &packet, &descriptors);
    }

    /// An answer that cannot be sent is for a `ropewalk` that is gone; its end of the socket says so next.
    fn answer(&self, packet: &[u8]) {
        let _ = socket::send_blocking(&self.socket, packet, &[]);
    }

    fn spawn(&mut self, packet: Vec<u8>, descriptors: &[OwnedFd]) {
        let Some(Incoming::Spawn(spawn)) = message::read_request(&packet) else { return };
        let [stdout, stderr, rest @ ..] = descriptors else {
            return self.not_started(&spawn, LaunchFailure { stage: LaunchStage::Descriptors, number: libc::EMFILE });
        };
        let stdio = Stdio {
            stdout: stdout.as_raw_fd(),
            stderr: stderr.as_raw_fd(),
            attachment: rest.first().map_or(-1, AsRawFd::as_raw_fd),
        };
        let view = self.views.get(&spawn.view);
        if spawn.view != 0 && view.is_none() {
            return self.not_started(&spawn, LaunchFailure { stage: LaunchStage::NoView, number: 0 });
        }
        let (id, marker, view_id, role) = (spawn.id, spawn.marker.to_vec(), spawn.view, spawn.role);
        let (started, clock, usage) = (now(), Instant::now(), Usage::default());
        let step = RunningStep { id, marker, view: view_id, role, started, clock, usage };
        let order = Order::new(spawn, view, stdio);
        match self.launcher.launch(packet, order) {
            Ok(pid) => drop(self.running.insert(pid, step)),
            Err((packet, failure)) => self.packet_not_started(&packet, failure),
        }
    }

    fn packet_not_started(&self, packet: &[u8], failure: LaunchFailure) {
        if let Some(Incoming::Spawn(spawn)) = message::read_request(packet) {
            self.not_started(&spawn, failure);
        }
    }

    fn not_started(&self, spawn: &Spawn, failure: LaunchFailure) {
        let about = if failure.stage == LaunchStage::Directory { spawn.directory } else { spawn.program };
        let about = about.strip_suffix(&[0]).unwrap_or(about);
        // SAFETY: every pointer but the last, which is null, is to a text of the packet that ends in NUL.
        let length = |text: &*const libc::c_char| unsafe { libc::strlen(*text) };
        let texts = spawn.arguments.iter().chain(&spawn.environment).filter(|text| !text.is_null());
        let bytes = texts.map(length).sum();
        self.answer(&message::not_started(spawn.id, failure.stage, failure.number, about, bytes));
    }

    /// Reaps every child that has ended and reports what that completes.
    fn look_after_children(&mut self) {
        let mut ended = Vec::new();
        let mut left = Left::Nothing;
        let mut n_deaths = 0;
        loop {
            match next_death() {
                Death::Of(pid) => {
                    n_deaths += 1;
                    let step = self.reap(pid, &mut ended);
                    ended.extend(step);
                }
                Death::NoneYet => {
                    left = Left::Processes;
                    break;
                }
                Death::NoChildren => break,
            }
        }
        let mut has_unseen = n_deaths > 0 && !self.known.is_empty();
        if !ended.is_empty() {
            left = match left {
                Left::Processes => self.left_processes(),
                Left::Nothing => self.nothing_left(),
            };
            has_unseen |= left == Left::Processes;
            self.report(ended, left);
        }
        // Whose it is that the dead have left is known now or never.
        if has_unseen {
            self.know_orphans();
        }
        if !self.closing.is_empty() {
            self.look_after_closing();
        }
        if !self.ending.is_empty() {
            self.look_after_endings();
        }
    }

    /// Takes one dead child from the system; gives its step if it was one's direct child. The usage of another is added to
    /// that of the step whose session it was in, if that still runs, is closing or is among `ended`.
    fn reap(&mut self, pid: i32, ended: &mut [(RunningStep, StepEnd)]) -> Option<(RunningStep, StepEnd)> {
        let is_step = self.running.contains_key(&pid);
        // An orphan's session is known only as long as it is not reaped.
        let session = if is_step { pid } else { session_of(pid) };
        let (status, usage) = wait_for(pid)?;
        if !is_step {
            if let Some(step) = self.running.get_mut(&session) {
                step.usage = step.usage.with(usage);
            } else if let Some(step) = self.closing.get_mut(&session) {
                step.end.usage = step.end.usage.with(usage);
            } else if let Some((_, end)) = ended.iter_mut().find(|(_, end)| end.pid == session) {
                end.usage = end.usage.with(usage);
            }
            return None;
        }
        let step = self.running.remove(&pid)?;
        if let Some((packet, failure)) = self.launcher.reaped(pid) {
            self.packet_not_started(&packet, failure);
            return None;
        }
        let ending = if libc::WIFSIGNALED(status) {
            Ending::Signaled(libc::WTERMSIG(status))
        } else {
            Ending::Exited(libc::WEXITSTATUS(status))
        };
        let duration = step.clock.elapsed();
        let usage = step.usage.with(usage);
        let (started, left) = (step.started, Left::Nothing);
        Some((step, StepEnd { pid, ending, usage, started, finished: now(), duration, left }))
    }

    fn report(&mut self, ended: Vec<(RunningStep, StepEnd)>, left: Left) {
        for (step, mut end) in ended {
            end.left = left;
            if left == Left::Processes {
                self.known.step_ended(Trace { marker: step.marker, session: end.pid, view: step.view });
            }
            if step.role == Role::Wrapper && left == Left::Processes {
                self.closing.insert(end.pid, ClosingStep { id: step.id, end });
            } else {
                self.answer(&message::ended(step.id, &end));
            }
        }
    }

    /// Reports the wrappers of which nothing is left, and kills what is left of the others.
    fn look_after_closing(&mut self) {
        let orphans = self.orphans();
        let closed: Vec<i32> = self
            .closing
            .keys()
            .copied()
            .filter(|session| {
                let members: Vec<i32> = orphans.iter().copied().filter(|pid| session_of(*pid) == *session).collect();
                kill_trees(&members, Signal::Kill);
                members.is_empty()
            })
            .collect();
        for session in closed {
            if let Some(mut step) = self.closing.remove(&session) {
                step.end.left = self.left_processes();
                self.answer(&message::ended(step.id, &step.end));
            }
        }
    }

    /// Children that are no step's direct child: what outlived its parent and came to us.
    fn orphans(&self) -> Vec<i32> {
        self.children.list().into_iter().filter(|pid| !self.running.contains_key(pid)).collect()
    }

    fn left_processes(&mut self) -> Left {
        if self.orphans().is_empty() { self.nothing_left() } else { Left::Processes }
    }

    fn nothing_left(&mut self) -> Left {
        self.known.none_left();
        Left::Nothing
    }

    /// Finds out whose the orphans are that were not there before.
    fn know_orphans(&mut self) {
        let running = self.running.iter();
        let running = running.map(|(pid, step)| Trace { marker: step.marker.clone(), session: *pid, view: step.view });
        self.known.look(&self.orphans(), running.collect(), &self.views);
    }

    fn signal_step(&self, id: u64, signal: Signal) {
        let Some((pid, step)) = self.running.iter().find(|(_, step)| step.id == id) else { return };
        let orphans = self.orphans().into_iter().filter(|orphan| session_of(*orphan) == *pid);
        self.signal_trees(vec![(*pid, step.role)], orphans.collect(), signal);
    }

    fn signal_job(&mut self, marker: &[u8], signal: Signal) {
        let orphans = self.orphans_of(marker);
        let steps = self.running.iter().filter(|(_, step)| step.marker == marker);
        let steps = steps.map(|(pid, step)| (*pid, step.role)).collect();
        self.signal_trees(steps, orphans, signal);
    }

    fn signal_trees(&self, steps: Vec<(i32, Role)>, orphans: Vec<i32>, signal: Signal) {
        let mut roots = orphans;
        for (pid, role) in steps {
            match (role, signal) {
                // A wrapper that hears SIGTERM ends at once and takes the step along; so does the first process of its PID
                // namespace. The step is below.
                (Role::Wrapper, Signal::Terminate | Signal::Interrupt) => {
                    let known = roots.len();
                    roots.extend(tree::children(pid).into_iter().flat_map(tree::children));
                    if roots.len() == known {
                        // It has not started the step yet.
                        roots.push(pid);
                    }
                }
                _ => roots.push(pid),
            }
        }
        kill_trees(&roots, signal);
    }

    /// The orphans that belong to an attempt and can belong to no other.
    fn orphans_of(&mut self, marker: &[u8]) -> Vec<i32> {
        self.know_orphans();
        self.known.of(marker, self.orphans())
    }

    fn look_after_endings(&mut self) {
        let mut jobs = std::mem::take(&mut self.ending);
        jobs.retain_mut(|job| {
            let roots: Vec<i32> =
                self.orphans_of(&job.marker).into_iter().filter(|pid| !tree::is_zombie(*pid)).collect();
            let found = tree::with_descendants(roots.clone());
            for pid in &found {
                job.killed.entry(*pid).or_insert_with(|| tree::name(*pid));
            }
            kill_trees(&roots, Signal::Kill);
            if found.is_empty() {
                let leftovers: Vec<Leftover> =
                    job.killed.iter().map(|(pid, name)| Leftover { pid: *pid, name: name.clone() }).collect();
                self.answer(&message::job_ended(job.id, &leftovers));
                self.known.attempt_ended(&job.marker);
            }
            !found.is_empty()
        });
        self.ending = jobs;
    }

    /// Until no child is left. Nobody is there any more to be told.
    fn kill_everything(&self) {
        loop {
            let children = self.children.list();
            kill_trees(&children, Signal::Kill);
            // SAFETY: a system call on numbers. It waits for a death, then the rest is looked at again: those that the dead
            // one leaves come to us.
            let pid = unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) };
            if pid < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ECHILD) {
                return;
            }
        }
    }
}

/// Signals trees. Killing stops them first and looks again until no new process appears, so that none escapes by forking.
fn kill_trees(roots: &[i32], signal: Signal) {
    let send = |pid: i32, number: i32| {
        // SAFETY: a system call on numbers. A process that has gone meanwhile is no fault, and its number is not given
        // away before its parent has reaped it; for our own children that is us.
        unsafe { libc::kill(pid, number) };
    };
    match signal {
        Signal::Terminate | Signal::Interrupt => {
            let number = if signal == Signal::Terminate { libc::SIGTERM } else { libc::SIGINT };
            for pid in tree::up_to_keepers(roots.to_vec()) {
                send(pid, number);
                send(pid, libc::SIGCONT);
            }
        }
        Signal::Kill => {
            let mut stopped = 0;
            for _ in 0..LOOKS_MAX {
                let all = tree::with_descendants(roots.to_vec());
                if all.len() <= stopped {
                    break;
                }
                stopped = all.len();
                all.into_iter().for_each(|pid| send(pid, libc::SIGSTOP));
            }
            tree::with_descendants(roots.to_vec()).into_iter().for_each(|pid| send(pid, libc::SIGKILL));
        }
    }
}

enum Death {
    Of(i32),
    NoneYet,
    NoChildren,
}

/// A child that has ended and is not reaped yet.
fn next_death() -> Death {
    // SAFETY: `waitid` fills a structure of our own.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        match (libc::waitid(libc::P_ALL, 0, &raw mut info, flags), info.si_pid()) {
            (0, 0) => Death::NoneYet,
            (0, pid) => Death::Of(pid),
            _ => Death::NoChildren,
        }
    }
}

fn wait_for(pid: i32) -> Option<(i32, Usage)> {
    // SAFETY: `wait4` fills structures of our own.
    unsafe {
        let mut status = 0;
        let mut rusage: libc::rusage = std::mem::zeroed();
        let reaped = libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut rusage);
        (reaped == pid).then(|| (status, usage::from_rusage(&rusage)))
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
