//! Takes the clock away from an evaluation. But for where replies go and the environment (`wire.rs`), the only unsafe code of the evaluating half.
//!
//! Three ways lead to the time: the processor's counter, functions that the kernel lays into every process (vDSO), which read
//! a page of the kernel without calling it, and system calls. The first is refused by a flag of the thread. The second are
//! made to system calls. The third are refused by a filter, which cannot be taken off again; it also refuses to tell of
//! files when they changed, since the sandbox's root is as old as the evaluation.

/// From here on a program that reads the time dies, by SIGSYS or SIGSEGV; the binary tells its user what that means. Called
/// once, when everything that needs the clock to start has started. Where the kernel refuses one of the steps the others hold.
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64"))]
pub(crate) fn take_away() {
    // SAFETY: sets one flag of the calling thread; takes no pointer.
    unsafe { prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0) };
    vdso::call_the_kernel();
    filter();
}

/// Not on this system: the rule holds, and `ropewalk check --twice` finds who breaks it.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64")))]
pub(crate) fn take_away() {}

#[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64"))]
use on_linux::{PR_SET_TSC, PR_TSC_SIGSEGV, filter, prctl, vdso};

#[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64"))]
mod on_linux {
    pub const PR_SET_TSC: i32 = 26;
    pub const PR_TSC_SIGSEGV: u64 = 2;
    const PR_SET_NO_NEW_PRIVS: i32 = 38;
    const PR_SET_SECCOMP: i32 = 22;
    const SECCOMP_MODE_FILTER: u64 = 2;

    unsafe extern "C" {
        pub fn prctl(option: i32, ...) -> i32;
    }

    /// System calls that tell the time, or how much of it has been used: `gettimeofday`, `getrusage`, `sysinfo`, `times`,
    /// `adjtimex`, `time`, `clock_gettime`, `clock_adjtime`.
    const TIMES: [u32; 8] = [96, 98, 99, 100, 159, 201, 228, 305];
    /// System calls that tell when a file changed: `stat`, `fstat`, `lstat`, `newfstatat`, `statx`.
    const FILES: [u32; 5] = [4, 5, 6, 262, 332];

    /// One instruction of a filter, as the kernel reads it (`struct sock_filter`).
    #[repr(C)]
    struct Instruction {
        code: u16,
        if_so: u8,
        if_not: u8,
        value: u32,
    }

    /// A whole filter (`struct sock_fprog`).
    #[repr(C)]
    struct Filter {
        length: u16,
        first: *const Instruction,
    }

