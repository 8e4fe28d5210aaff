//! Puts the sources of the SDK and of the plugins into the binary, so that a package which uses them builds before they
//! are published, and always matches the binary that asks it.
//!
//! The folders are looked for in `sdk/` of this package first (where packaging lays them), then beside this package.
//! Manifests are rewritten to stand alone: what they inherit from the workspace is written out, and what only tests of
//! the SDK itself need is left out.
//!
//! And it asks for a binary that is linked at a fixed address: see [`link_at_a_fixed_address`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Folder of a crate, and the name under which it is laid down.
const CRATES: [(&str, &str); 4] = [
    ("sdk", "ropewalk"),
    ("sdk-derive", "ropewalk-derive"),
    ("plugin-cargo", "ropewalk-cargo"),
    ("plugin-git", "ropewalk-git"),
];
/// Sections of a manifest that only the crate's own tests need, or that a lone crate cannot have.
const SECTIONS_LEFT_OUT: [&str; 7] =
    ["[dev-dependencies", "[lints", "[[test]]", "[[example]]", "[[bench]]", "[package.metadata", "[workspace"];

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the package is"));
    let packaged = here.join("sdk");
    let folder = if packaged.is_dir() { packaged } else { here.join("..") };
    let root = fs::read_to_string(here.join("../../Cargo.toml")).unwrap_or_default();
    let inherited = Inherited::read(&root);
    println!("cargo::rerun-if-changed=build.rs");
    link_at_a_fixed_address();
    println!("cargo::rerun-if-changed=../../Cargo.toml");
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (source, name) in CRATES {
        let source = folder.join(source);
        let Ok(manifest) = fs::read_to_string(source.join("Cargo.toml")) else { continue };
        println!("cargo::rerun-if-changed={}", source.join("Cargo.toml").display());
        println!("cargo::rerun-if-changed={}", source.join("src").display());
        files.insert(format!("{name}/Cargo.toml"), inherited.write_out(&manifest).into_bytes());
        collect(&source.join("src"), &format!("{name}/src"), &mut files);
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo gives a folder"));
    let mut list = String::from("&[\n");
    for (index, (name, text)) in files.iter().enumerate() {
        let copy = out.join(format!("sdk-{index}"));
        fs::write(&copy, text).expect("the folder of build scripts can be written");
        let _ = writeln!(list, "    ({name:?}, include_bytes!({:?})),", copy.display().to_string());
    }
    list.push_str("]\n");
    fs::write(out.join("sdk.rs"), list).expect("the folder of build scripts can be written");
}

/// On Linux with glibc the program is linked at a fixed address, as Go's programs are, unless `ROPEWALK_PIE=on` is set at build time.
///
/// Otherwise the loader corrects some 50,000 pointers in 200 pages at each start, before `main`: half of the time and 700 of
/// 1,060 page faults of a dev build's start, and 2 MiB that every `serve` and `work` keeps. Libraries, stack and heap
/// stay at random addresses (`docs/design/2026-11-21-local-run.md`).
fn link_at_a_fixed_address() {
    println!("cargo::rerun-if-env-changed=ROPEWALK_PIE");
    let target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    let keeps_pie = env::var("ROPEWALK_PIE").is_ok_and(|value| value == "on");
    if target("OS") == "linux" && target("ENV") == "gnu" && !keeps_pie {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}

fn collect(folder: &Path, name: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, file) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let name = format!("{name}/{file}");
        if path.is_dir() {
            collect(&path, &name, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let mut text = fs::read(&path).expect("a source that can be read");
            if name.ends_with("/src/lib.rs") {
                // What the compiler would remark is our matter, not the user's. On the first line, so that lines keep their numbers.
                text.splice(0..0, b"#![allow(warnings)] ".iter().copied());
            }
            files.insert(name, text);
        }
    }
}

/// What crates inherit from the workspace: `[workspace.package]` and `[workspace.dependencies]`, as they are written.
struct Inherited {
    package: BTreeMap<String, String>,
    dependencies: BTreeMap<String, String>,
}

impl Inherited {
    fn read(manifest: &str) -> Self {
        let mut inherited = Self { package: BTreeMap::new(), dependencies: BTreeMap::new() };
        let mut section = "";
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line.trim();
            } else if let Some((key, value)) = line.split_once(" = ") {
                let value = value.split_once(" #").map_or(value, |(value, _)| value).trim().to_owned();
                match section {
                    "[workspace.package]" => drop(inherited.package.insert(key.to_owned(), value)),
                    "[workspace.dependencies]" => drop(inherited.dependencies.insert(key.to_owned(), value)),
                    _ => {}
                }
            }
        }
        inherited
    }

    /// The manifest of a crate that stands alone beside the others.
    fn write_out(&self, manifest: &str) -> String {
        let mut text = String::new();
        let mut is_kept = true;
        for line in manifest.lines() {
            if line.starts_with('[') {
                is_kept = !SECTIONS_LEFT_OUT.iter().any(|section| line.starts_with(section));
            }
            if is_kept {
                text.push_str(&self.line(line));
                text.push('\n');
            }
        }
        text
    }

    fn line(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for (folder, name) in CRATES {
            line = line.replace(&format!("path = \"../{folder}\""), &format!("path = \"../{name}\""));
        }
        if let Some(key) = line.trim_end().strip_suffix(".workspace = true") {
            return match (self.package.get(key), self.dependencies.get(key)) {
                (Some(value), _) | (None, Some(value)) => format!("{key} = {value}"),
                (None, None) => panic!("the root manifest does not say `{key}`"),
            };
        }
        let Some((key, rest)) = line.split_once(" = { workspace = true") else { return line };
        let ours = CRATES.iter().find(|(_, name)| *name == key);
        let value = match (ours, self.dependencies.get(key)) {
            (Some((_, name)), _) => format!("path = \"../{name}\""),
            (None, Some(value)) => match value.strip_prefix("{ ").and_then(|value| value.strip_suffix(" }")) {
                Some(fields) => fields.to_owned(),
                None => format!("version = {value}"),
            },
            (None, None) => panic!("the root manifest does not say `{key}`"),
        };
        format!("{key} = {{ {value}{rest}")
    }
}
