//! Ends what a call of cargo has started when a signal ends this process meanwhile: a test would else run on, with nobody to tell.
//!
//! Cargo gets a process group of its own, which a terminal's Ctrl-C does not reach either; both are passed on from here.

use std::ffi::c_int;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::Pid;

/// The signals that end this process by default and that somebody sends to end it.
const SIGNALS: [c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// The group that ends with this process; 0 if there is none. Cargo is called once at a time.
static GROUP: AtomicI32 = AtomicI32::new(0);

/// Heeds the signals for as long as it is there. One that is ignored, or that somebody heeds already, is left alone.
pub struct Ending {
    before: Vec<(c_int, libc::sigaction)>,
}

impl Ending {
    /// Heeds the signals from now on.
    pub fn heeded() -> Self {
        let handler: extern "C" fn(c_int) = end;
        // SAFETY: a `sigaction` of zeros is one without flags and without a mask.
        let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
        ours.sa_sigaction = handler as libc::sighandler_t;
        let mut before = Vec::new();
        for signal in SIGNALS {
            // SAFETY: zeros are a valid value, which is written over; a null action changes nothing.
            let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
            let told = unsafe { libc::sigaction(signal, std::ptr::null(), &mut now) };
            if told == 0 && now.sa_sigaction == libc::SIG_DFL {
                act(signal, &ours);
                before.push((signal, now));
            }
        }
        Self { before }
    }

    /// The group of this process ends with us.
    pub fn with(&self, leader: Pid) {
        GROUP.store(leader.as_raw_nonzero().get(), Ordering::SeqCst);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        GROUP.store(0, Ordering::SeqCst);
        for (signal, before) in &self.before {
            act(*signal, before);
        }
    }
}

/// Kills the group, and lets the signal do what it does by default.
extern "C" fn end(signal: c_int) {
    let group = GROUP.swap(0, Ordering::SeqCst);
    // SAFETY: all three may be called in a handler (signal-safety(7)), and take no memory of ours.
    unsafe {
        if group > 0 {
            libc::kill(-group, libc::SIGKILL);
        }
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

fn act(signal: c_int, action: &libc::sigaction) {
    // SAFETY: the action is read only; its handler does only what handlers may, or was there before.
    unsafe { libc::sigaction(signal, action, std::ptr::null_mut()) };
}
