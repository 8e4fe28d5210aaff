//! Cancellation: SIGTERM and SIGINT are heard, remembered, and passed on to the command that runs.
//!
//! The only unsafe lines of the running half. One command runs at a time, so one place holds its process group.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

static IS_HEARD: AtomicBool = AtomicBool::new(false);
/// The process group of the command that runs; 0 if none does.
static GROUP: AtomicI32 = AtomicI32::new(0);

unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn kill(process: i32, number: i32) -> i32;
}

/// Only stores, loads and `kill`, which POSIX allows in a handler.
extern "C" fn hear(_number: i32) {
    IS_HEARD.store(true, Ordering::SeqCst);
    pass_on(GROUP.load(Ordering::SeqCst));
}

fn pass_on(group: i32) {
    if group > 0 {
        // SAFETY: takes no pointer. The group is that of a child that has not been waited for, or is already empty.
        unsafe { kill(-group, SIGTERM) };
    }
}

/// From here on, both signals cancel instead of ending the program.
pub(crate) fn listen() {
    // SAFETY: `hear` has the signature that is asked for, and does only what is allowed in a handler.
    unsafe {
        signal(SIGTERM, hear);
        signal(SIGINT, hear);
    }
}

/// Whether one has been heard.
pub(super) fn is_heard() -> bool {
    IS_HEARD.load(Ordering::SeqCst)
}

/// Passes signals on to this process group until the guard is dropped.
pub(super) fn forward_to(group: u32) -> Forwarding {
    let group = group as i32;
    GROUP.store(group, Ordering::SeqCst);
    // One may have come between the start of the command and the line above.
    if is_heard() {
        pass_on(group);
    }
    Forwarding
}

/// Ends the forwarding when it is dropped.
pub(super) struct Forwarding;

impl Drop for Forwarding {
    fn drop(&mut self) {
        GROUP.store(0, Ordering::SeqCst);
    }
}
