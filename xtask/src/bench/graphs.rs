//! Graphs of jobs that do nothing, run by Ropewalk, `make -j2`, `ninja` and a bare loop; no-ops; sandbox; start. Ropewalk and `ninja`
//! run as many jobs at once as they do unasked: with two processors, three.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::measure::{interleaved, median, raw_spawn_ms, repository, time_ms};
use super::{Bench, Row};

/// How jobs depend on each other.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// Each needs the one before.
    Chain,
    /// None needs another.
    Fan,
    /// Layers of ten; each job needs two of the layer before.
    Layered,
}

impl Shape {
    const ALL: [Self; 3] = [Self::Chain, Self::Fan, Self::Layered];

    fn needs(self, index: usize) -> Vec<usize> {
        match self {
            Self::Chain => index.checked_sub(1).into_iter().collect(),
            Self::Fan => Vec::new(),
            Self::Layered => match (index / 10).checked_sub(1) {
                None => Vec::new(),
                Some(layer) => vec![layer * 10 + index % 10, layer * 10 + (index + 1) % 10],
            },
        }
    }

    /// How many threads the bare loop needs to do as much at once.
    fn threads(self) -> usize {
        if matches!(self, Self::Chain) { 1 } else { 2 }
    }
}

fn name(index: usize) -> String {
    format!("j{index:05}")
}

/// What each job of a generated pipeline says beside its needs and its script.
fn pipeline(shape: Shape, count: usize, head: &str, body: impl Fn(usize) -> String) -> String {
    let mut text = format!("{head}\njobs:\n");
    for index in 0..count {
        let needs: Vec<_> = shape.needs(index).into_iter().map(name).collect();
        let needs = if needs.is_empty() { String::new() } else { format!("needs: [{}], ", needs.join(", ")) };
        let _ = writeln!(text, "  {}: {{ {needs}{} }}", name(index), body(index));
    }
    text
}

fn makefile(shape: Shape, count: usize) -> String {
    let mut text = String::from("all:");
    for index in 0..count {
        let _ = write!(text, " {}", name(index));
    }
    text.push_str("\n.PHONY: all");
    for index in 0..count {
        let _ = write!(text, " {}", name(index));
    }
    text.push('\n');
    for index in 0..count {
        let needs: Vec<_> = shape.needs(index).into_iter().map(name).collect();
        // The colon keeps make from running `true` without a shell, which the others do not do either.
        let _ = writeln!(text, "{}: {}\n\t@true;", name(index), needs.join(" "));
    }
    text
}

fn ninja_file(shape: Shape, count: usize) -> String {
    let mut text = String::from("rule r\n  command = true;\n");
    for index in 0..count {
        let needs: Vec<_> = shape.needs(index).into_iter().map(name).collect();
        let _ = writeln!(text, "build {}: r {}", name(index), needs.join(" "));
    }
    text
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

impl Bench {
    /// `ropewalk ARGUMENTS` in `folder`, with a data folder of its own.
    fn ropewalk_in(&self, folder: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.ropewalk);
        command.args(arguments).current_dir(folder).env("ROPEWALK_DATA", self.folder.join("data"));
        command
    }

    fn made(&self, name: &str, files: &[(&str, String)]) -> Result<PathBuf, String> {
        let folder = self.folder.join(name);
        repository(&folder, files)?;
        Ok(folder)
    }
}

const IN_PLACE: &str = "defaults: { environment: host, workspace: in_place }";

/// Each shape and size against the bare loop, make and ninja.
pub fn graphs(bench: &Bench) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for shape in Shape::ALL {
        for count in [1, 100, 1000, 10_000] {
            let files = [
                (".ropewalk/pipeline.yaml", pipeline(shape, count, IN_PLACE, |_| "run: \"true\"".to_owned())),
                ("Makefile", makefile(shape, count)),
                ("build.ninja", ninja_file(shape, count)),
            ];
            let folder = bench.made(&format!("{shape:?}-{count}"), &files)?;
            let rounds = if count == 10_000 { bench.rounds.min(3) } else { bench.rounds };
            let [ours, raw, make, ninja] = interleaved(
                rounds,
                [
                    &mut || time_ms(&mut bench.ropewalk_in(&folder, &["run", "--output", "quiet"])),
                    &mut || raw_spawn_ms(count, shape.threads()),
                    &mut || time_ms(Command::new("make").args(["-s", "-j2"]).current_dir(&folder)),
                    &mut || match has("ninja") {
                        // Its log would make the next run different; outputs never exist, so all runs again.
                        true => time_ms(Command::new("ninja").arg("--quiet").current_dir(&folder)),
                        false => Ok(f64::NAN),
                    },
                ],
            )?;
            let what = format!("{shape:?} of {count}, per job").to_lowercase();
            let per_job = |time: f64| time / count as f64;
            rows.push(if count == 1 {
                Row::compared(&what, "bare loop", ours, raw, "ms per job")
            } else {
                Row::at_most(&what, "bare loop", per_job(ours), per_job(raw), "ms per job", 1.2)
            });
            rows.push(Row::compared(&what, "make -j2", per_job(ours), per_job(make), "ms per job"));
            rows.push(Row::compared(&what, "ninja", per_job(ours), per_job(ninja), "ms per job"));
        }
    }
    Ok(rows)
}

