//! The native format, case by case: each folder of `tests/native` is a pipeline with what must come of it.
//!
//! A case holds `pipeline.*` (all that are there are read, in order), perhaps `known.json` (default: a push to `main`),
//! `expect.graph.json` and `expect.txt` (triggers, parameters, questions, diagnostics). A missing expectation is written,
//! and the test fails so that somebody reads it.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use graph::{Event, EventKind, JobName, Known};
use ropewalk_dialects::native::{self, Lowered, PIPELINE_FILES, SourceFile, Triggered};
use ropewalk_dialects::report::{self, Color};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/native")
}

fn push_to_main() -> Known {
    Known::of(Event { branch: Some("main".to_owned()), actor: "ada".to_owned(), ..Event::new(EventKind::Push) })
}

fn lower_case(case: &Path) -> Lowered {
    let files: Vec<SourceFile> = PIPELINE_FILES
        .iter()
        .filter_map(|path| {
            let name = path.rsplit('/').next().unwrap();
            Some(SourceFile::new(name, std::fs::read(case.join(name)).ok()?))
        })
        .collect();
    let known = match std::fs::read_to_string(case.join("known.json")) {
        Ok(text) => serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", case.display())),
        Err(_) => push_to_main(),
    };
    native::lower(&files, &known)
}

/// Everything observable beside the graph.
fn told(lowered: &Lowered) -> String {
    let mut text = String::new();
    if let Triggered::No { reason } = &lowered.triggered {
        writeln!(text, "not triggered: {reason}").unwrap();
    }
    for (name, value) in &lowered.filled {
        writeln!(text, "param {name} = {value}").unwrap();
    }
    for question in &lowered.evaluation.questions {
        writeln!(text, "asks {}", serde_json::to_string(question).unwrap()).unwrap();
    }
    text.push_str(&report::text(&lowered.evaluation.diagnostics, &lowered.sources, Color::Never));
    if text.is_empty() { "nothing is wrong\n".to_owned() } else { text }
}

fn graph_text(lowered: &Lowered) -> String {
    let value = serde_json::to_value(&lowered.evaluation.graph).unwrap();
    format!("{}\n", serde_json::to_string_pretty(&value).unwrap())
}

#[test]
fn cases() {
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() > 30, "the cases are there");
    let mut faults = String::new();
    for case in &cases {
        let lowered = lower_case(case);
        for (name, found) in [("expect.graph.json", graph_text(&lowered)), ("expect.txt", told(&lowered))] {
            let path = case.join(name);
            match std::fs::read_to_string(&path) {
                Ok(expected) if expected == found => {}
                Ok(expected) => {
                    writeln!(faults, "{}: expected\n{expected}\nfound\n{found}", path.display()).unwrap();
                }
                Err(_) => {
                    std::fs::write(&path, &found).unwrap();
                    writeln!(faults, "{}: was missing and is written; read it:\n{found}", path.display()).unwrap();
                }
            }
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn four_notations_say_the_same() {
    let [yaml, json, edn, toml] = ["yaml", "json", "edn", "toml"].map(|notation| {
        let lowered = lower_case(&folder().join(format!("notation_{notation}")));
        let told: Vec<_> = lowered.evaluation.diagnostics.iter().map(|diagnostic| &*diagnostic.code).collect();
        assert_eq!(told, ["unused-param", "unused-param"], "{notation}");
        assert!(lowered.evaluation.graph.jobs.len() > 5);
        graph::canonical::graph_json(&lowered.evaluation.graph)
    });
    assert_eq!(yaml, json);
    assert_eq!(yaml, edn);
    assert_eq!(yaml, toml);
}

#[test]
fn the_schema_is_the_golden_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/pipeline.schema.json");
    let found = format!("{}\n", serde_json::to_string_pretty(&native::schema()).unwrap());
    match std::fs::read_to_string(&path) {
        Ok(expected) => assert_eq!(expected, found, "delete {} to write it anew", path.display()),
        Err(_) => {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &found).unwrap();
            panic!("{} was missing and is written; read it", path.display());
        }
    }
}

fn yaml_of(text: &str, known: &Known) -> Lowered {
    native::lower(&[SourceFile::new("pipeline.yaml", text)], known)
}

/// A graph too large to write down: the sum of what must hold of it.
fn yaml(text: &str) -> Lowered {
    yaml_of(text, &push_to_main())
}

#[test]
fn stages_of_thousands_cost_the_sum_of_edges() {
    let mut text = "stages: [build, test]\njobs:\n".to_owned();
    for index in 0..5_000 {
        writeln!(text, "  b{index}: {{ stage: build, run: 'true' }}\n  t{index}: {{ stage: test, run: 'true' }}")
            .unwrap();
    }
    let lowered = yaml(&text);
    assert_eq!(told(&lowered), "nothing is wrong\n");
    let edges: usize = lowered.evaluation.graph.jobs.values().map(|job| job.needs.len()).sum();
    assert_eq!((lowered.evaluation.graph.jobs.len(), edges), (10_001, 10_000));
    let names = lowered.evaluation.graph.jobs.keys();
    assert_eq!(names.filter(|name| name.is_barrier()).map(JobName::as_str).collect::<Vec<_>>(), ["stage:build"]);
}

