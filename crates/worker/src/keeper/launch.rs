//! Starts processes that borrow the keeper's memory until they call `exec`, as `posix_spawn` does, but without waiting.
//!
//! `clone` with `CLONE_VM` and without `CLONE_VFORK` gives the process id at once; the child gets ready and calls `exec` on
//! another processor while the keeper goes on. `CLONE_CHILD_CLEARTID` has the kernel zero a word when the child no longer
//! uses our memory: then its [`Slot`] (a stack, the packet with its texts, a place for its failure) can be used again. A child
//! that could not become its step leaves the reason in the slot and exits; the reason is read when it is reaped. So a
//! launch is nothing special to the rest of the keeper: its process id is known before anything can be asked about it.
//!
//! **Invariant.** Between `clone` and `exec` the child allocates nothing, locks nothing, does not panic, and does not touch
//! `errno`: the keeper uses its heap and its thread's variables meanwhile, and the child has the same ones. That is why only
//! `rustix` (system calls without `errno`) and `syscalls` are called there. All signals are blocked, so none is handled
//! in the borrowed memory.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, Ordering};

use rustix::fs::Access;
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, futex, move_into_link_name_space};

use super::message::{LaunchStage, Spawn};
use super::view::OpenView;

/// How many launches may be between `clone` and `exec`; the next one waits for the first of them.
const LAUNCHES_MAX: usize = 64;

/// A child's own stack. `exec` and the few calls before it need little; opening a view needs more.
const STACK_BYTES: usize = 128 << 10;

/// Below every stack, and never accessible.
const GUARD_BYTES: usize = 64 << 10;

/// A slot's packet above this size is freed with its launch.
const PACKET_KEPT_BYTES_MAX: usize = super::message::INLINE_BYTES_MAX;

/// Why a step did not start.
#[derive(Clone, Copy, Debug)]
pub struct LaunchFailure {
    pub stage: LaunchStage,
    pub number: i32,
}

/// The descriptors a step is given. They may be closed after the launch: the child has copies.
#[derive(Clone, Copy)]
pub struct Stdio {
    pub stdout: i32,
    pub stderr: i32,
    /// -1 is none.
    pub attachment: i32,
}

/// The launches under way, and the slots of earlier ones.
pub struct Launcher {
    keeper: i32,
    /// In no order. At most [`LAUNCHES_MAX`] in flight, and those that failed since children were looked after last.
    #[expect(clippy::vec_box, reason = "a slot must not move while a child borrows it, and the list grows")]
    slots: Vec<Box<Slot>>,
}

/// What one child borrows. Boxed, because the child and the kernel know its address.
struct Slot {
    keeper: i32,
    stack: Stack,
    /// The request, into which `order` points. Not touched while a child borrows it.
    packet: Vec<u8>,
    order: Option<Order>,
    /// The child that borrows or has borrowed this; 0 if it was reaped.
    pid: i32,
    /// Not zero while the child may use this memory; zeroed by the kernel.
    borrowed: AtomicU32,
    /// A [`LaunchStage`], written by the child after `number`; 0 is no failure.
    stage: AtomicU8,
    number: AtomicI32,
}

/// What the child is to do, with everything allocated. The texts are in the slot's packet and end in NUL.
pub struct Order {
    stdio: Stdio,
    /// Namespaces to enter: the user's, if there is one, and the mounts'.
    view: Option<(Option<i32>, i32)>,
    directory: *const libc::c_char,
    /// The program's possible paths, in order.
    candidates: Vec<CString>,
    arguments: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
}

impl Order {
    /// To become this step. The packet that `spawn` was read from must go with it.
    pub fn new(spawn: Spawn, view: Option<&OpenView>, stdio: Stdio) -> Self {
        Self {
            stdio,
            view: view.map(|view| (view.user.as_ref().map(AsRawFd::as_raw_fd), view.mount.as_raw_fd())),
            directory: spawn.directory.as_ptr().cast(),
            candidates: candidates(spawn.program, spawn.path),
            arguments: spawn.arguments,
            environment: spawn.environment,
        }
    }
}

