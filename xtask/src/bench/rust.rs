//! Pipelines that are Rust programs: unchanged, edited, cold, checked, large, asked again and again. The goals are times of
//! issue 3, so "theirs" is the goal itself and the ratio says how much of it is used.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::measure::{median, repository, time_ms};
use super::{Bench, Row};

/// Evaluations of one session in the measurement of growth.
const EVALUATIONS: usize = 1000;

/// A program of about 300 lines; the number in its first script is what an edit changes.
fn program(edit: usize) -> String {
    let mut text =
        String::from("use ropewalk::Ci;\n\nfn main() {\n    Ci::main(pipeline)\n}\n\nfn pipeline(ci: &Ci) {\n");
    let _ = writeln!(text, "    let job0 = ci.job(\"job0\").run(\"echo {edit}\");");
    for index in 1..73 {
        let _ = writeln!(
            text,
            "    let job{index} = ci.job(\"job{index}\")\n        .env(\"INDEX\", \"{index}\")\n        .needs(&job{})\n        .run(\"true\");",
            index - 1
        );
    }
    text.push_str("    let _ = job72;\n}\n");
    text
}

/// A program of so many jobs, each needing the one before.
fn chain(count: usize) -> String {
    format!(
        "use ropewalk::Ci;\n\nfn main() {{\n    Ci::main(|ci: &Ci| {{\n        let mut last = ci.job(\"job0\").run(\"true\");\n        \
         for index in 1..{count} {{\n            last = ci.job(format!(\"job{{index}}\")).needs(&last).run(\"true\");\n        }}\n        \
         drop(last);\n    }})\n}}\n"
    )
}

fn goal(name: &str, ours: f64, goal_ms: f64) -> Row {
    Row::at_most(name, "the goal", ours, goal_ms, "ms", 1.0)
}

impl Bench {
    fn program_in(&self, folder: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.ropewalk);
        command.args(arguments).current_dir(folder);
        command.env("ROPEWALK_DATA", self.folder.join("data")).env("ROPEWALK_CACHE", self.folder.join("cache"));
        command
    }

    /// The binary that was kept of the only program of this data folder.
    fn kept_binary(&self, project: &str) -> Result<PathBuf, String> {
        let data = fs::read_dir(self.folder.join("data")).map_err(|error| error.to_string())?;
        let found = data
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().starts_with(project))
            .and_then(|entry| fs::read_dir(entry.path().join("programs")).ok()?.flatten().next());
        found.map(|entry| entry.path()).ok_or_else(|| format!("no binary of {project} was kept"))
    }
}

/// All of it. `plan` is what goes from the command line to the graph and runs nothing.
///
/// # Errors
/// What could not be measured.
pub fn rust(bench: &Bench) -> Result<Vec<Row>, String> {
    let folder = bench.folder.join("edited");
    repository(&folder, &[(".ropewalk/pipeline.rs", program(0))])?;
    let file = folder.join(".ropewalk/pipeline.rs");
    let mut rows = Vec::new();
    let cold = time_ms(&mut bench.program_in(&folder, &["plan"]))?;
    rows.push(goal("rust: first build of a package, SDK included", cold, 5000.0));
    // The stamp is kept once the sources are older than the work.
    time_ms(&mut bench.program_in(&folder, &["plan"]))?;
    let measured = |edit: &mut dyn FnMut(usize) -> Result<(), String>, arguments: &[&str]| {
        let mut values = Vec::new();
        for round in 1..=bench.rounds {
            edit(round)?;
            values.push(time_ms(&mut bench.program_in(&folder, arguments))?);
        }
        Ok::<_, String>(median(&mut values))
    };
    let write = |text: String| fs::write(&file, text).map_err(|error| error.to_string());
    rows.push(goal("rust: unchanged program to graph", measured(&mut |_| Ok(()), &["plan"])?, 15.0));
    rows.push(goal("rust: edited line to graph", measured(&mut |round| write(program(round)), &["plan"])?, 800.0));
    rows.push(goal("rust: faults of an edited program, warm", faults(bench, &folder, &file)?, 300.0));
    rows.push(large(bench)?);
    rows.push(again(bench)?);
    Ok(rows)
}

/// From a mistake to its report, without a binary being built.
fn faults(bench: &Bench, folder: &Path, file: &Path) -> Result<f64, String> {
    let mut values = Vec::new();
    for round in 0..=bench.rounds {
        let text = program(round).replace(".run(\"echo", ".rum(\"echo");
        fs::write(file, text).map_err(|error| error.to_string())?;
        let began = Instant::now();
        let output = bench.program_in(folder, &["check"]).output().map_err(|error| error.to_string())?;
        let time = began.elapsed().as_secs_f64() * 1000.0;
        if output.status.code() != Some(2) {
            return Err(format!("check found no fault: {}", String::from_utf8_lossy(&output.stderr)));
        }
        if round > 0 {
            values.push(time);
        }
    }
    Ok(median(&mut values))
}

/// Ten thousand jobs, evaluated once by the program that is running already.
fn large(bench: &Bench) -> Result<Row, String> {
    let folder = bench.folder.join("large");
    repository(&folder, &[(".ropewalk/pipeline.rs", chain(10_000))])?;
    time_ms(&mut bench.program_in(&folder, &["plan"]))?;
    let mut values = session(&bench.kept_binary("large")?, bench.rounds)?;
    Ok(goal("rust: 10,000 jobs evaluated", median(&mut values), 100.0))
}

/// A thousand evaluations of a thousand jobs in one session.
fn again(bench: &Bench) -> Result<Row, String> {
    let folder = bench.folder.join("again");
    repository(&folder, &[(".ropewalk/pipeline.rs", chain(1000))])?;
    time_ms(&mut bench.program_in(&folder, &["plan"]))?;
    let values = session(&bench.kept_binary("again")?, EVALUATIONS)?;
    Ok(goal("rust: 1,000 evaluations of 1,000 jobs", values.iter().sum(), 5000.0))
}

/// Milliseconds of each of so many evaluations by one process.
fn session(binary: &Path, count: usize) -> Result<Vec<f64>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", binary.display());
    let mut child = Command::new(binary)
        .arg("evaluate")
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut requests = child.stdin.take().ok_or("no pipe")?;
    let mut replies = BufReader::new(child.stdout.take().ok_or("no pipe")?);
    let mut values = Vec::with_capacity(count);
    let mut reply = String::new();
    for _ in 0..count {
        reply.clear();
        let began = Instant::now();
        requests
            .write_all(b"{\"protocol\":1,\"event\":{\"kind\":\"push\"},\"answers\":[],\"hooks\":[0]}\n")
            .map_err(failed)?;
        replies.read_line(&mut reply).map_err(failed)?;
        values.push(began.elapsed().as_secs_f64() * 1000.0);
        if !reply.contains("\"jobs\"") {
            return Err(format!("the program replied {reply}"));
        }
    }
    drop(requests);
    child.wait().map_err(failed)?;
    Ok(values)
}
