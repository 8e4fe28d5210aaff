//! What a step costs beyond a raw `posix_spawn` of the same shell: `cargo run --release --example spawn_speed [ROUNDS]`.
//!
//! Every row is measured in turns with the raw loop, in batches, and printed as medians and ratios. The raw loop runs in
//! this process, which is as small as `ropewalk` is at that point.

use std::ffi::{CStr, OsString};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ropewalk_worker::keeper::{Command, Keeper, Processes};

/// Steps between two looks at the clock.
const BATCH: u32 = 100;

fn main() {
    let keeper = match Keeper::start() {
        Ok(keeper) => keeper,
        Err(error) => return eprintln!("{error}"),
    };
    let rounds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(11);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(measure(keeper, rounds)),
        Err(error) => eprintln!("{error}"),
    }
}

async fn measure(keeper: Keeper, rounds: usize) {
    let processes = Processes::attach(keeper).expect("a tokio runtime");
    let mut raw = Vec::new();
    let mut plain = Vec::new();
    for _ in 0..rounds {
        let clock = Instant::now();
        (0..BATCH).for_each(|_| raw_step());
        raw.push(clock.elapsed() / BATCH);
        let clock = Instant::now();
        for _ in 0..BATCH {
            step(&processes, command()).await;
        }
        plain.push(clock.elapsed() / BATCH);
    }
    let raw = median(raw);
    print("raw posix_spawn + waitpid", raw, raw);
    print("host step by the keeper", median(plain), raw);
    processes.close().await;
}

fn print(name: &str, value: Duration, raw: Duration) {
    println!("{name:<28} {:>9.1} us  {:>6.2}x", value.as_secs_f64() * 1e6, value.as_secs_f64() / raw.as_secs_f64());
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort();
    values[values.len() / 2]
}

fn command() -> Command {
    let mut command = Command::shell("/bin/sh", &["-e"], b"true").expect("a short script");
    command.marker = "speed/1/1".to_owned();
    command.environment = std::env::vars_os().collect::<Vec<(OsString, OsString)>>();
    command.directory = PathBuf::from("/");
    command
}

async fn step(processes: &Processes, command: Command) {
    let mut running = processes.spawn(command).await.expect("a shell");
    let end = running.ended().await.expect("a shell");
    assert_eq!(end.ending.code(), 0, "`true` passes");
    drain(&running.stdout);
    drain(&running.stderr);
}

/// Reads what is there, as the recorder of output does at a step's end.
fn drain(pipe: &OwnedFd) {
    let mut buffer = [0; 4096];
    while rustix::io::read(pipe, &mut buffer).is_ok_and(|length| length > 0) {}
}

/// What the goal is compared with: the same shell started and waited for without anything around it.
fn raw_step() {
    let arguments: [&CStr; 3] = [c"sh", c"-c", c"true"];
    let mut pointers: Vec<*mut libc::c_char> = arguments.iter().map(|text| text.as_ptr().cast_mut()).collect();
    pointers.push(std::ptr::null_mut());
    unsafe extern "C" {
        static environ: *const *mut libc::c_char;
    }
    // SAFETY: the pointers end in null and name texts that live for the program; `environ` is not changed meanwhile.
    unsafe {
        let mut pid = 0;
        let (none, attributes) = (std::ptr::null(), std::ptr::null());
        assert_eq!(libc::posix_spawn(&raw mut pid, c"/bin/sh".as_ptr(), none, attributes, pointers.as_ptr(), environ), 0);
        libc::waitpid(pid, std::ptr::null_mut(), 0);
    }
}
