//! Replies of programs lowered: one folder for each case, with what it becomes beside it.
//!
//! `tests/program/CASE/` holds `reply.json`, and as they are needed `known.json`, files of a pipeline (`pipeline.*`) and
//! sources of the program (`*.rs`). `expect.graph` is the canonical graph, `expect.txt` what people are told, the open
//! questions, and whether the program answers. A missing expectation is written, then read by a person.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use graph::{Answer, Digest, Event, EventKind, Known, Question, canonical};
use proptest::prelude::*;
use ropewalk_dialects::native::{Lowered, SourceFile, Triggered};
use ropewalk_dialects::program::{self, NamedFile};
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

/// What cannot be used says why and never panics.
#[test]
fn hostile_replies_are_refused() {
    let deep = format!(r#"{{"protocol":1,"document":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let many_files = format!(r#"{{"protocol":1,"files":[{}]}}"#, vec![r#""a""#; program::FILES_MAX + 1].join(","));
    let many_hooks =
        format!(r#"{{"protocol":1,"hooks":[{}]}}"#, vec![r#"{"name":"a"}"#; program::HOOKS_MAX + 1].join(","));
    let many_holes =
        format!(r#"{{"protocol":1,"holes":[{}]}}"#, vec![r#"{"name":"a"}"#; program::HOLES_MAX + 1].join(","));
    let many_values = format!(r#"{{"protocol":1,"document":[{}0]}}"#, "0,".repeat(program::VALUES_MAX));
    let large = " ".repeat(program::REPLY_BYTES_MAX + 1);
    let cases = [
        (r#"{"protocol":2,"new":{}}"#, "speaks version 2 of the protocol, and this ropewalk version 1"),
        (r#"{"hooks":[],"protocol":3,"files":7}"#, "speaks version 3"),
        (r"{}", "does not say its `protocol`"),
        ("", "EOF"),
        (r#"{"protocol":1} x"#, "trailing characters"),
        (r#"{"protocol":1,"files":{}}"#, "expected a list of files"),
        (r#"{"protocol":1,"hooks":[1]}"#, "a hook is no map"),
        (r#"{"protocol":1,"document":{"@":[0,1]}}"#, "a mark is `[file, line, column]`"),
        (r#"{"protocol":1,"document":{"@":[0,1,2,3]}}"#, "a mark is `[file, line, column]`"),
        (r#"{"protocol":1,"document":{"@":[0,-1,99999999999]}}"#, "invalid value"),
        (r#"{"protocol":1,"document":{"@":"x"}}"#, "expected a mark"),
        (r#"{"protocol":1,"questions":["why"]}"#, "unknown variant `why`"),
        (r#"{"protocol":1,"statuses":{"a":{"state":"fine"}}}"#, "unknown variant `fine`"),
        (r#"{"protocol":1,"holes":[{"after":[]}]}"#, "missing field `name`"),
        (&deep, "recursion limit exceeded"),
        (&many_files, "more than 4096 files"),
        (&many_hooks, "more than 1000 hooks"),
        (&many_holes, "more than 100000 holes"),
        (&many_values, "more than 4000000 values"),
        (&large, "replied with 67108865 bytes, the most is 67108864"),
    ];
    for (reply, expected) in cases {
        let error = program::read(reply).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}\nshould say\n{expected}");
    }
}

/// Any values in any place of a reply are lowered to something.
#[test]
fn strange_replies_are_lowered() {
    let values = [
        "null",
        "true",
        "-1",
        "1e400",
        "18446744073709551615",
        "\"x\"",
        "\"${{\"",
        "[]",
        "[[]]",
        "{}",
        r#"{"@":[9,4000000000,4000000000]}"#,
        r#"{"@":[-9223372036854775808,0,0],"@run":[-1,1,1],"run":1}"#,
        r#"{"a/b":{"run":"x"},"a":{"run":"x"},"a//b":{"run":"x"},"/":{},"c":{"needs":["a","a/b","then:x"],"run":[{"function":1}]}}"#,
        r#"[{"job":"a/b","run":"x"},{"wait":{}},{"job":"a/b"},{"gate":1}]"#,
        r#"{"x":{"run":"x","matrix":{"a":"${{ fromJSON(needs.g.outputs.x) }}"},"needs":["g"]},"g/a":{"run":"x"}}"#,
    ];
    for value in values {
        for place in
            ["document", "document.jobs", "document.jobs.a", "document.jobs.a.run", "document.jobs.a.needs", "hooks.on"]
        {
            let nested =
                |keys: &[&str]| keys.iter().rev().fold(value.to_owned(), |inner, key| format!("{{\"{key}\":{inner}}}"));
            let keys: Vec<&str> = place.split('.').collect();
            let (key, inner) = (keys[0], nested(&keys[1..]));
            let inner = if key == "hooks" { format!("[{}]", inner.replacen('{', r#"{"name":"h","#, 1)) } else { inner };
            let text = format!(
                r#"{{"protocol":1,"files":["a.rs"],"{key}":{inner},"holes":[{{"name":"then:x","after":["nobody"],"@":[7,7,7]}}]}}"#
            );
            let Ok(reply) = program::read(&text) else { continue };
            let files = [SourceFile::new("pipeline.yaml", "jobs: { a: { run: x }, y: { run: x } }")];
            let sources = vec![("a.rs".to_owned(), "é".to_owned())];
            let lowered = program::lower(reply, sources, &files, &push(), PROGRAM);
            told(&lowered, &[]);
        }
    }
}

/// What a plugin hands on unchanged keeps its place in the file; what it changes has the plugin's.
#[test]
fn jobs_of_files_go_through_a_program_and_back() {
    let files = [SourceFile::new(
        "pipeline.yaml",
        "env: { A: b }\njobs:\n  - { job: a, run: [one, two] }\n  - wait: {}\n  - { job: c, needs: [x], run: c }\n",
    )];
    let document = program::document(&files);
    assert_eq!(document.files, ["pipeline.yaml"]);
    let request = program::request(&push(), Some(&[0]), Some(&document));
    let request: Value = serde_json::from_str(&request).expect("it is JSON");
    assert_eq!(request["document"]["jobs"]["@a"], serde_json::json!([-1, 3, 12]));
    assert_eq!(request["document_files"], serde_json::json!(["pipeline.yaml"]));
    let mut extended = request["document"].clone();
    extended["jobs"]["a"]["run"] = serde_json::json!(["before", "one", "two"]);
    let reply = serde_json::json!({ "protocol": 1, "hooks": [{ "name": "h" }], "document": extended }).to_string();
    let reply = program::read(&reply).expect("it is a reply");
    let lowered = program::lower(reply, Vec::new(), &files, &push(), PROGRAM);
    let graph = &lowered.evaluation.graph;
    let steps: Vec<&str> = graph.jobs["a"].steps.iter().map(|step| &*step.run).collect();
    assert_eq!(steps, ["before", "one", "two"]);
    assert_eq!(graph.jobs["c"].needs[0].job.as_str(), "wait:1");
    let text = told(&lowered, &[]);
    assert!(text.contains("pipeline.yaml:5:23"), "the need has its place in the file:\n{text}");
}

/// Lines of `ropewalk lower`.
#[test]
fn lines_of_tests_are_answered() {
    let known = serde_json::to_string(&push()).expect("it is JSON");
    let reply =
        r#"{"protocol":1,"hooks":[{"name":"a","on":"tag"},{"name":"b"}],"document":{"jobs":{"x":{"run":"x"}}}}"#;
    let hooks = program::answer(&format!(r#"{{"hooks":{reply},"known":{known}}}"#));
    assert_eq!(hooks, r#"{"hooks":[1]}"#);
    let answer = program::answer(&format!(r#"{{"known":{known},"reply":{reply},"sources":[["a","b"]]}}"#));
    let answer: Value = serde_json::from_str(&answer).expect("it is JSON");
    assert_eq!(answer["graph"]["jobs"]["x"]["steps"][0]["run"], "x");
    assert_eq!(answer["triggered"], serde_json::json!({ "answers": true, "hooks": [1] }));
    for line in ["", "[]", r#"{"known":{}}"#, &format!(r#"{{"reply":{reply}}}"#)] {
        assert!(program::answer(line).starts_with(r#"{"error":"#), "{line}");
    }
}

/// A session that has seen earlier replies says what a fresh one says.
#[test]
fn memory_changes_nothing() {
    let job = |name: &str, keys: &str| format!(r#""{name}":{{"@":[0,1,1],{keys}}}"#);
    let a = job("a", r#""run":"a","inputs":["src/**"]"#);
    let other_a = job("a", r#""run":"b","inputs":["src/**"]"#);
    let group = job("g/x", r#""run":"x","env":{"E":"${{ event.branch }}"}"#);
    let member = job("g/y", r#""run":"y","when":{"changed":["src/**"]}"#);
    let all = job("all", r#""needs":["a","g"],"if":"needs.a.result == 'passed'","run":"all""#);
    let wrong = job("w", r#""needs":["nobody"],"run":"${{ steps.x.outputs.y }}""#);
    let function = job("f", r#""run":[{"function":{"job":"f"}}]"#);
    let with_env = |jobs: &[&String]| format!(r#""env":{{"E":"1"}},"jobs":{{{}}}"#, joined(jobs));
    let plain = |jobs: &[&String]| format!(r#""jobs":{{{}}}"#, joined(jobs));
    let replies = [
        plain(&[&a, &group, &all]),
        plain(&[&a, &group, &all]),
        plain(&[&function, &a, &group, &member, &all]),
        plain(&[&other_a, &group, &member, &all]),
        plain(&[&a, &group, &all, &wrong]),
        plain(&[&a, &group, &all]),
        with_env(&[&a, &group, &all]),
        with_env(&[&all, &a, &group]),
    ];
    let tag = Known::of(Event { tag: Some("v1".to_owned()), ..Event::new(EventKind::Tag) });
    let mut changed = push();
    changed.answers.insert(Question::ChangedFiles, Answer::Files(vec!["docs/x".to_owned()]));
    let files = [SourceFile::new("pipeline.yaml", "jobs: { a: { run: x }, y: { needs: [a], run: x } }")];
    let mut memory = program::Memory::default();
    for known in [push(), changed, tag, push()] {
        for files in [&[][..], &files] {
            for reply in &replies {
                let text =
                    format!(r#"{{"protocol":1,"files":["a.rs"],"hooks":[{{"name":"h"}}],"document":{{{reply}}}}}"#);
                let fresh =
                    program::lower(program::read(&text).expect("it is a reply"), Vec::new(), files, &known, PROGRAM);
                let mut named = |name: &str| NamedFile { name: name.to_owned(), text: None };
                let again = program::lower_again(&text, &mut named, files, &known, PROGRAM, &mut memory);
                let again = again.expect("it is a reply");
                assert_eq!(told(&fresh, &[]), told(&again, &[]));
                assert_eq!(pretty(&fresh), pretty(&again));
            }
        }
    }
}

fn joined(jobs: &[&String]) -> String {
    jobs.iter().map(|job| job.as_str()).collect::<Vec<_>>().join(",")
}

/// One job of a made-up reply: which id, what it says, on which line.
type MadeJob = (u8, u8, u8);

/// What a made-up job says; some of it is wrong, some grows, some waits for answers.
const MADE: [&str; 12] = [
    r#""run":"a""#,
    r#""run":"b","inputs":["src/**"]"#,
    r#""@needs":[1,2,3],"needs":["j0"],"run":"a""#,
    r#""needs":["j1","g"],"run":[{"@":[0,9,9],"run":"x"}]"#,
    r#""when":{"changed":["src/**"]},"run":"a""#,
    r#""when":[{"branch":["main"]}],"run":"echo ${{ env.E }}""#,
    r#""if":"needs.j0.result == 'passed'","needs":["j0"],"run":"a""#,
    r#""matrix":{"os":["a","b"]},"run":"echo ${{ matrix.os }}""#,
    r#""matrix":{"n":"${{ fromJSON(needs.j0.outputs.n) }}"},"needs":["j0"],"run":"a""#,
    r#""run":"a","timeout":"soon""#,
    r#""rum":"a""#,
    r#""run":[{"function":{"job":"j","inputs":[1,{"@":2}]}}]"#,
];

/// The document of made-up jobs; `form` says what is around them.
fn made(jobs: &[MadeJob], form: u8) -> String {
    let names = ["j0", "j1", "j2", "g/x", "g/y", "y"];
    let written = jobs.iter().map(|&(id, says, line)| {
        let (name, says) = (names[usize::from(id) % names.len()], MADE[usize::from(says) % MADE.len()]);
        // The job that a file says too has no place of its own now and then.
        let own = if line % 8 == 7 { String::new() } else { format!(r#""@":[{},{},1],"#, line % 2, line / 2 + 1) };
        (name, format!("{own}{says}"))
    });
    let env = if form % 4 == 3 { r#""env":{"E":"2"},"# } else { "" };
    if form % 8 == 5 {
        let items: String = written.map(|(name, body)| format!(r#"{{"job":"{name}",{body}}},"#)).collect();
        return format!(r#"{{{env}"jobs":[{items}{{"wait":{{}}}}]}}"#);
    }
    let entries: Vec<String> =
        written.map(|(name, body)| format!(r#""@{name}":[1,4,4],"{name}":{{{body}}}"#)).collect();
    format!(r#"{{{env}"jobs":{{{}}}}}"#, entries.join(","))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a session has seen: graph, questions and all that is told are those of a fresh one, byte for byte.
    #[test]
    fn sessions_forget_nothing_and_invent_nothing(
        start in proptest::collection::vec((0..6_u8, 0..12_u8, 0..16_u8), 0..6),
        edits in proptest::collection::vec((0..8_usize, (0..6_u8, 0..12_u8, 0..16_u8), 0..4_u8, 0..8_u8, 0..6_u8), 1..12),
    ) {
        let mut jobs = start;
        let mut memory = program::Memory::default();
        let beside = [SourceFile::new("pipeline.yaml", "jobs: { y: { needs: [j0], run: x } }")];
        for (place, job, edit, form, around) in edits {
            let place = place.min(jobs.len());
            match edit {
                0 => jobs.insert(place, job),
                1 if place < jobs.len() => drop(jobs.remove(place)),
                2 if place < jobs.len() => jobs[place] = job,
                _ => {}
            }
            let files: &[SourceFile] = if around == 1 { &beside } else { &[] };
            let names = if around == 2 { r#"["b.rs","a.rs"]"# } else { r#"["a.rs","b.rs"]"# };
            let mut known = push();
            if around == 3 {
                known.answers.insert(Question::ChangedFiles, Answer::Files(vec!["src/x".to_owned()]));
            }
            if around == 4 {
                let outputs = std::iter::once(("n".to_owned(), Value::from("[1,2]"))).collect();
                known.answers.insert(Question::Outcome("j0".into()), Answer::Outcome(graph::Outcome::Passed { outputs }));
            }
            let hooks = if around == 5 { r#"{"name":"h"}"# } else { r#"{"name":"h","@":[0,3,3]}"# };
            let document = made(&jobs, form);
            let text = format!(r#"{{"protocol":1,"files":{names},"hooks":[{hooks}],"document":{document},"holes":[{{"name":"then:j0","after":["j0"],"@":[1,1,1]}}]}}"#);
            let source = |name: &str| (name == "a.rs").then(|| "fn ci() {\n    ci.job(x);\n}\n".repeat(3));
            let sources = vec![("a.rs".to_owned(), source("a.rs").expect("it has a text"))];
            let mut named = |name: &str| NamedFile { name: name.to_owned(), text: source(name) };
            let fresh = program::lower(program::read(&text).expect("it is a reply"), sources, files, &known, PROGRAM);
            let again = program::lower_again(&text, &mut named, files, &known, PROGRAM, &mut memory);
            let again = again.expect("it is a reply");
            prop_assert_eq!(told(&fresh, &[]), told(&again, &[]));
            prop_assert_eq!(&fresh.evaluation.diagnostics, &again.evaluation.diagnostics);
            prop_assert_eq!(canonical::graph_json(&fresh.evaluation.graph), canonical::graph_json(&again.evaluation.graph));
        }
    }
}
