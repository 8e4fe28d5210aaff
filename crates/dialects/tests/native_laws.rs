//! Laws of lowering: no input makes it panic or grow without bound, and every diagnostic lies in its file.

use std::path::Path;

use graph::{Event, EventKind, Known, Severity};
use proptest::prelude::*;
use ropewalk_dialects::native::{Lowered, SourceFile, lower};
use ropewalk_dialects::report::{self, Color};

fn known() -> Known {
    Known::of(Event { branch: Some("main".into()), ..Event::new(EventKind::Push) })
}

/// Lowers and holds what must be true whatever the bytes are.
fn hold(name: &str, bytes: &[u8]) -> Lowered {
    let lowered = lower(&[SourceFile::new(name, bytes)], &known());
    let evaluation = &lowered.evaluation;
    assert!(evaluation.diagnostics.len() <= 201, "bounded");
    for diagnostic in &evaluation.diagnostics {
        assert!(!diagnostic.message.is_empty() && !diagnostic.code.is_empty());
        if let Some(location) = &diagnostic.location {
            let text = lowered.sources.named(&location.file).expect("a file that was read").text();
            assert!(text.get(location.start as usize..location.end as usize).is_some(), "{diagnostic:?}");
            assert!(location.line >= 1 && location.column >= 1);
        }
    }
    let _ = report::text(&evaluation.diagnostics, &lowered.sources, Color::Never);
    if evaluation.diagnostics.iter().all(|diagnostic| diagnostic.severity != Severity::Error) {
        assert_eq!(graph::validate::faults(&evaluation.graph, |_, _| None), []);
        let text = graph::canonical::graph_json(&evaluation.graph);
        let back: graph::Graph = serde_json::from_str(&text).expect("what is written can be read");
        assert_eq!(graph::canonical::graph_json(&back), text);
    }
    lowered
}

/// Every pipeline of the golden cases, with its name.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/native");
    let mut seeds = Vec::new();
    for case in std::fs::read_dir(folder).expect("the cases are there") {
        for file in std::fs::read_dir(case.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if name.starts_with("pipeline.") {
                seeds.push((name, std::fs::read(&path).unwrap()));
            }
        }
    }
    seeds.sort();
    seeds
}

/// Words that mean something, to be put where they do not belong.
const WORDS: &[&str] = &[
    "${{",
    "}}",
    "matrix",
    "include:",
    "needs:",
    "'",
    "\"",
    "{",
    "}",
    "[",
    "]",
    ": ",
    "\n",
    "  ",
    "- ",
    "<<: *base",
    "&base",
    "run:",
    "if:",
    "null",
    "-1",
    "1e999",
    "\0",
    "\u{202e}",
    "steps.x.outputs",
    "fromJSON('[1]')",
    "<<'END'",
    "$((",
    "a/b",
    "~",
    "true",
    "99999999999999999999",
    "{wait: {}}",
    "gate:",
    "stage:",
    "when:",
    "changed:",
    "!",
    "**",
    "(",
    "\\",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400), notation in 0..4_usize) {
        hold(["pipeline.yaml", "pipeline.json", "pipeline.edn", "pipeline.toml"][notation], &bytes);
    }

    #[test]
    fn valid_documents_with_something_changed(
        seed in any::<proptest::sample::Index>(),
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), 0..12_usize, 0..WORDS.len()), 1..5),
    ) {
        let seeds = seeds();
        let (name, mut bytes) = seeds[seed.index(seeds.len())].clone();
        for (place, cut, word) in edits {
            let start = place.index(bytes.len() + 1);
            let end = (start + cut).min(bytes.len());
            bytes.splice(start..end, WORDS[word].bytes());
        }
        hold(&name, &bytes);
    }

    #[test]
    fn scripts_keep_their_text(script in "[a-z ${}()'\"\\\\#`<\n-]{0,60}") {
        prop_assume!(!script.contains("${{"));
        let text = serde_json::json!({ "jobs": { "a": { "run": script } } }).to_string();
        let lowered = hold("pipeline.json", text.as_bytes());
        let graph = &lowered.evaluation.graph;
        prop_assert_eq!(&*graph.jobs["a"].steps[0].run, script.as_str());
    }
}

/// What is expensive to expand is refused, and quickly: each of these would otherwise take hours or gigabytes.
#[test]
fn bombs() {
    let many = |count: usize, of: &dyn Fn(usize) -> String| (0..count).map(of).collect::<Vec<_>>().join(",");
    let axis = many(9_999, &|index| index.to_string());
    let check = |text: String, code: &str| {
        let lowered = hold("pipeline.yaml", text.as_bytes());
        let codes: Vec<&str> = lowered.evaluation.diagnostics.iter().map(|diagnostic| &*diagnostic.code).collect();
        assert!(codes.contains(&code), "{code}: {codes:?}");
    };
    check(format!("jobs: {{ a: {{ run: x, matrix: {{ a: [{axis}], b: [{axis}], c: [{axis}] }} }} }}"), "too-many-legs");
    let includes = many(9_000, &|index| format!("{{ a: 1, b: {index} }}"));
    check(format!("jobs: {{ a: {{ run: x, matrix: {{ a: [{axis}], include: [{includes}] }} }} }}"), "too-many-legs");
    let jobs = many(25, &|index| format!("j{index}: {{ run: x, matrix: {{ a: [{axis}] }} }}"));
    check(format!("jobs: {{ {jobs} }}"), "too-many-jobs");
    let regexes = many(3_000, &|index| format!("\"x{index}{{1,500}}\""));
    check(format!("on: {{ push: {{ branches: [{regexes}] }} }}\njobs: {{ a: {{ run: x }} }}"), "bad-pattern");
    check(format!("jobs: {{ a: {{ run: x, if: \"{}\" }} }}", "!".repeat(30_000)), "expression");
    let wrong = many(50_000, &|index| format!("k{index}: 1"));
    check(format!("jobs: {{ a: {{ {wrong} }} }}"), "too-many-faults");
    let unknown = many(5_000, &|index| format!("j{index}: {{ run: x, needs: [k{index}] }}"));
    check(format!("jobs: {{ {unknown} }}"), "too-many-faults");
    let reads = many(3_000, &|index| {
        format!("j{index}: {{ needs: [j{}], run: \"${{{{ needs.j0.result }}}}\" }}", index.max(1) - 1)
    });
    let lowered = hold("pipeline.yaml", format!("jobs: {{ {reads} }}").as_bytes());
    assert!(!lowered.evaluation.diagnostics.is_empty(), "the first needs itself");
}