/// 10,000 jobs against 1,000.
pub fn growth(bench: &Bench) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for shape in Shape::ALL {
        let folder = |count: usize| {
            let text = pipeline(shape, count, IN_PLACE, |_| "run: \"true\"".to_owned());
            bench.made(&format!("growth-{shape:?}-{count}"), &[(".ropewalk/pipeline.yaml", text)])
        };
        let (small, large) = (folder(1000)?, folder(10_000)?);
        let run = |folder: &Path| time_ms(&mut bench.ropewalk_in(folder, &["run", "--output", "quiet"]));
        let [large, small] = interleaved(bench.rounds.min(3), [&mut || run(&large), &mut || run(&small)])?;
        let what = format!("{shape:?} of 10,000").to_lowercase();
        rows.push(Row::at_most(what, "the same of 1,000", large, small, "ms", 11.0));
    }
    Ok(rows)
}

/// A second run in which nothing changed, against ninja's own.
pub fn noop(bench: &Bench) -> Result<Vec<Row>, String> {
    let count = 10_000;
    let mut ninja = String::from("rule r\n  command = cp $in $out\n");
    let mut files = Vec::new();
    for index in 0..count {
        files.push((format!("in/{}", name(index)), format!("{index}\n")));
        let _ = writeln!(ninja, "build out/{0}: r in/{0}", name(index));
    }
    let text = pipeline(Shape::Fan, count, IN_PLACE, |index| format!("inputs: [in/{}], run: \"true\"", name(index)));
    files.push((".ropewalk/pipeline.yaml".to_owned(), text));
    files.push(("build.ninja".to_owned(), ninja));
    files.push((".gitignore".to_owned(), "out/\n.ninja_*\n".to_owned()));
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    let folder = bench.made("noop", &files)?;
    time_ms(&mut bench.ropewalk_in(&folder, &["run", "--output", "quiet"]))?;
    if !has("ninja") {
        return Err("ninja is not installed (Debian: ninja-build)".to_owned());
    }
    time_ms(Command::new("ninja").arg("--quiet").current_dir(&folder))?;
    let [ours, theirs] = interleaved(
        bench.rounds.max(9),
        [&mut || time_ms(&mut bench.ropewalk_in(&folder, &["run", "--output", "quiet"])), &mut || {
            time_ms(Command::new("ninja").arg("--quiet").current_dir(&folder))
        }],
    )?;
    Ok(vec![Row::at_most("10,000 jobs, nothing changed", "ninja, as many edges", ours, theirs, "ms", 1.0)])
}

/// What a workspace of its own and a sandbox cost a job.
pub fn sandbox(bench: &Bench) -> Result<Vec<Row>, String> {
    let count = 100;
    let folder = |name: &str, head: &str| {
        let text = pipeline(Shape::Chain, count, head, |_| "run: \"true\"".to_owned());
        bench.made(name, &[(".ropewalk/pipeline.yaml", text), ("readme", "hello\n".to_owned())])
    };
    let plain = folder("plain", IN_PLACE)?;
    let overlay = folder("overlay", "defaults: { environment: host }")?;
    let sandbox = folder("sandbox", "defaults: { environment: sandbox }")?;
    let run = |folder: &Path| time_ms(&mut bench.ropewalk_in(folder, &["run", "--output", "quiet"]));
    let [plain, overlay, sandbox] =
        interleaved(bench.rounds, [&mut || run(&plain), &mut || run(&overlay), &mut || run(&sandbox)])?;
    let per_job = |time: f64| (time - plain) / count as f64;
    Ok(vec![
        Row::compared("overlay workspace over a host job", "8 ms", per_job(overlay), 8.0, "ms per job"),
        Row::at_most("overlay and sandbox over a host job", "8 ms", per_job(sandbox), 8.0, "ms per job", 1.0),
    ])
}

/// From the start of `ropewalk run` to the first byte of the first step, seen through a named pipe: of a job in the tree
/// itself, and of one with a workspace of its own.
pub fn start(bench: &Bench) -> Result<Vec<Row>, String> {
    let mut in_place = start_ms(bench, "start", IN_PLACE)?;
    let mut overlay = start_ms(bench, "start-overlay", "defaults: { environment: host }")?;
    Ok(vec![
        Row::at_most("start of run to first byte", "10 ms", median(&mut in_place), 10.0, "ms", 1.0),
        Row::compared("start of run to first byte, overlay", "10 ms", median(&mut overlay), 10.0, "ms"),
    ])
}

fn start_ms(bench: &Bench, name: &str, defaults: &str) -> Result<Vec<f64>, String> {
    let pipe = bench.folder.join(format!("{name}-pipe"));
    let job = format!("{{ run: \"printf x > \\\"$FIRST\\\"\", env: {{ FIRST: {} }} }}", pipe.display());
    let folder = bench.made(name, &[(".ropewalk/pipeline.yaml", format!("{defaults}\njobs:\n  hello: {job}\n"))])?;
    crate::run(Command::new("mkfifo").arg(&pipe))?;
    let mut values = Vec::new();
    for round in 0..=bench.rounds.max(15) {
        let started = Instant::now();
        let mut child = bench
            .ropewalk_in(&folder, &["run", "--output", "quiet"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        std::fs::read(&pipe).map_err(|error| error.to_string())?;
        if round > 0 {
            values.push(started.elapsed().as_secs_f64() * 1000.0);
        }
        child.wait().map_err(|error| error.to_string())?;
    }
    Ok(values)
}
