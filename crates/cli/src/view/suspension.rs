//! Ctrl-Z in front of a live view: the shell gets its terminal back as it was, and `fg` finds the view drawn anew. Only the process
//! that shows the build is stopped; jobs run in sessions of their own.
//!
//! Handlers only set a flag: the view looks at it before it draws, so that no half of a frame is left behind.

use std::sync::atomic::{AtomicBool, Ordering};

use libc::c_int;

/// SIGTSTP came.
static IS_ASKED: AtomicBool = AtomicBool::new(false);
/// SIGCONT came.
static HAS_GONE_ON: AtomicBool = AtomicBool::new(false);

/// What the process heeds while it is shown on a terminal. One at a time: signals are the whole process'. Dropping it takes the
/// handlers away.
pub struct Suspension {
    before: [(c_int, libc::sigaction); 2],
    /// The SIGCONT that ends our own stop is still to be heard: a thread may hear it later than the stop returns.
    ends_our_own: bool,
}

impl Suspension {
    /// Heeds Ctrl-Z and `fg` from now on; `None` where whoever started us ignores SIGTSTP, or the system takes no handlers.
    pub fn heeded() -> Option<Self> {
        let before = [(libc::SIGTSTP, action_of(libc::SIGTSTP)?), (libc::SIGCONT, action_of(libc::SIGCONT)?)];
        if before[0].1.sa_sigaction == libc::SIG_IGN {
            return None;
        }
        let handler: extern "C" fn(c_int) = hear;
        // SAFETY: a `sigaction` of zeros is one without flags and without a mask.
        let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
        ours.sa_sigaction = handler as libc::sighandler_t;
        ours.sa_flags = libc::SA_RESTART;
        for (signal, _) in before {
            act(signal, &ours);
        }
        Some(Self { before, ends_our_own: false })
    }

    /// Whether the process is to stop, told once.
    pub fn is_asked(&mut self) -> bool {
        IS_ASKED.swap(false, Ordering::Relaxed)
    }

    /// Stops the process, and returns once it goes on: at once where no shell would let it go on.
    pub fn stop(&mut self) {
        self.ends_our_own = true;
        // The kernel's own action, because that knows of shells; SIGSTOP would stop for ever where there is none.
        // SAFETY: as above; and its handler is the kernel's.
        let mut kernel_s: libc::sigaction = unsafe { std::mem::zeroed() };
        kernel_s.sa_sigaction = libc::SIG_DFL;
        if let Some(ours) = action_of(libc::SIGTSTP) {
            act(libc::SIGTSTP, &kernel_s);
            // SAFETY: it takes no memory of ours.
            unsafe { libc::raise(libc::SIGTSTP) };
            act(libc::SIGTSTP, &ours);
        }
    }

    /// Whether somebody else stopped the process, and it goes on; told once.
    pub fn has_gone_on(&mut self) -> bool {
        HAS_GONE_ON.swap(false, Ordering::Relaxed) && !std::mem::take(&mut self.ends_our_own)
    }

    /// Whether the terminal is ours to draw on: after `bg` it is the shell's.
    pub fn is_in_front(&self) -> bool {
        let in_front = rustix::termios::tcgetpgrp(std::io::stdout());
        in_front.map_or(true, |group| group == rustix::process::getpgrp())
    }
}

impl Drop for Suspension {
    fn drop(&mut self) {
        for (signal, before) in &self.before {
            act(*signal, before);
        }
    }
}

extern "C" fn hear(signal: c_int) {
    let flag = if signal == libc::SIGTSTP { &IS_ASKED } else { &HAS_GONE_ON };
    flag.store(true, Ordering::Relaxed);
}

/// What the process does at this signal; `None` if the system does not tell.
fn action_of(signal: c_int) -> Option<libc::sigaction> {
    // SAFETY: zeros are a valid value, which is written over; a null action changes nothing.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    let told = unsafe { libc::sigaction(signal, std::ptr::null(), &mut now) };
    (told == 0).then_some(now)
}

fn act(signal: c_int, action: &libc::sigaction) {
    // SAFETY: the action is read only; its handler only stores to an atomic, or was there before.
    unsafe { libc::sigaction(signal, action, std::ptr::null_mut()) };
}
