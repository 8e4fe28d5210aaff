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

fn clocked(ci: &Ci) {
    ci.job(format!("job-{:?}", std::time::Instant::now())).run("true");
}