#[test]
fn every_leg_needing_every_leg_is_bounded() {
    let legs = (0..3_000).map(|leg| leg.to_string()).collect::<Vec<_>>().join(",");
    let lowered = yaml(&format!(
        "jobs:\n  a: {{ matrix: {{ x: [{legs}] }}, run: 'true' }}\n  b: {{ needs: a, matrix: {{ x: [{legs}] }}, run: 'true' }}\n"
    ));
    assert_eq!(lowered.evaluation.diagnostics[0].code, "too-many-edges");
}

#[test]
fn graphs_are_the_same_every_time() {
    for case in ["notation_yaml", "expressions", "merged_files"] {
        let [first, second] = [(); 2].map(|()| lower_case(&folder().join(case)));
        assert_eq!(graph_text(&first), graph_text(&second));
        assert_eq!(told(&first), told(&second));
    }
}

/// A job that begins before an answer is there must be the same after it: the engine ends a build that changes one.
#[test]
fn answers_add_jobs_and_change_none_that_could_have_begun() {
    let text = "stages: [one, two]\njobs:\n  plan: { run: x, stage: one, outputs: [s] }\n  free: { run: x }\n  \
                grown: { needs: plan, stage: two, run: x, matrix: { s: \"${{ fromJSON(needs.plan.outputs.s) }}\" } }\n  \
                src: { run: x, when: { changed: [src] }, matrix: { a: [1, 2] } }\n  last: { run: x, needs: [free] }\n  \
                end: { run: x, needs: [grown, src] }\n";
    let mut known = push_to_main();
    let files = [SourceFile::new("pipeline.yaml", text)];
    let mut graphs = vec![native::lower(&files, &known).evaluation.graph];
    let answers = [
        r#"["changed_files", {"files": ["src/a"]}]"#,
        r#"[{"outcome": "plan"}, {"outcome": {"outcome": "passed", "outputs": {"s": "[7, 8, 9]"}}}]"#,
    ];
    for answer in answers {
        let (question, answer) = serde_json::from_str(answer).unwrap();
        known.answers.insert(question, answer);
        graphs.push(native::lower(&files, &known).evaluation.graph);
    }
    assert_eq!(graphs.iter().map(|graph| graph.holes.len()).collect::<Vec<_>>(), [2, 1, 0]);
    for (before, after) in graphs.iter().zip(&graphs[1..]) {
        let waits = |need: &graph::Need| before.holes.iter().any(|hole| hole.name == need.job.id());
        for (name, job) in before.jobs.iter().filter(|(_, job)| !job.needs.iter().any(waits)) {
            assert_eq!(after.jobs.get(name), Some(job), "{name}");
        }
    }
}

/// A job that never runs has ended before the jobs that it needs: their answers must not make legs of it.
#[test]
fn a_job_that_its_condition_keeps_out_stays_one_job() {
    let text = "jobs:\n  plan: { run: x, outputs: [s] }\n  \
                test: { needs: plan, run: x, matrix: { s: \"${{ fromJSON(needs.plan.outputs.s) }}\" } }\n  \
                deploy: { needs: plan, when: { branch: release }, run: x, \
                matrix: { on: [a, b], s: \"${{ fromJSON(needs.plan.outputs.s) }}\" } }\n  \
                sign: { when: { branch: release }, run: x, matrix: { on: [a, b] } }\n";
    let mut known = push_to_main();
    let files = [SourceFile::new("pipeline.yaml", text)];
    let before = native::lower(&files, &known).evaluation.graph;
    let deploy = before.jobs.get("deploy").expect("it is one job");
    assert!(deploy.skip.is_some());
    for shards in ["[7, 8]", "[]", "no list"] {
        let answer = format!(
            r#"[{{"outcome": "plan"}}, {{"outcome": {{"outcome": "passed", "outputs": {{"s": "{shards}"}}}}}}]"#
        );
        let (question, answer) = serde_json::from_str(&answer).unwrap();
        known.answers.insert(question, answer);
        let after = native::lower(&files, &known).evaluation.graph;
        assert_eq!(after.jobs.get("deploy"), Some(deploy), "{shards}");
        assert!(after.jobs.contains_key("sign/a") && after.jobs.contains_key("sign/b"), "{shards}");
    }
}

