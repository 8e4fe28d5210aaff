//! What Podman leaves of a container that was removed.
//!
//! For each command that was run in a container (health checks, signals) a `conmon` stays for five minutes, in case that somebody asks how it
//! ended (`exit_command_delay`, containers.conf(5)). Once the container is gone nobody can ask.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::{Pid, Signal};

/// Ends the monitors of a container that has been removed. Those of another user stay, and end by themselves.
pub fn end_of(container: &str) {
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let Some(pid) = pid else { continue };
        let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        if is_of(&arguments, container) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// Whether these arguments, each with a zero behind it, are of a monitor of this container: `conmon … -c ID …`.
fn is_of(arguments: &[u8], container: &str) -> bool {
    let words: Vec<&[u8]> = arguments.split(|byte| *byte == 0).collect();
    let program = Path::new(OsStr::from_bytes(words[0]));
    program.file_name() == Some("conmon".as_ref()) && words.windows(2).any(|two| two == [b"-c", container.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monitors_are_told_by_their_arguments() {
        let check = |arguments: &[u8], expected| assert_eq!(is_of(arguments, "f00"), expected);
        check(b"/usr/bin/conmon\0--api-version\x001\0-c\0f00\0-u\0e1\0", true);
        check(b"conmon\0-c\0f001\0", false);
        check(b"/usr/bin/conmonster\0-c\0f00\0", false);
        check(b"cat\0conmon\0-c\0f00\0", false);
        check(b"", false);
    }
}
