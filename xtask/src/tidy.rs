//! The arrows between crates: floors go down, some walls stand for a reason of their own. Checked from
//! `cargo metadata`, one message per wall that says why.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

/// One crate of the house: its package, its floor, and the walls that floors alone do not give.
struct Wall {
    package: &'static str,
    floor: u8,
    /// Packages it must never import, and why.
    never: &'static [(&'static str, &'static str)],
    /// If given: the only packages it imports unless a feature asks for more, because users compile it on every fresh machine.
    only: Option<&'static [&'static str]>,
}

impl Wall {
    const fn new(package: &'static str, floor: u8, never: &'static [(&'static str, &'static str)]) -> Self {
        Self { package, floor, never, only: None }
    }

    /// A crate that users compile.
    const fn published(package: &'static str, floor: u8, only: &'static [&'static str]) -> Self {
        Self { package, floor, never: &[], only: Some(only) }
    }
}

const TOKIO_OUT: (&str, &str) = ("tokio", "it is pure: nothing in it waits");

const WALLS: &[Wall] = &[
    Wall::published("ropewalk-derive", 0, &[]),
    Wall::published("ropewalk", 1, &["ropewalk-derive"]),
    Wall::published("ropewalk-cargo", 2, &["ropewalk"]),
    Wall::published("ropewalk-git", 2, &["ropewalk"]),
    Wall::new("ropewalk-graph", 1, &[TOKIO_OUT]),
    Wall::new("ropewalk-expression", 1, &[TOKIO_OUT]),
    Wall::new("ropewalk-dialects", 2, &[("ropewalk-engine", "languages know no scheduling"), TOKIO_OUT]),
    Wall::new(
        "ropewalk-engine",
        2,
        &[
            ("ropewalk-dialects", "the engine knows no config language"),
            ("ropewalk-store", "facts go out, nothing is fetched"),
            ("jiff", "time is an input"),
            TOKIO_OUT,
        ],
    ),
    Wall::new(
        "ropewalk-api",
        2,
        &[
            ("ropewalk-engine", "the public shape is its own"),
            ("ropewalk-store", "the public shape is its own"),
            ("ropewalk-dialects", "what travels has no language"),
        ],
    ),
    Wall::new(
        "ropewalk-store",
        3,
        &[
            ("ropewalk-dialects", "what is stored has no language"),
            ("ropewalk-worker", "the two sides of floor 3 meet above"),
        ],
    ),
    Wall::new(
        "ropewalk-worker",
        3,
        &[
            ("ropewalk-engine", "a worker knows its attempt, not the schedule"),
            ("ropewalk-store", "a worker hands bytes on; where they are kept is not its matter"),
        ],
    ),
    Wall::new(
        "ropewalk-web",
        3,
        &[
            ("ropewalk-store", "a page shows what the API answers, and nothing else"),
            ("ropewalk-engine", "a page shows what the API answers, and nothing else"),
            TOKIO_OUT,
        ],
    ),
    Wall::new("ropewalk-server", 4, &[("ropewalk-worker", "dispatch hands out leases, it does not run")]),
    Wall::new(
        "ropewalk-cli",
        5,
        &[("ropewalk", "the binary carries the SDK as text; programs are compiled against that")],
    ),
    Wall::new("ropewalk-sim", 5, &[]),
    Wall::new("xtask", 6, &[]),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    /// Whether only a feature asks for it.
    #[serde(default)]
    optional: bool,
}

/// Checks the house.
///
/// # Errors
/// One line per arrow that must not be.
pub fn run() -> Result<(), String> {
    let output = crate::cargo(&["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .output()
        .map_err(|error| format!("could not run cargo metadata: {error}"))?;
    let metadata: Metadata = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("cargo metadata: {error}: {}", String::from_utf8_lossy(&output.stderr)))?;
    let mut faults = arrows(&metadata);
    for package in &metadata.packages {
        if let Some(folder) = Path::new(&package.manifest_path).parent() {
            faults.extend(missing_heads(folder));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

fn arrows(metadata: &Metadata) -> Vec<String> {
    let walls: BTreeMap<&str, &Wall> = WALLS.iter().map(|wall| (wall.package, wall)).collect();
    let mut faults = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let Some(wall) = walls.get(name) else {
            faults.push(format!(
                "`{name}` stands in no row of xtask/src/tidy.rs: give it a floor and say what it may not import"
            ));
            continue;
        };
        // Tests may look anywhere below; only what ships counts.
        for dependency in package.dependencies.iter().filter(|dependency| dependency.kind.is_none()) {
            let other = dependency.name.as_str();
            if let Some((_, why)) = wall.never.iter().find(|(never, _)| *never == other) {
                faults.push(format!("`{name}` imports `{other}`: {why}"));
            }
            if !dependency.optional && wall.only.is_some_and(|only| !only.contains(&other)) {
                faults.push(format!("`{name}` imports `{other}`: users compile it on every fresh machine"));
            }
            if let Some(below) = walls.get(other)
                && below.floor >= wall.floor
            {
                faults.push(format!(
                    "`{name}` (floor {}) imports `{other}` (floor {}): arrows go down",
                    wall.floor, below.floor
                ));
            }
        }
    }
    faults
}

/// Source files that do not begin with a `//!` comment.
fn missing_heads(folder: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    let mut folders = vec![folder.join("src")];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !std::fs::read_to_string(&path).unwrap_or_default().starts_with("//!")
            {
                faults.push(format!("{}: begins with no `//!` that says what lives there", path.display()));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::{Dependency, Metadata, Package, arrows, run};

    fn package(name: &str, imports: &[&str]) -> Metadata {
        let dependencies =
            imports.iter().map(|name| Dependency { name: (*name).to_owned(), kind: None, optional: false }).collect();
        Metadata { packages: vec![Package { name: name.to_owned(), manifest_path: String::new(), dependencies }] }
    }

    #[test]
    fn this_house_is_tidy() {
        run().unwrap();
    }

    #[test]
    fn an_arrow_up_and_a_wall_are_told_with_the_reason() {
        assert_eq!(
            arrows(&package("ropewalk-graph", &["ropewalk-store", "serde"])),
            ["`ropewalk-graph` (floor 1) imports `ropewalk-store` (floor 3): arrows go down"]
        );
        assert_eq!(
            arrows(&package("ropewalk-engine", &["tokio", "ropewalk-graph"])),
            ["`ropewalk-engine` imports `tokio`: it is pure: nothing in it waits"]
        );
        assert_eq!(
            arrows(&package("ropewalk", &["ropewalk-derive", "serde"])),
            ["`ropewalk` imports `serde`: users compile it on every fresh machine"]
        );
        assert_eq!(arrows(&package("ropewalk-new", &[])).len(), 1);
    }
}
