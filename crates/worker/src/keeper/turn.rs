//! How soon this process gets its turn on a processor.
//!
//! Between a step's end and the start of the next one only the keeper and `ropewalk` have something to do, and not much.
//! Woken on a processor that runs another step they would wait until that one's slice is over, some milliseconds, while the
//! processor of the step that ended stands idle. Who asks for a short slice gets its turn at once (Linux since 6.12; earlier
//! ones take no notice), and no more of the processor than before. Source: sched(7), sched_setattr(2).

/// The shortest slice that Linux gives.
const SLICE_NS: u64 = 100_000;

/// Asks for short slices for the calling thread. What it starts does not inherit them. Does nothing where somebody gave
/// this process another policy or a higher priority, which that would take from what it starts, nor where it is refused.
pub fn ask_for_early_turns() {
    // SAFETY: a structure of numbers, for which zero is a value, and system calls that fill and read it.
    unsafe {
        let mut asked: libc::sched_attr = std::mem::zeroed();
        let bytes = size_of::<libc::sched_attr>();
        let is_known = libc::syscall(libc::SYS_sched_getattr, 0, &raw mut asked, bytes, 0) == 0;
        let policy = i32::try_from(asked.sched_policy).unwrap_or(-1);
        if !is_known || policy != libc::SCHED_OTHER || asked.sched_nice < 0 {
            return;
        }
        asked.sched_flags = libc::SCHED_FLAG_RESET_ON_FORK as u64;
        asked.sched_runtime = SLICE_NS;
        libc::syscall(libc::SYS_sched_setattr, 0, &raw const asked, 0);
    }
}