/// Two of what a matrix reads may fail in either order, and a reason that was told stays.
#[test]
fn a_matrix_gives_up_when_all_that_it_reads_has_ended() {
    let text = "jobs:\n  a: { run: x, outputs: [s] }\n  b: { run: x, outputs: [s] }\n  \
                c: { needs: [a, b], run: x, matrix: { a: \"${{ fromJSON(needs.a.outputs.s) }}\", \
                b: \"${{ fromJSON(needs.b.outputs.s) }}\" } }\n  \
                d: { needs: [a, b], run: x, \
                matrix: \"${{ fromJSON(format('{0}{1}', needs.a.outputs.s, needs.b.outputs.s)) }}\" }\n";
    for first in ["a", "b"] {
        let mut known = push_to_main();
        for (n_answers, job) in [first, if first == "a" { "b" } else { "a" }].into_iter().enumerate() {
            let answer = format!(
                r#"[{{"outcome": "{job}"}}, {{"outcome": {{"outcome": "failed", "cause": "step", "step": 0, "exit": 1}}}}]"#
            );
            let (question, answer) = serde_json::from_str(&answer).unwrap();
            known.answers.insert(question, answer);
            let graph = yaml_of(text, &known).evaluation.graph;
            for grown in ["c", "d"] {
                let skip = graph.jobs.get(grown).and_then(|job| job.skip.clone());
                let because = graph::SkipReason::Need { because: "a".into() };
                assert_eq!(skip, (n_answers == 1).then_some(because), "{grown}, {first} first");
            }
        }
    }
}

/// Which legs there would have been is never known, so each means the job that stands for them.
#[test]
fn legs_that_never_come_can_be_needed() {
    let text = "jobs:\n  plan: { run: x, outputs: [s] }\n  \
                test: { needs: plan, run: x, matrix: { s: \"${{ fromJSON(needs.plan.outputs.s) }}\" } }\n  \
                ship: { needs: [test/2], run: \"echo ${{ needs['test/2'].result }}\" }\n";
    let failed = r#"[{"outcome": "plan"}, {"outcome": {"outcome": "failed", "cause": "step", "step": 0, "exit": 1}}]"#;
    let mut known = push_to_main();
    let (question, answer) = serde_json::from_str(failed).unwrap();
    known.answers.insert(question, answer);
    let skipped = text.replace("test: { ", "test: { when: { branch: release }, ");
    for (text, known) in [(text, &known), (&*skipped, &push_to_main()), (&*skipped, &known)] {
        let lowered = yaml_of(text, known);
        assert_eq!(told(&lowered), "nothing is wrong\n");
        let graph = &lowered.evaluation.graph;
        assert!(graph.jobs["test"].skip.is_some());
        assert_eq!(graph.jobs["ship"].needs[0].job, JobName::from("test"));
    }
    // Where the legs are known, one that is not among them is a fault.
    let known_legs = text.replace("\"${{ fromJSON(needs.plan.outputs.s) }}\"", "[1]");
    let unknown = told(&yaml_of(&known_legs.replace("test: {", "test: { when: { branch: release },"), &push_to_main()));
    assert!(unknown.contains("unknown-need"), "{unknown}");
}

/// Whatever an outsider writes into a commit's message arrives as it is, in every place of a script, and runs nothing.
#[test]
fn real_shells_get_the_value_and_nothing_else() {
    let message = "a  b\t$(echo pwned) `echo pwned` \"'; echo pwned # \\ * ${HOME} END\nEND\necho pwned";
    let places = [
        ("printf %s ${{ event.message }}", "{}"),
        ("printf %s x${{ event.message }}y", "x{}y"),
        ("printf %s \"is ${{ event.message }}\"", "is {}"),
        ("printf %s 'is ${{ event.message }}, yes'", "is {}, yes"),
        ("printf %s \"$(printf %s ${{ event.message }})\"", "{}"),
        ("X=${{ event.message }}\nprintf %s \"$X\" # ${{ event.message }}\n", "{}"),
        ("printf %s \"${X:-${{ event.message }}}\"", "{}"),
        ("cat <<END\nis ${{ event.message }}\nEND\nprintf %s '${{ event.message }}'", "is {}\n{}"),
        ("(printf %s ${{ event.message }}) | cat", "{}"),
    ];
    for shell in ["sh", "bash"] {
        for (script, expected) in places {
            let text = serde_json::json!({ "jobs": { "a": { "shell": shell, "run": script } } }).to_string();
            let known = Known::of(Event { message: message.to_owned(), ..Event::new(EventKind::Push) });
            let lowered = native::lower(&[SourceFile::new("pipeline.json", text)], &known);
            assert_eq!(told(&lowered), "nothing is wrong\n");
            let step = &lowered.evaluation.graph.jobs["a"].steps[0];
            let env = step.env.iter().map(|(name, value)| (name, value.as_plain().expect("the event is known")));
            let output = std::process::Command::new(shell).args(["-ec", &step.run]).envs(env).output();
            let output = match output {
                Ok(output) => output,
                Err(error) => {
                    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{shell}: {error}");
                    eprintln!("skipped: {shell} cannot be run here: {error}");
                    continue;
                }
            };
            let found = String::from_utf8_lossy(&output.stdout);
            assert_eq!(found, expected.replace("{}", message), "{shell} {script}: {}", step.run);
        }
    }
}
