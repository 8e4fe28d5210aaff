//! Starts one process the way `posix_spawn` does: a child that borrows the keeper's memory until it calls `exec`.
//!
//! Own code and not `posix_spawn` itself because a step may have to enter a view's namespaces first and must die with the
//! keeper; the cost is the same. All signals are blocked in the keeper, so none is handled in the borrowed memory.

use std::ffi::CString;

use super::message::{LaunchStage, Spawn};
use super::view::OpenView;

/// The child's own stack. `exec` and the few calls before it need little; a page below it is left unmapped by the system.
const STACK_BYTES: usize = 256 << 10;

/// Why a step did not start.
#[derive(Clone, Copy, Debug)]
pub struct LaunchFailure {
    pub stage: LaunchStage,
    pub number: i32,
}

/// The descriptors a step is given.
#[derive(Clone, Copy)]
pub struct Stdio {
    pub stdout: i32,
    pub stderr: i32,
    /// -1 is none.
    pub attachment: i32,
}

/// Starts a step in a session of its own and gives its process id.
pub fn launch(spawn: &Spawn, view: Option<&OpenView>, stdio: Stdio) -> Result<i32, LaunchFailure> {
    let candidates = candidates(spawn.program, spawn.path);
    let keeper = rustix::process::getpid().as_raw_nonzero().get();
    let mut failure = None;
    let child = || {
        let Err(why) = become_step(spawn, &candidates, view, stdio, keeper);
        failure = Some(why);
        127
    };
    let pid = suspended_child(0, child).map_err(|number| LaunchFailure { stage: LaunchStage::Clone, number })?;
    match failure {
        Some(why) => {
            reap(pid);
            Err(why)
        }
        None => Ok(pid),
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

enum Never {}

/// Runs in the child. Only system calls: what it allocated would be lost to the keeper.
fn become_step(
    spawn: &Spawn,
    candidates: &[CString],
    view: Option<&OpenView>,
    stdio: Stdio,
    keeper: i32,
) -> Result<Never, LaunchFailure> {
    let failed = |stage: LaunchStage| LaunchFailure { stage, number: last_error() };
    if let Some(view) = view {
        enter(view)?;
    }
    // SAFETY: plain system calls on numbers and on texts that outlive this call and end in NUL; `Spawn` promises that.
    unsafe {
        libc::setsid();
        // After the namespaces: a change of credentials forgets it.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // In a PID namespace of its own the parent would read as 0; the keeper never has one between.
        if libc::getppid() != keeper {
            libc::_exit(127);
        }
        arrange(stdio).map_err(|()| failed(LaunchStage::Descriptors))?;
        if libc::chdir(spawn.directory.as_ptr().cast()) != 0 {
            return Err(failed(LaunchStage::Directory));
        }
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
    let mut number = libc::ENOENT;
    for candidate in candidates {
        // SAFETY: the pointers end in null and point to texts that end in NUL, all alive until `exec`.
        unsafe { libc::execve(candidate.as_ptr(), spawn.arguments.as_ptr(), spawn.environment.as_ptr()) };
        match last_error() {
            // As a shell does: look on, and remember that something was there.
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => {
                // A directory of `PATH` that may not be entered holds nothing for us. SAFETY: a text that ends in NUL.
                if unsafe { libc::access(candidate.as_ptr(), libc::F_OK) } == 0 {
                    number = libc::EACCES;
                }
            }
            other => {
                number = other;
                break;
            }
        }
    }
    Err(LaunchFailure { stage: LaunchStage::Program, number })
}

fn enter(view: &OpenView) -> Result<(), LaunchFailure> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    use std::os::fd::AsFd;
    let failed = |error: rustix::io::Errno| LaunchFailure { stage: LaunchStage::View, number: error.raw_os_error() };
    if let Some(user) = &view.user {
        move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User)).map_err(failed)?;
    }
    move_into_link_name_space(view.mount.as_fd(), Some(LinkNameSpaceType::Mount)).map_err(failed)
}

/// Puts the step's descriptors in their places; everything else closes by itself on `exec`. The keeper's own descriptors
/// 0 to 3 are /dev/null, so no source is in another's way.
unsafe fn arrange(stdio: Stdio) -> Result<(), ()> {
    for (from, to) in [(stdio.stdout, 1), (stdio.stderr, 2), (stdio.attachment, super::ATTACHMENT_DESCRIPTOR)] {
        // SAFETY: a system call on numbers.
        if from >= 0 && unsafe { libc::dup2(from, to) } < 0 {
            return Err(());
        }
    }
    Ok(())
}

/// The child's stack, mapped once.
struct Stack(*mut libc::c_void);

thread_local! {
    // The keeper has one thread, and a child that borrows the stack is done with it before the next one starts.
    static STACK: Stack = Stack(map_stack());
}

fn map_stack() -> *mut libc::c_void {
    // SAFETY: an anonymous mapping at a place of the system's choosing touches nothing of ours.
    unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            STACK_BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
            -1,
            0,
        )
    }
}

/// Runs `child` in a new process that shares our memory, and waits until it has called `exec` or returned. Its return
/// value is its exit code. Gives its process id, or the error number of `clone`.
///
/// `child` must not panic; unwinding out of it ends the process.
pub fn suspended_child<F: FnMut() -> i32>(flags: i32, mut child: F) -> Result<i32, i32> {
    extern "C" fn start<F: FnMut() -> i32>(argument: *mut libc::c_void) -> i32 {
        // SAFETY: `argument` is the closure below, whose owner is suspended until we are done.
        let child = unsafe { &mut *argument.cast::<F>() };
        child()
    }
    let stack = STACK.with(|stack| stack.0);
    if stack == libc::MAP_FAILED {
        return Err(libc::ENOMEM);
    }
    // SAFETY: CLONE_VFORK suspends us until the child has called `exec` or `_exit`, so the stack and the closure are its
    // own for that long, and nobody else runs in this memory: the keeper has one thread and blocks all signals.
    let pid = unsafe {
        let top = stack.byte_add(STACK_BYTES);
        let flags = flags | libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        libc::clone(start::<F>, top, flags, (&raw mut child).cast())
    };
    if pid < 0 { Err(last_error()) } else { Ok(pid) }
}

/// Waits for a child that is known to be ending.
pub fn reap(pid: i32) {
    // SAFETY: a system call on numbers.
    while unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) } < 0 && last_error() == libc::EINTR {}
}

fn last_error() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
