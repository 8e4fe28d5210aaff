//! Measures Ropewalk against peers and raw limits, all in one run, as ratios of medians. Prints a table and writes
//! `target/bench.json`. Nothing here asserts a time: the figures are for people and for `docs/performance.md`.

mod buildbot;
mod caches;
mod environments;
mod graphs;
mod logs;
mod measure;
mod pages;
mod rust;
mod scheduler;
mod server;
mod shells;
mod site;

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

/// One measured row.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// What it is compared with.
    pub against: String,
    /// Ours, in the unit named.
    pub ours: f64,
    /// Theirs, in the same unit.
    pub theirs: f64,
    /// `ms`, `ms per job`, `MB/s`, `MiB`.
    pub unit: &'static str,
    /// Ours divided by theirs.
    pub ratio: f64,
    /// What the issue asks for, as a sentence.
    pub goal: String,
    /// Whether the goal is met in this run.
    pub met: bool,
}

impl Row {
    /// A row whose goal is a ratio of at most `most`.
    pub fn at_most(
        name: impl Into<String>,
        against: impl Into<String>,
        ours: f64,
        theirs: f64,
        unit: &'static str,
        most: f64,
    ) -> Self {
        let row = Self::compared(name, against, ours, theirs, unit);
        Self { goal: format!("at most {most}x"), met: row.ratio <= most, ..row }
    }

    /// A row whose goal is a ratio of at least `least`.
    pub fn at_least(
        name: impl Into<String>,
        against: impl Into<String>,
        ours: f64,
        theirs: f64,
        unit: &'static str,
        least: f64,
    ) -> Self {
        let row = Self::compared(name, against, ours, theirs, unit);
        Self { goal: format!("at least {least}x"), met: row.ratio >= least, ..row }
    }

    /// A row that compares without a goal.
    pub fn compared(
        name: impl Into<String>,
        against: impl Into<String>,
        ours: f64,
        theirs: f64,
        unit: &'static str,
    ) -> Self {
        let (name, against) = (name.into(), against.into());
        Self { name, against, ours, theirs, unit, ratio: ours / theirs, goal: String::new(), met: true }
    }
}

/// Where a measurement works and what it measures.
pub struct Bench {
    /// The binary, built for release.
    pub ropewalk: PathBuf,
    /// A scratch folder.
    pub folder: PathBuf,
    /// How often each thing is measured.
    pub rounds: usize,
    /// How much of everything.
    pub size: Size,
}

/// How large a measurement of a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As large as the figures say.
    Full,
    /// A hundredth, of programs without optimization: shows that it runs to its end, and measures nothing.
    Small,
}

impl Bench {
    /// How many of what there are `full` of; at least one.
    pub fn sized(&self, full: usize) -> usize {
        match self.size {
            Size::Full => full,
            Size::Small => (full / 100).max(1),
        }
    }

    /// Runs an example of a crate as it is to be measured.
    pub fn example(&self, package: &str, name: &str) -> std::process::Command {
        let mut command = crate::cargo(&["run", "--quiet", "-p", package, "--example", name]);
        if self.size == Size::Full {
            command.arg("--release");
        }
        command.arg("--");
        command
    }
}

/// A group of measurements.
type Measurement = fn(&Bench) -> Result<Vec<Row>, String>;

const MEASUREMENTS: &[(&str, Measurement)] = &[
    ("start", graphs::start),
    ("graphs", graphs::graphs),
    ("growth", graphs::growth),
    ("noop", graphs::noop),
    ("sandbox", graphs::sandbox),
    ("caches", caches::caches),
    ("container", environments::container),
    ("snapshots", environments::snapshots),
    ("logs", logs::logs),
    ("rust", rust::rust),
    ("server-rest", server::rest),
    ("server-build", server::build),
    ("server-live", server::live),
    ("server-shell", shells::shells),
    ("server-log", server::log),
    ("server-jobs", server::jobs),
    ("server-executed", server::executed),
    ("server-burst", server::burst),
    ("server-scheduler", scheduler::scheduler),
    ("server-buildbot", buildbot::buildbot),
    ("server-past", server::past),
    ("pages", pages::pages),
    ("pages-log", pages::log),
];

