//! What an expression sees of the event is the same for whoever evaluates it.

use serde_json::json;

use crate::{Repository, of_kind};

#[test]
fn an_event_is_the_same_in_the_plan_in_a_condition_and_in_a_step() {
    let repository = Repository::new(
        r#"
on: { manual: { params: { level: { default: low } } } }
jobs:
  first:
    env: { PLAN: "${{ toJSON(event) }}" }
    outputs: [plan, step]
    run: |
      printf 'plan<<END\n%s\nEND\n' "$PLAN" >>"$ROPEWALK_OUTPUT"
      printf 'step<<END\n%s\nEND\n' "${{ format('{1}', runner.os, toJSON(event)) }}" >>"$ROPEWALK_OUTPUT"
  second:
    needs: [first]
    if: ${{ needs.first.outputs.plan == toJSON(event) && needs.first.outputs.step == toJSON(event) }}
    run: 'true'
"#,
    );
    let lines = repository.json(&["run", "--output", "json"], 0);
    let jobs = of_kind(&lines, "job_finished");
    let job = |name: &str| *jobs.iter().find(|job| job["job"] == name).expect("it ended");
    assert_eq!(job("first")["outputs"]["plan"], job("first")["outputs"]["step"]);
    assert_eq!(job("second")["outcome"], "passed", "the engine sees another event");
    let seen = job("first")["outputs"]["plan"].as_str().expect("a text");
    let mut event: serde_json::Value = serde_json::from_str(seen).expect("JSON");
    assert!(event["time"].take().as_str().is_some_and(|time| time.len() == "2026-11-23T06:00:00Z".len()), "{seen}");
    for of_the_machine in ["actor", "commit"] {
        assert!(event[of_the_machine].take().is_string(), "{seen}");
    }
    let expected = json!({
        "kind": "manual", "commit": null, "branch": "main", "tag": null, "base": null, "command": null, "pull_request": null,
        "actor": null, "message": "", "time": null, "params": { "level": "low" }, "trust": "trusted",
    });
    assert_eq!(event, expected);
}

#[test]
fn an_event_that_nothing_answers_is_told_with_a_way_out_and_refused_if_it_was_said() {
    let repository = Repository::new(
        "on: { pull_request: {}, tag: { names: ['v.*'] }, schedule: [{ cron: '0 4 * * *' }] }\njobs: { a: { run: echo a } }\n",
    );
    let text = repository.check(&["run"], 0);
    let expected = "note: the pipeline does not answer to this event: the pipeline's `on` does not list a push to branch `main`, \
                    only `tag`, `pull_request`, `schedule`; `--event pull_request` or `--event schedule` would run it\n";
    assert!(text.contains(expected), "{text}");
    for mistyped in [&["--event", "api"][..], &["--tag", "w1"], &["--branch", "mian"]] {
        let text = repository.check(&[&["run"], mistyped].concat(), 2);
        assert!(text.contains("error: the pipeline does not answer to this event: "), "{text}");
        assert!(repository.check(&[&["plan"], mistyped].concat(), 0).contains("note: the pipeline does not answer"));
    }
    repository.check(&["run", "--tag", "v1"], 0);
    assert!(!repository.check(&["builds"], 0).contains("mian"), "nothing was run");
}

#[test]
fn an_event_of_a_tag_has_the_only_tag_of_the_commit_or_asks_for_one() {
    let repository = Repository::new("on: { tag: {} }\njobs: { a: { run: \"echo it is ${{ event.tag }}\" } }\n");
    let asked = |said: &str| {
        let text = repository.check(&["run", "--event", "tag"], 2);
        assert_eq!(text, format!("error: --event tag is of {said}\n"));
    };
    asked("a tag, and this commit has none: add --tag NAME");
    repository.git(&["tag", "v1"]);
    let text = repository.check(&["run", "--event", "tag"], 0);
    assert!(text.contains("build 1: tag v1, ") && text.contains("a | it is v1\n"), "{text}");
    repository.git(&["tag", "w1"]);
    asked("one tag, and this commit has 2: add --tag NAME, such as --tag v1");
    repository.check(&["run", "--event", "tag", "--tag", "v1"], 0);
}

#[test]
fn arguments_that_cannot_be_meant_are_refused() {
    let repository = Repository::new("jobs: { compile: { run: 'true' } }");
    let refused = |arguments: &[&str], said: &str| {
        let text = repository.check(arguments, 2);
        assert!(text.contains(said), "{arguments:?}: {text}");
    };
    let file = repository.root().join("file.txt");
    let file = file.to_str().expect("UTF-8");
    let said = format!("file.txt` is no directory: give one, such as `{}`", repository.root().display());
    refused(&["-C", file, "run"], &said);
    refused(&["submit", file, "--server", "http://127.0.0.1:1"], &said);
    refused(&["run", "--keep-going", "--fail-fast"], "cannot be used with");
    // A variable of a shell that is not set: `.*` would match it.
    for flag in ["--tag", "--branch", "--actor", "--base", "--command"] {
        for command in ["run", "plan", "submit"] {
            refused(&[command, flag, ""], &format!("'{flag} "));
            refused(&[command, flag, ""], "it is empty: is a variable unset?");
        }
    }
    assert_eq!(repository.check(&["builds"], 0), "no builds yet: start one with `ropewalk run`\n");
    repository.check(&["run"], 0);
    refused(&["retry", "last", "compil"], "did you mean");
    refused(&["retry", "last", "compile"], "`ropewalk run --job compile`");
}
