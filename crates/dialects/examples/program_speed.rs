//! How long a program's reply takes: `cargo run --release -p ropewalk-dialects --example program_speed`.
//!
//! A reply of 10,000 jobs read and lowered; then a pipeline of 1,000 jobs that is asked again after each outcome, as a
//! build does it: request, reading, lowering. Both for a chain of jobs with a script each, as `cargo xtask bench rust` has the
//! program for, and for jobs with conditions, inputs and variables too. Writing the reply is the program's and not counted.
//! Times are those of the processor as Linux counts them for the thread, so that other work on the machine counts little.

use std::fmt::Write;
use std::time::Duration;

use graph::{Answer, Digest, Event, EventKind, Known, Outcome, Question};
use ropewalk_dialects::program;

fn main() {
    for (name, job) in [("chain", chain as fn(usize, &mut String)), ("rich jobs", rich)] {
        println!("{name}:");
        measure(&|count| reply(count, job));
    }
}

fn measure(reply: &dyn Fn(usize) -> String) {
    let known = Known::of(Event { branch: Some("main".to_owned()), ..Event::new(EventKind::Push) });
    let text = reply(10_000);
    let mut reading = Vec::new();
    let mut lowering = Vec::new();
    for _ in 0..11 {
        let start = cpu_time();
        let reply = program::read(&text).expect("it is a reply");
        reading.push(cpu_time() - start);
        let start = cpu_time();
        let lowered = program::lower(reply, sources(), &[], &known, Digest([0; 32]));
        lowering.push(cpu_time() - start);
        assert!(!lowered.is_wrong(), "{:?}", lowered.evaluation.diagnostics);
        assert_eq!(lowered.evaluation.graph.jobs.len(), 10_000);
    }
    println!(
        "10000 jobs, {} bytes: reading {:.1} ms, lowering {:.1} ms",
        text.len(),
        median(reading),
        median(lowering)
    );

    let text = reply(1000);
    let mut known = known;
    let mut memory = program::Memory::default();
    let (mut request, mut lowering) = (Vec::new(), Vec::new());
    let mut named = |name: &str| program::NamedFile { name: name.to_owned(), text: Some(sources().remove(0).1) };
    for round in 0..1000 {
        let name = format!("job_{round}");
        known.answers.insert(Question::Outcome(name.into()), Answer::Outcome(Outcome::passed()));
        let start = cpu_time();
        assert!(!program::request(&known, Some(&[0]), None).is_empty());
        request.push(cpu_time() - start);
        let start = cpu_time();
        let lowered = program::lower_again(&text, &mut named, &[], &known, Digest([0; 32]), &mut memory);
        assert!(!lowered.expect("it is a reply").is_wrong());
        lowering.push(cpu_time() - start);
    }
    let sum: Duration = request.iter().chain(&lowering).sum();
    println!(
        "1000 evaluations of 1000 jobs: {:.2} s; median request {:.2} ms, reading and lowering {:.2} ms",
        sum.as_secs_f64(),
        median(request),
        median(lowering)
    );
}

fn sources() -> Vec<(String, String)> {
    vec![("pipeline.rs".to_owned(), "    ci.job(name).needs(&before).when(branch(\"main\")).run(\"x\");\n".repeat(300))]
}

/// A reply of so many jobs, each as `job` writes it.
fn reply(count: usize, job: fn(usize, &mut String)) -> String {
    let mut text = r#"{"protocol":1,"sdk":"0.1.0","files":["pipeline.rs"],"hooks":[{"name":"ci","@":[0,1,1]}],"document":{"env":{"A":"b"},"jobs":{"#
        .to_owned();
    for index in 0..count {
        text.push_str(if index == 0 { "" } else { "," });
        job(index, &mut text);
    }
    text.push_str("}}}");
    text
}

/// A job that needs the one before, as the SDK writes it.
fn chain(index: usize, text: &mut String) {
    let needs = match index {
        0 => String::new(),
        _ => format!(r#""needs":[{{"@":[0,7,50],"job":"job{}"}}],"#, index - 1),
    };
    write!(text, r#""job{index}":{{"@":[0,7,23],{needs}"@run":[0,7,63],"run":[{{"@":[0,7,63],"run":"true"}}]}}"#)
        .expect("strings take everything");
}

/// A job with a need, a condition, inputs, variables and a script, every key marked.
fn rich(index: usize, text: &mut String) {
    let line = index % 300 + 1;
    let needs = match index {
        0 => String::new(),
        _ => format!(r#""needs":["job_{}"],"@needs":[0,{line},18],"#, (index - 1) / 2),
    };
    write!(
        text,
        r#""job_{index}":{{"@":[0,{line},8],{needs}"@when":[0,{line},33],"when":[{{"branch":["main","release/.*"]}}],"@inputs":[0,{line},40],"inputs":["src/{index}/**"],"@env":[0,{line},44],"env":{{"INDEX":{index}}},"@run":[0,{line},55],"run":"./build --target {index} --verbose"}}"#
    )
    .expect("strings take everything");
}

/// The time this thread has been on a processor.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts what threads use");
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.expect("the first number is the time on a processor"))
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}
