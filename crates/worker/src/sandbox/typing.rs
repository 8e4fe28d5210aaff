//! A filter of system calls behind which no program types into the terminal that it is given.
//!
//! A person's shell in a sandbox has the person's own terminal, or job control would not work. The kernel lets whoever has a terminal put bytes into its
//! input (`TIOCSTI`, ioctl_tty(2)), or paste there what is selected on a console (`TIOCLINUX`, ioctl_console(2)): the person's shell outside
//! would read them as typed. The program is classic BPF over `struct seccomp_data` (seccomp(2)), as bubblewrap's option `--seccomp` reads
//! it: an array of `struct sock_filter`.

use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SeekFrom, memfd_create};
use rustix::io::FdFlags;

/// Loads four bytes of the call's data (`BPF_LD | BPF_W | BPF_ABS`).
const LOAD: u16 = 0x20;
/// Skips as many instructions as told where the loaded bytes are this value, or are not (`BPF_JMP | BPF_JEQ | BPF_K`).
const IS: u16 = 0x15;
/// Ends with an answer (`BPF_RET | BPF_K`).
const ANSWER: u16 = 0x06;

/// Where the call's number stands in its data.
const NUMBER: u32 = 0;
/// Where its architecture stands.
const ARCHITECTURE: u32 = 4;
/// Where the half of its second argument stands that the kernel takes for an ioctl's number: the other half is passed over.
const REQUEST: u32 = if cfg!(target_endian = "big") { 28 } else { 24 };

/// `SECCOMP_RET_ERRNO` with `EPERM`.
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();

/// The number of `ioctl` on each architecture whose programs run on this one, by its name for the kernel (`AUDIT_ARCH_*`, linux/audit.h);
/// programs of x32 have the name of x86_64. Nothing where nobody has looked: then the number alone is judged.
#[cfg(target_arch = "x86_64")]
const CALLS: &[(u32, &[u32])] = &[(0xc000_003e, &[16, 0x4000_0000 | 16, 0x4000_0000 | 514]), (0x4000_0003, &[54])];
#[cfg(target_arch = "aarch64")]
const CALLS: &[(u32, &[u32])] = &[(0xc000_00b7, &[29]), (0x4000_0028, &[54])];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const CALLS: &[(u32, &[u32])] = &[];

/// The filter in a file, read from its beginning.
///
/// # Errors
/// There is no memory for it.
pub(super) fn filter() -> io::Result<OwnedFd> {
    let mut file = std::fs::File::from(memfd_create("typing", MemfdFlags::CLOEXEC)?);
    file.write_all(&program())?;
    Ok(file.into())
}

/// Leaves the filter open, at its beginning, for the program that this process becomes. Called between fork and exec.
///
/// # Errors
/// The system's words.
pub(crate) fn hand_on(filter: &OwnedFd) -> io::Result<()> {
    rustix::fs::seek(filter, SeekFrom::Start(0))?;
    Ok(rustix::io::fcntl_setfd(filter, FdFlags::empty())?)
}

fn program() -> Vec<u8> {
    let mut program = Vec::with_capacity(256);
    let mut then = |code: u16, value: u32, if_so: u8, if_not: u8| {
        program.extend(code.to_ne_bytes());
        program.extend([if_so, if_not]);
        program.extend(value.to_ne_bytes());
    };
    // Refuses the two requests, and allows all others.
    let judge = |then: &mut dyn FnMut(u16, u32, u8, u8)| {
        then(LOAD, REQUEST, 0, 0);
        then(IS, libc::TIOCSTI as u32, 1, 0);
        then(IS, libc::TIOCLINUX as u32, 0, 1);
        then(ANSWER, REFUSE, 0, 0);
        then(ANSWER, libc::SECCOMP_RET_ALLOW, 0, 0);
    };
    if CALLS.is_empty() {
        then(LOAD, NUMBER, 0, 0);
        then(IS, libc::SYS_ioctl as u32, 1, 0);
        then(ANSWER, libc::SECCOMP_RET_ALLOW, 0, 0);
        judge(&mut then);
        return program;
    }
    for (architecture, numbers) in CALLS {
        // Behind the numbers stands one instruction for all other calls, and then the five of `judge`.
        let count = numbers.len() as u8;
        then(LOAD, ARCHITECTURE, 0, 0);
        then(IS, *architecture, 0, count + 7);
        then(LOAD, NUMBER, 0, 0);
        for (place, number) in numbers.iter().enumerate() {
            then(IS, *number, count - place as u8, 0);
        }
        then(ANSWER, libc::SECCOMP_RET_ALLOW, 0, 0);
        judge(&mut then);
    }
    // No program of another architecture runs here.
    then(ANSWER, REFUSE, 0, 0);
    program
}