    /// Has the kernel end the process at a call of [`TIMES`], or at one of another architecture, and refuse those of [`FILES`].
    pub fn filter() {
        const LOAD: u16 = 0x20;
        const IS: u16 = 0x15;
        const IS_AT_LEAST: u16 = 0x35;
        const RETURN: u16 = 0x06;
        const X86_64: u32 = 0xc000_003e;
        const FIRST_OF_X32: u32 = 0x4000_0000;
        const KILL_PROCESS: u32 = 0x8000_0000;
        const REFUSE: u32 = 0x0005_0000 | 13;
        const ALLOW: u32 = 0x7fff_0000;
        let then = |code, value, if_so, if_not| Instruction { code, if_so, if_not, value };
        let mut filter = vec![
            then(LOAD, 4, 0, 0),
            then(IS, X86_64, 1, 0),
            then(RETURN, KILL_PROCESS, 0, 0),
            then(LOAD, 0, 0, 0),
            then(IS_AT_LEAST, FIRST_OF_X32, 0, 1),
            then(RETURN, KILL_PROCESS, 0, 0),
        ];
        for (calls, answer) in [(&TIMES[..], KILL_PROCESS), (&FILES[..], REFUSE)] {
            for call in calls {
                filter.extend([then(IS, *call, 0, 1), then(RETURN, answer, 0, 0)]);
            }
        }
        filter.push(then(RETURN, ALLOW, 0, 0));
        let program = Filter { length: filter.len() as u16, first: filter.as_ptr() };
        // SAFETY: the kernel copies the filter, which lives until the call has returned.
        unsafe {
            prctl(PR_SET_NO_NEW_PRIVS, 1u64, 0u64, 0u64, 0u64);
            prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &raw const program);
        }
    }

    /// The functions that the kernel lays into the process.
    pub mod vdso {
        use std::ffi::CStr;

        unsafe extern "C" {
            fn getauxval(kind: u64) -> u64;
            fn mprotect(start: usize, length: usize, protection: i32) -> i32;
        }

        const AT_SYSINFO_EHDR: u64 = 33;
        const READ_WRITE: i32 = 1 | 2;
        const READ_EXECUTE: i32 = 1 | 4;
        const PAGE_BYTES: usize = 4096;

        /// Those that tell the time, and the system calls that do the same. `clock_getres` tells how fine a clock is, not the time.
        const FUNCTIONS: [(&CStr, u32); 3] =
            [(c"__vdso_gettimeofday", 96), (c"__vdso_time", 201), (c"__vdso_clock_gettime", 228)];

        /// Writes `mov eax, NUMBER; syscall; ret` over each of [`FUNCTIONS`]: arguments and result stand where they stood. Nothing
        /// is written where the image is not as expected, or the kernel does not let it be written.
        pub fn call_the_kernel() {
            // SAFETY: asks for a number.
            let base = unsafe { getauxval(AT_SYSINFO_EHDR) } as usize;
            if base == 0 {
                return;
            }
            // SAFETY: there the kernel has laid an image that is whole and readable and is never taken away. It lets itself be
            // written only as a whole. No function of it runs meanwhile, and each is as long as the code at least.
            unsafe {
                let (functions, bytes) = functions(base);
                if functions.is_empty() || mprotect(base, bytes, READ_WRITE) != 0 {
                    return;
                }
                for (function, number) in functions {
                    let [a, b, c, d] = number.to_le_bytes();
                    let code = [0xb8, a, b, c, d, 0x0f, 0x05, 0xc3];
                    std::ptr::copy_nonoverlapping(code.as_ptr(), function as *mut u8, code.len());
                }
                mprotect(base, bytes, READ_EXECUTE);
            }
        }

        /// Where [`FUNCTIONS`] lie, with their numbers, and how long the image is, in whole pages.
        ///
        /// # Safety
        /// At `base` there is the image of a vDSO of 64 bits.
        unsafe fn functions(base: usize) -> (Vec<(usize, u32)>, usize) {
            // SAFETY: all that is read lies inside the image by its own tables.
            unsafe {
                let half = |at: usize| usize::from((at as *const u16).read_unaligned());
                let word = |at: usize| (at as *const u32).read_unaligned();
                let long = |at: usize| (at as *const u64).read_unaligned() as usize;
                const LOAD: u32 = 1;
                const DYNAMIC: u32 = 2;
                let headers = (0..half(base + 56)).map(|n| base + long(base + 32) + n * half(base + 54));
                let find = |kind: u32| headers.clone().find(|header| word(*header) == kind);
                let (Some(load), Some(dynamic)) = (find(LOAD), find(DYNAMIC)) else {
                    return (Vec::new(), 0);
                };
                let (shift, bytes) = (base - long(load + 16), long(load + 40));
                // The table of sections is the file's end.
                let file_bytes = long(base + 40) + half(base + 58) * half(base + 60);
                let (mut strings, mut symbols, mut entry) = (0, 0, shift + long(dynamic + 16));
                // Addresses of tables, by what they are; zero ends the list.
                while long(entry) != 0 {
                    match long(entry) {
                        5 => strings = shift + long(entry + 8),
                        6 => symbols = shift + long(entry + 8),
                        _ => {}
                    }
                    entry += 16;
                }
                // The names stand behind the symbols.
                let all = if symbols == 0 { 0..0 } else { symbols..strings };
                let known = |symbol: usize| {
                    let name = CStr::from_ptr((strings + word(symbol) as usize) as *const _);
                    let (address, size) = (long(symbol + 8), long(symbol + 16));
                    let (_, number) = FUNCTIONS.into_iter().find(|(function, _)| *function == name)?;
                    (size >= 8 && address + size <= bytes).then_some((shift + address, number))
                };
                (all.step_by(24).filter_map(known).collect(), bytes.max(file_bytes).next_multiple_of(PAGE_BYTES))
            }
        }
    }
}
