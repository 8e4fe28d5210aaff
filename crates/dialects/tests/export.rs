//! Pipelines as other systems' configurations: one folder for each case, with what is written beside it.
//!
//! `tests/export/CASE/pipeline.yaml`, or a program's `reply.json`, becomes `github.yml`, `gitlab.yml` and `buildkite.yml`,
//! for a push to `main` or what `known.json` says. A missing expectation is written, then read by a person.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use graph::{Digest, Event, EventKind, Known};
use ropewalk_dialects::export::{System, export};
use ropewalk_dialects::native::{self, Lowered, SourceFile};
use ropewalk_dialects::program::{self, NamedFile};
use ropewalk_dialects::tree::{Notation, Rules, Sources};

const SYSTEMS: [(System, &str); 3] =
    [(System::Github, "github.yml"), (System::Gitlab, "gitlab.yml"), (System::Buildkite, "buildkite.yml")];

#[test]
fn pipelines_become_configurations() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/export");
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("the cases are there").map(|entry| entry.expect("an entry").path()).collect();
    cases.sort();
    assert!(cases.len() >= 3, "the cases are there");
    let mut wrong = String::new();
    for case in &cases {
        check(case, &mut wrong);
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn lowered(case: &Path) -> Lowered {
    let read = |name: &str| std::fs::read_to_string(case.join(name)).ok();
    let push = Event { branch: Some("main".to_owned()), ..Event::new(EventKind::Push) };
    let known = read("known.json").map_or_else(
        || Known::of(push),
        |text| serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: known.json: {error}", case.display())),
    );
    if let Some(reply) = read("reply.json") {
        let mut named = |file: &str| NamedFile { name: file.to_owned(), text: None };
        let reply = program::lower_as_written(&reply, &mut named, &[], &known, Digest([7; 32]))
            .unwrap_or_else(|error| panic!("{}: {error}", case.display()));
        return reply;
    }
    native::lower_as_written(
        &[SourceFile::new("pipeline.yaml", read("pipeline.yaml").expect("a case has a pipeline"))],
        &known,
    )
}

fn check(case: &Path, wrong: &mut String) {
    let lowered = lowered(case);
    assert!(!lowered.is_wrong(), "{}: {:?}", case.display(), lowered.evaluation.diagnostics);
    for (system, name) in SYSTEMS {
        let found = export(&lowered, system);
        let (root, faults) = Sources::new().read(name, found.as_bytes(), Notation::Yaml, &Rules::NATIVE);
        assert!(root.is_some() && faults.is_empty(), "{}/{name} is no YAML: {faults:?}\n{found}", case.display());
        let path = case.join(name);
        let expected = std::fs::read_to_string(&path).ok();
        if expected.is_none() || std::env::var_os("ROPEWALK_ACCEPT").is_some() {
            std::fs::write(&path, &found).expect("the case can be written");
        }
        if expected.as_ref() != Some(&found) {
            let _ = writeln!(wrong, "{}:\n{found}", path.display());
        }
    }
}
