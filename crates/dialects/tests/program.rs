//! Replies of programs lowered: one folder for each case, with what it becomes beside it.
//!
//! `tests/program/CASE/` holds `reply.json`, and as they are needed `known.json`, files of a pipeline (`pipeline.*`) and
//! sources of the program (`*.rs`). `expect.graph` is the canonical graph, `expect.txt` what people are told, the open
//! questions, and whether the program answers. A missing expectation is written, then read by a person.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use graph::{Digest, Event, EventKind, Known, canonical};
use ropewalk_dialects::native::{Lowered, SourceFile, Triggered};
use ropewalk_dialects::program::{self, ProtocolError};
use ropewalk_dialects::report;
use serde_json::Value;

/// The digest of the program in all cases.
const PROGRAM: Digest = Digest([7; 32]);

#[test]
fn replies_become_graphs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/program");
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("the cases are there").map(|entry| entry.expect("an entry").path()).collect();
    cases.sort();
    let wrong: Vec<String> = cases.iter().filter_map(|case| check(case).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(cases.len() >= 2, "the cases are there");
}

/// Lowers a case and compares; the differences as one text.
fn check(case: &Path) -> Result<(), String> {
    let read = |name: &str| std::fs::read_to_string(case.join(name)).ok();
    let known = match read("known.json") {
        Some(text) => {
            serde_json::from_str(&text).map_err(|error| format!("{}: known.json: {error}", case.display()))?
        }
        None => push(),
    };
    let mut names: Vec<String> = std::fs::read_dir(case)
        .expect("a case is a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("names are text"))
        .collect();
    names.sort();
    let named = |name: &String| (name.clone(), read(name).expect("it was listed"));
    let sources = names.iter().filter(|name| name.ends_with(".rs")).map(named).collect();
    let files: Vec<SourceFile> = names
        .iter()
        .filter(|name| name.starts_with("pipeline.") && !name.ends_with(".rs"))
        .map(|name| SourceFile::new(name.as_str(), read(name).expect("it was listed")))
        .collect();
    let said = program::read(&read("reply.json").expect("a case has a reply"));
    let (graph, text) = match said {
        Err(error) => (String::new(), format!("{error}\n")),
        Ok(reply) => {
            let hooks = program::triggered_hooks(&reply, &files, &known.event);
            let lowered = program::lower(reply, sources, &files, &known, PROGRAM);
            (pretty(&lowered), told(&lowered, &hooks))
        }
    };
    let mut wrong = String::new();
    for (name, found) in [("expect.graph", graph), ("expect.txt", text)] {
        let expected = read(name);
        if expected.is_none() || std::env::var_os("ROPEWALK_ACCEPT").is_some() {
            std::fs::write(case.join(name), &found).expect("the case can be written");
        }
        if expected.as_ref() != Some(&found) {
            let _ = write!(wrong, "{}/{name}:\n{found}", case.display());
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn push() -> Known {
    Known::of(Event { branch: Some("main".to_owned()), ..Event::new(EventKind::Push) })
}

fn pretty(lowered: &Lowered) -> String {
    let graph: Value = serde_json::from_str(&canonical::graph_json(&lowered.evaluation.graph)).expect("it is JSON");
    serde_json::to_string_pretty(&graph).expect("it is JSON") + "\n"
}

fn told(lowered: &Lowered, hooks: &[usize]) -> String {
    let mut text = report::text(&lowered.evaluation.diagnostics, &lowered.sources, report::Color::Never);
    let answers = match &lowered.triggered {
        Triggered::Yes => "answers",
        Triggered::No { reason } => reason,
    };
    let _ = writeln!(text, "hooks: {hooks:?}; {answers}");
    for question in &lowered.evaluation.questions {
        let _ = writeln!(text, "asks {}", serde_json::to_string(question).expect("it is JSON"));
    }
    text
}