/// Runs the measurements named, or all. `--rounds=N` changes how often each is taken. `--small` runs those of the server with a
/// hundredth of everything and without optimization, and keeps no figures: for whoever changes a measurement.
///
/// # Errors
/// What could not be measured.
pub fn run(arguments: &[&str]) -> Result<(), String> {
    // Clients and simulated workers take part in what is measured: they are compiled as what they measure.
    let size = if arguments.contains(&"--small") { Size::Small } else { Size::Full };
    if cfg!(debug_assertions) && size == Size::Full {
        return crate::run(
            crate::cargo(&["run", "--release", "--quiet", "-p", "xtask", "--", "bench"]).args(arguments),
        );
    }
    let rounds = arguments.iter().find_map(|argument| argument.strip_prefix("--rounds=")?.parse().ok()).unwrap_or(5);
    let names: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let target = crate::fleet::target();
    let ropewalk = match size {
        Size::Full => crate::fleet::binary(crate::fleet::Faults::Without)?,
        Size::Small => crate::fleet::debug_binary()?,
    };
    let bench = Bench { ropewalk, folder: target.join("bench"), rounds, size };
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for (name, measurement) in MEASUREMENTS {
        if names.is_empty() || names.iter().any(|wanted| is_of(name, wanted)) {
            eprintln!("measuring {name} …");
            let began = Instant::now();
            // What is left of an earlier run would be measured with it.
            empty(&bench.folder)?;
            // What one cannot measure takes nothing from the others.
            match measurement(&bench) {
                Ok(found) => rows.extend(found),
                Err(error) => failed.push(format!("{name}: {error}")),
            }
            eprintln!("  {:.0} s", began.elapsed().as_secs_f64());
        }
    }
    let _ = std::fs::remove_dir_all(&bench.folder);
    print(&rows);
    if size == Size::Small {
        println!("\nsmall, and without optimization: these figures say nothing, and are not kept");
        // What could not be measured at all shall fail whoever tries it.
        failed.extend(rows.iter().filter(|row| row.ours.is_nan()).map(|row| row.name.clone()));
    } else {
        write(&target.join("bench.json"), &rows)?;
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

/// Makes the folder, with nothing in it.
///
/// # Errors
/// What stands in the way, such as a mount that an engine left there when it was killed.
fn empty(folder: &Path) -> Result<(), String> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!(
            "{} cannot be emptied: {error}; see whether something is mounted there or runs in it, and remove it",
            folder.display()
        )),
        _ => std::fs::create_dir_all(folder).map_err(|error| format!("could not make {}: {error}", folder.display())),
    }
}

/// Whether a measurement is the one wanted, or of the group wanted: `server-log` is of `server`.
fn is_of(name: &str, wanted: &str) -> bool {
    name.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn print(rows: &[Row]) {
    println!("| what | ours | against | theirs | unit | ratio | goal | |");
    println!("|---|---|---|---|---|---|---|---|");
    for row in rows {
        let mark = if row.goal.is_empty() {
            ""
        } else if row.met {
            "met"
        } else {
            "MISSED"
        };
        println!(
            "| {} | {:.3} | {} | {:.3} | {} | {:.2} | {} | {mark} |",
            row.name, row.ours, row.against, row.theirs, row.unit, row.ratio, row.goal
        );
    }
}

fn write(path: &Path, rows: &[Row]) -> Result<(), String> {
    let text = serde_json::to_string_pretty(rows).map_err(|error| error.to_string())?;
    std::fs::write(path, text).map_err(|error| format!("could not write {}: {error}", path.display()))?;
    println!("\nwritten to {}", path.display());
    Ok(())
}
