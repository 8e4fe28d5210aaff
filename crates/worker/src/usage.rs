//! What processes used, read from the kernel's `rusage`. Nothing here measures by polling.

use graph::Usage;

/// The usage in `rusage`, in the graph's words.
///
/// `ru_maxrss` is the largest resident set of any one process among the child and the descendants that were waited
/// for. The kernel counts from before `exec`, so the smallest value ever seen is the keeper's own size.
/// Source: getrusage(2).
#[must_use]
pub fn from_rusage(rusage: &libc::rusage) -> Usage {
    // Linux counts in KiB, macOS in bytes.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    Usage {
        peak_memory_bytes: u64::try_from(rusage.ru_maxrss).unwrap_or(0).saturating_mul(unit),
        cpu_user_us: microseconds(rusage.ru_utime),
        cpu_system_us: microseconds(rusage.ru_stime),
    }
}

fn microseconds(time: libc::timeval) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_usec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(rest)
}
