//! Programs with mistakes, one a hook: what is told of each stands in `tests/wire.rs`.

use ropewalk::hook::{command, manual, on, pull_request, push};
use ropewalk::{Ci, Failure, field};

fn twice(ci: &Ci) {
    println!("a print of the program");
    ci.job("build").run("true");
    ci.job("test").run("true");
    ci.job("build").run("false");
    ci.job("test").run("false");
}

fn panics(ci: &Ci) {
    ci.job("build").run("true");
    let list: Vec<u8> = Vec::new();
    let first = list.first().expect("there is a first");
    ci.job(format!("test-{first}")).run("true");
}

fn fails(ci: &Ci) -> Result<(), Failure> {
    let number: u32 = ci.event().branch().unwrap_or_default().parse()?;
    ci.job(format!("job-{number}")).run("true");
    Ok(())
}

fn endless(ci: &Ci) {
    for number in 0_u64.. {
        ci.job(format!("job-{number}")).run("true");
    }
}

fn asks(ci: &Ci) -> Result<(), Failure> {
    let is_dry: bool = ci.event().param("dry")?;
    ci.job(if is_dry { "dry" } else { "wet" }).run("true");
    Ok(())
}

fn main() {
    Ci::main([
        on(push().branch("main")).or(push().branch("next")).run(twice),
        on(pull_request()).run(panics),
        on(command(["a", "b"])).run(fails),
        on(command("endless")).name("never ends").run(endless),
        on(manual().param(field::<bool>("dry").default(true))).run(asks),
        on(command("clocked")).run(clocked),
    ]);
}

/// Looks at the time in the way that the branch names.
fn clocked(ci: &Ci) {
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32;
        fn syscall(number: i64, ...) -> i64;
    }
    const COARSE: i32 = 5;
    let mut time = [0; 2];
    let event = ci.event();
    let told = match event.branch() {
        Some("monotonic") => format!("{:?}", std::time::Instant::now()),
        Some("coarse") => {
            // SAFETY: room for seconds and nanoseconds.
            unsafe { clock_gettime(COARSE, &raw mut time) };
            format!("{time:?}")
        }
        #[cfg(target_arch = "x86_64")]
        Some("called") => {
            // SAFETY: `clock_gettime`, as above.
            unsafe { syscall(228, COARSE, &raw mut time) };
            format!("{time:?}")
        }
        #[cfg(target_arch = "x86_64")]
        // SAFETY: reads a register.
        Some("counter") => format!("{}", unsafe { std::arch::x86_64::_rdtsc() }),
        Some("root") => match std::fs::metadata("/").and_then(|root| root.modified()) {
            Ok(time) => format!("{time:?}"),
            Err(error) => error.kind().to_string(),
        },
        _ => format!("{:?}", std::collections::HashSet::from([1])),
    };
    ci.job("clocked").run(told);
}