impl Launcher {
    /// With no slot yet.
    pub fn new(keeper: i32) -> Self {
        Self { keeper, slots: Vec::new() }
    }

    /// Starts a step in a session of its own and gives its process id. Whether it could become the step is told by
    /// [`Launcher::reaped`] after its death. `packet` is the request that `order` was made of; it comes back with a failure.
    pub fn launch(&mut self, packet: Vec<u8>, order: Order) -> Result<i32, (Vec<u8>, LaunchFailure)> {
        let failed = |number| LaunchFailure { stage: LaunchStage::Clone, number };
        let slot = match self.free_slot() {
            Ok(slot) => slot,
            Err(number) => return Err((packet, failed(number))),
        };
        // A vector that moves leaves its bytes where they are.
        slot.packet = packet;
        slot.order = Some(order);
        slot.stage.store(0, Ordering::Relaxed);
        slot.start().map_err(|number| (std::mem::take(&mut slot.packet), failed(number)))
    }

    /// To be told of every child that was reaped: if it was a launch that failed, gives its packet and the reason.
    pub fn reaped(&mut self, pid: i32) -> Option<(Vec<u8>, LaunchFailure)> {
        let index = self.slots.iter().position(|slot| slot.pid == pid)?;
        // Its borrower is dead.
        let slot = &mut self.slots[index];
        slot.pid = 0;
        let failure = slot.failure();
        slot.stage.store(0, Ordering::Relaxed);
        match failure {
            Some(failure) => Some((std::mem::take(&mut slot.packet), failure)),
            None => {
                if slot.packet.capacity() > PACKET_KEPT_BYTES_MAX {
                    slot.packet = Vec::new();
                }
                None
            }
        }
    }

    /// A slot that nobody borrows and of which nothing is to be told. Waits if too many are borrowed.
    fn free_slot(&mut self) -> Result<&mut Slot, i32> {
        let index = loop {
            if let Some(index) = self.slots.iter().position(|slot| slot.is_free()) {
                break index;
            }
            let in_flight = self.slots.iter().filter(|slot| slot.is_borrowed());
            if in_flight.count() < LAUNCHES_MAX {
                self.slots.push(Slot::new(self.keeper)?);
                break self.slots.len() - 1;
            }
            if let Some(slot) = self.slots.iter().find(|slot| slot.is_borrowed()) {
                // The kernel wakes without the private flag. A word that is zero by now, or a signal, ends the wait too.
                let _ = futex::wait(&slot.borrowed, futex::Flags::empty(), 1, None);
            }
        };
        Ok(&mut self.slots[index])
    }
}

impl Slot {
    fn new(keeper: i32) -> Result<Box<Self>, i32> {
        Ok(Box::new(Self {
            keeper,
            stack: Stack::map()?,
            packet: Vec::new(),
            order: None,
            pid: 0,
            borrowed: AtomicU32::new(0),
            stage: AtomicU8::new(0),
            number: AtomicI32::new(0),
        }))
    }

    fn is_borrowed(&self) -> bool {
        self.borrowed.load(Ordering::Acquire) != 0
    }

    fn is_free(&self) -> bool {
        !self.is_borrowed() && self.failure().is_none()
    }

    fn failure(&self) -> Option<LaunchFailure> {
        let stage = LaunchStage::of(self.stage.load(Ordering::Acquire))?;
        Some(LaunchFailure { stage, number: self.number.load(Ordering::Relaxed) })
    }

