//! Takes the clock away from an evaluation: the only unsafe line of the evaluating half.

/// From here on, a program that reads the time dies by SIGSEGV, where the processor can do that; the binary tells its user
/// what that means. Called once, when everything that needs the clock to start has started.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) fn take_away() {
    unsafe extern "C" {
        fn prctl(option: i32, ...) -> i32;
    }
    const PR_SET_TSC: i32 = 26;
    const PR_TSC_SIGSEGV: u64 = 2;
    // SAFETY: sets one flag of the calling thread; takes no pointer.
    unsafe { prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0u64, 0u64, 0u64) };
}

/// Not on this system: the rule holds, and `ropewalk check --twice` finds who breaks it.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub(crate) fn take_away() {}
