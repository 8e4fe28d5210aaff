//! What a process that has come to rest gives back.

use std::fs;

/// Gives back what the start and the last work have left behind and waiting does not need: free pages of the allocator, and the
/// mappings of program text. The text stays in the system's cache of files while nobody else wants the memory, and is mapped again, some
/// pages at a time, where it is run; that costs the next work about half a millisecond.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else { return };
    for (start, bytes) in maps.lines().filter_map(text_of) {
        // SAFETY: these pages are executable and never written, so that reading them again from their file gives the same. A
        // refusal changes nothing.
        unsafe {
            libc::madvise(start as *mut libc::c_void, bytes, libc::MADV_DONTNEED);
        }
    }
}

/// Start and length in bytes of a line of `/proc/PID/maps` (proc_pid_maps(5)), if it is a file's text: executable, not writable. What is
/// only readable may have been written before: the loader's corrections.
fn text_of(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_text = fields.next()? == "r-xp" && fields.nth(3).is_some_and(|path| path.starts_with('/'));
    let [start, end] = [start, end].map(|address| usize::from_str_radix(address, 16));
    let start = start.ok().filter(|_| is_text)?;
    Some((start, end.ok()?.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::{give_back, text_of};

    #[test]
    fn only_the_text_of_files_is_taken() {
        let check = |line: &str, expected: Option<(usize, usize)>| assert_eq!(text_of(line), expected);
        check("00400000-00452000 r-xp 00001000 08:02 173521      /usr/bin/dbus-daemon", Some((0x40_0000, 0x5_2000)));
        check("00651000-00652000 r--p 00051000 08:02 173521      /usr/bin/dbus-daemon", None);
        check("00652000-00655000 rw-p 00052000 08:02 173521      /usr/bin/dbus-daemon", None);
        check("7ffff000-7fffffff r-xp 00000000 00:00 0           [vdso]", None);
        check("7ffff000-7fffffff r-xp 00000000 00:00 0", None);
        check("0-1", None);
        check("", None);
    }

    #[test]
    fn a_process_goes_on() {
        let mut numbers: Vec<u64> = (0..100_000).rev().collect();
        give_back();
        numbers.sort_unstable();
        give_back();
        assert!(numbers.iter().copied().eq(0..100_000));
    }
}