    /// Lends this slot to a new child.
    fn start(&mut self) -> Result<i32, i32> {
        extern "C" fn child(slot: *mut libc::c_void) -> i32 {
            // SAFETY: the slot is boxed and neither changed nor freed before the kernel has zeroed `borrowed`; both sides
            // only read it, but for the atomics.
            let slot = unsafe { &*slot.cast_const().cast::<Slot>() };
            let Some(order) = &slot.order else { return 127 };
            // SAFETY: the order points into the slot's packet, whose reader promises NUL and null.
            let failure = unsafe { become_step(order, slot.keeper) };
            slot.number.store(failure.number, Ordering::Relaxed);
            slot.stage.store(failure.stage as u8, Ordering::Release);
            127
        }
        self.borrowed.store(1, Ordering::Relaxed);
        let flags = libc::CLONE_VM | libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD;
        let (none, borrowed) = (std::ptr::null_mut::<libc::c_void>(), self.borrowed.as_ptr());
        let slot: *mut Self = self;
        // SAFETY: stack and slot are the child's until `borrowed` is zeroed, and what it does beside us keeps the invariant at
        // the head of this file. The three last arguments are a parent's word and a thread's variables, which the flags do
        // not ask for, and the word to zero.
        let pid = unsafe { libc::clone(child, (*slot).stack.top(), flags, slot.cast(), none, none, borrowed) };
        if pid < 0 {
            self.borrowed.store(0, Ordering::Relaxed);
            return Err(last_error());
        }
        self.pid = pid;
        Ok(pid)
    }
}

/// The paths to try, in order: the program itself if it names a directory, else each of `path`.
fn candidates(program: &[u8], path: &[u8]) -> Vec<CString> {
    let name = program.strip_suffix(&[0]).unwrap_or(program);
    if memchr::memchr(b'/', name).is_some() {
        return CString::new(name).into_iter().collect();
    }
    let path = if path.is_empty() { b"/usr/local/bin:/usr/bin:/bin" } else { path };
    path.split(|byte| *byte == b':')
        .filter_map(|directory| {
            let directory = if directory.is_empty() { b"." } else { directory };
            CString::new([directory, b"/", name].concat()).ok()
        })
        .collect()
}

/// Runs in the child, beside the keeper: see the invariant at the head of this file. Comes back only with a failure.
///
/// # Safety
/// The order's pointers are valid, its texts end in NUL and its lists in null.
unsafe fn become_step(order: &Order, keeper: i32) -> LaunchFailure {
    // SAFETY: the caller's promise.
    match unsafe { get_ready(order, keeper) } {
        // SAFETY: likewise.
        Ok(()) => LaunchFailure { stage: LaunchStage::Program, number: unsafe { execute(order) }.raw_os_error() },
        Err((stage, error)) => LaunchFailure { stage, number: error.raw_os_error() },
    }
}

/// Everything before `exec`.
unsafe fn get_ready(order: &Order, keeper: i32) -> Result<(), (LaunchStage, Errno)> {
    let at = |stage: LaunchStage| move |error: Errno| (stage, error);
    if let Some((user, mount)) = order.view {
        // SAFETY: the descriptors are in the table that this child was given, and nobody closes them there.
        let [user, mount] = [user, Some(mount)].map(|it| it.map(|number| unsafe { BorrowedFd::borrow_raw(number) }));
        for (space, kind) in [(user, LinkNameSpaceType::User), (mount, LinkNameSpaceType::Mount)] {
            let Some(space) = space else { continue };
            move_into_link_name_space(space, Some(kind)).map_err(at(LaunchStage::View))?;
        }
    }
    let _ = rustix::process::setsid();
    // After the namespaces: a change of credentials forgets it.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    // In a PID namespace of its own the parent would read as 0; the keeper never has one between.
    if rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get()) != keeper {
        return Err((LaunchStage::Clone, Errno::SRCH));
    }
    let Stdio { stdout, stderr, attachment } = order.stdio;
    // Everything else closes by itself on `exec`. The keeper's own descriptors 0 to 3 are /dev/null, so no source is in
    // another's way.
    for (from, to) in [(stdout, 1), (stderr, 2), (attachment, super::ATTACHMENT_DESCRIPTOR)] {
        if from >= 0 {
            place(from, to).map_err(at(LaunchStage::Descriptors))?;
        }
    }
    // SAFETY: the caller's promise.
    let directory = unsafe { CStr::from_ptr(order.directory) };
    rustix::process::chdir(directory).map_err(at(LaunchStage::Directory))?;
    // SAFETY: a set of our own. With these arguments it cannot fail, so it writes no `errno`.
    unsafe {
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
    Ok(())
}

fn place(from: i32, to: i32) -> Result<(), Errno> {
    let [from, to] = [from, to].map(|number| usize::try_from(number).unwrap_or(usize::MAX));
    // SAFETY: changes the child's own table of descriptors.
    unsafe { syscalls::syscall!(syscalls::Sysno::dup3, from, to, 0) }.map_err(errno)?;
    Ok(())
}

/// Tries the candidates; comes back only if none can be run.
unsafe fn execute(order: &Order) -> Errno {
    let mut failure = Errno::NOENT;
    for candidate in &order.candidates {
        let (arguments, environment) = (order.arguments.as_ptr(), order.environment.as_ptr());
        // SAFETY: the caller's promise.
        let refused =
            unsafe { syscalls::syscall!(syscalls::Sysno::execve, candidate.as_ptr(), arguments, environment) };
        match refused.map_or_else(errno, |_| Errno::IO) {
            // As a shell does: look on, and remember that something was there.
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => {
                // A directory of `PATH` that may not be entered holds nothing for us.
                if rustix::fs::access(candidate.as_c_str(), Access::EXISTS).is_ok() {
                    failure = Errno::ACCESS;
                }
            }
            other => return other,
        }
    }
    failure
}

fn errno(error: syscalls::Errno) -> Errno {
    Errno::from_raw_os_error(error.into_raw())
}

/// Memory for a child's stack. Never unmapped: slots live as long as the keeper.
struct Stack(*mut libc::c_void);

impl Stack {
    fn map() -> Result<Self, i32> {
        // SAFETY: anonymous mappings at a place of the system's choosing touch nothing of ours.
        let base = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
            let bytes = GUARD_BYTES + STACK_BYTES;
            let base = libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            if base == libc::MAP_FAILED || libc::mprotect(base, GUARD_BYTES, libc::PROT_NONE) != 0 {
                return Err(last_error());
            }
            base
        };
        Ok(Self(base))
    }

    fn top(&self) -> *mut libc::c_void {
        // SAFETY: the end of the mapping.
        unsafe { self.0.byte_add(GUARD_BYTES + STACK_BYTES) }
    }
}

thread_local! {
    // The keeper has one thread, and a suspended child is done with it before the next one starts.
    static STACK: Result<Stack, i32> = Stack::map();
}

/// Runs `child` in a new process that shares our memory, and waits until it has returned. Its return value is its exit
/// code. Gives its process id, or the error number of `clone`.
///
/// `child` may allocate, for the keeper is suspended and launches under way do not; it must not panic: unwinding out of it
/// ends the process.
pub fn suspended_child<F: FnMut() -> i32>(flags: i32, mut child: F) -> Result<i32, i32> {
    extern "C" fn start<F: FnMut() -> i32>(argument: *mut libc::c_void) -> i32 {
        // SAFETY: `argument` is the closure below, whose owner is suspended until we are done.
        let child = unsafe { &mut *argument.cast::<F>() };
        child()
    }
    STACK.with(|stack| {
        let top = stack.as_ref().map_err(|number| *number)?.top();
        let flags = flags | libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: CLONE_VFORK suspends us until the child has called `_exit`, so the stack and the closure are its own for
        // that long.
        let pid = unsafe { libc::clone(start::<F>, top, flags, (&raw mut child).cast()) };
        if pid < 0 { Err(last_error()) } else { Ok(pid) }
    })
}

/// Waits for a child that is known to be ending.
pub fn reap(pid: i32) {
    // SAFETY: a system call on numbers.
    while unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) } < 0 && last_error() == libc::EINTR {}
}

fn last_error() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
