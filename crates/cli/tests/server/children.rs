//! Builds that jobs of a server's builds ask for: made by the server itself, for workers as any other.

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use crate::installation::Site;
use crate::process::{Process, Reader};

/// A pipeline of one job `a` that asks for the pipeline `child.yaml`, with more of what is said of that build.
fn asking(more: &str) -> String {
    format!("jobs:\n  a:\n    run: [{{ build: {{ file: .ropewalk/child.yaml{more} }} }}]\n")
}

/// A site whose pipeline may ask for a child.
fn site(pipeline: &str, child: &str) -> Site {
    let site = Site::new(pipeline);
    fs::write(site.root().join(".ropewalk/child.yaml"), child).expect("a file");
    site
}

fn shown(site: &Site, build: &str) -> Value {
    let (out, _) = Site::told(site.there(&["show", build, "--output", "json"]), 0);
    serde_json::from_str(&out).expect("JSON")
}

/// The build that a job asked for last.
fn child_of(site: &Site, build: &str, job: &str) -> String {
    let parent = shown(site, build);
    let found = parent["jobs"].as_array().expect("jobs").iter().find(|row| row["name"] == job);
    found.expect("the job")["row"]["child"].as_u64().expect("a build").to_string()
}

/// The builds of the server, by id, with how each ended.
fn verdicts(site: &Site) -> Vec<(u64, String)> {
    let (out, _) = Site::told(site.there(&["builds", "--output", "json"]), 0);
    let list: Value = serde_json::from_str(&out).expect("JSON");
    let rows = list.as_array().or_else(|| list["builds"].as_array()).expect("a list of builds");
    let row = |row: &Value| {
        (row["build"].as_u64().expect("an id"), row["verdict"]["verdict"].as_str().expect("a verdict").to_owned())
    };
    let mut found: Vec<_> = rows.iter().map(row).collect();
    found.sort();
    found
}

#[test]
fn a_job_waits_for_the_build_it_asks_for_and_hands_on_what_that_hands_on() {
    let pipeline = "jobs:\n  prep: { outputs: [to], run: echo to=moon >> $ROPEWALK_OUTPUT }\n  a:\n    needs: [prep]\n    outputs: [v]\n    run:\n      - build:\n          file: .ropewalk/child.yaml\n          params: { to: '${{ needs.prep.outputs.to }}' }\n          hand_on: { v: one.version }\n  b: { needs: [a], run: 'echo got ${{ needs.a.outputs.v }}' }\n";
    let child = "on: { manual: { params: { to: { type: string }, n: { type: number, default: 3 } } } }\njobs:\n  one: { outputs: [version], run: 'cat new; echo to ${{ params.to }} ${{ params.n }} on ${{ event.branch }}; echo version=1.2 >> $ROPEWALK_OUTPUT' }\n";
    let site = site(pipeline, child);
    fs::write(site.root().join("new"), "not committed\n").expect("a file");
    let _server = site.serve();
    // One slot: who waits for a build takes none.
    let _worker = site.work("w1", &[]);
    let text = site.submit(&[], 0);
    let child = child_of(&site, "1", "a");
    let begun = format!("a: build {child}: ropewalk show {child} --server");
    for line in [begun.as_str(), "a: passed in ", "b | got 1.2", "build 1 passed"] {
        assert!(text.contains(line), "no `{line}` in:\n{text}");
    }
    assert!(!text.contains("note: "), "{text}");
    let (log, _) = Site::told(site.there(&["logs", &child, "one"]), 0);
    assert_eq!(log, "not committed\nto moon 3 on main\n");
    let (log, note) = Site::told(site.there(&["logs", "1", "a"]), 0);
    assert!(log.contains("to moon 3 on main"), "{log}");
    assert!(note.contains(&format!("a of build 1 asked for build {child}: this is its log")), "{note}");
    site.shows("1", &format!("build {child} passed, for a: .ropewalk/child.yaml"));
    site.shows(&child, "by t, for a of build 1");
    assert_eq!(shown(&site, "1")["children"][0]["build"].to_string(), child);
    let told = shown(&site, &child);
    assert_eq!(told["build"]["event"]["parent"]["build"], 1, "{told}");
    // The same again: what has another build for its result is never taken over.
    let text = site.submit(&["--separate", "--output", "json"], 0);
    assert!(text.contains("\"kind\":\"child_made\""), "{text}");
}

#[test]
fn a_child_that_fails_fails_its_job_and_a_retry_makes_another() {
    let site = site(&asking(""), "jobs: { one: { run: 'echo trying; test -e MARK' } }");
    let mark = site.path("mark");
    let child = format!("jobs: {{ one: {{ run: 'echo trying; test -e {}' }} }}", mark.display());
    fs::write(site.root().join(".ropewalk/child.yaml"), child).expect("a file");
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    let text = site.submit(&[], 1);
    let first = child_of(&site, "1", "a");
    assert!(text.contains(&format!("a: failed: build {first} failed because of `one` in ")), "{text}");
    assert!(text.contains("build 1 failed because of `a`"), "{text}");
    site.shows("1", &format!("build {first} failed because of `one`"));
    fs::write(&mark, "").expect("a file");
    let (out, _) = Site::told(site.there(&["retry", "1", "a"]), 0);
    let second = child_of(&site, "1", "a");
    assert!(out.contains(&format!("a: build {second}: ")) && out.contains("build 1 passed"), "{out}");
    site.shows("1", &format!("build {second} passed, for a"));
    // A number that was drawn ahead may go to a later build.
    let of = |build: &str| {
        verdicts(&site).into_iter().find(|(number, _)| number.to_string() == build).map(|(_, verdict)| verdict)
    };
    let all = ["1", &first, &second].map(|build| of(build).expect("it is there"));
    assert_eq!(all, ["passed", "failed", "passed"]);
    // The child itself again is a build that a person asked for, and no job.
    Site::told(site.there(&["retry", &first]), 0);
    let again = verdicts(&site).last().expect("a build").0.to_string();
    let event = &shown(&site, &again)["build"]["event"];
    assert!(event["parent"].is_null() && event["kind"] == "build", "{event}");
}

#[test]
fn who_does_not_wait_passes_at_once() {
    let site = site(&asking(", wait: false"), "jobs: { one: { pool: none, run: echo never } }");
    let _server = site.serve();
    let text = site.submit(&[], 0);
    let child = child_of(&site, "1", "a");
    assert!(text.contains(&format!("a: build {child}: ")) && text.contains("build 1 passed"), "{text}");
    site.shows(&child, "one  waiting  the pool `none` has no worker");
}

#[test]
fn a_child_that_cannot_begin_says_so_in_its_parent_and_is_canceled_with_it() {
    let site = site(&asking(""), "jobs: { one: { pool: gpu, run: echo never } }");
    let _server = site.serve();
    let build = site.submit_only(&[]);
    site.shows(&build, "a  running");
    let child = child_of(&site, &build, "a");
    let waits =
        format!("it waits for build {child}, where `one` of build {child} waits: the pool `gpu` has no worker; ");
    site.shows(&build, &format!("{waits}`ropewalk work --pool gpu` starts one"));
    let number: u64 = child.parse().expect("a number");
    let expected = serde_json::json!({ "kind": "build", "build": number, "stuck": { "build": number, "job": "one" } });
    assert_eq!(shown(&site, &build)["jobs"][0]["waiting"]["reason"], expected);
    Site::told(site.there(&["cancel", &build, "--reason", "enough"]), 0);
    site.shows(&build, &format!("build {build} was canceled by"));
    site.shows(&child, &format!("build {child} was canceled by"));
}

#[test]
fn a_child_is_trusted_no_more_than_its_parent() {
    let child = "jobs: { one: { secrets: [TOKEN], run: 'echo never' }, two: { run: 'echo $ROPEWALK_BUILD' } }";
    let site = site(&asking(""), child);
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    site.put_secret("TOKEN", b"a long secret");
    site.submit(&[], 0);
    let trusted = shown(&site, &child_of(&site, "1", "a"));
    assert_eq!(trusted["build"]["event"]["trust"], "trusted", "{trusted}");
    site.submit_untrusted("fork");
    let builds = verdicts(&site).into_iter().map(|(build, _)| build.to_string());
    let is_it = |build: &String| shown(&site, build)["build"]["event"]["kind"] == "pull_request";
    let parent = builds.into_iter().find(is_it).expect("the untrusted build");
    site.shows(&parent, "failed because of `a`");
    let child = child_of(&site, &parent, "a");
    let told = shown(&site, &child);
    assert_eq!(told["build"]["event"]["trust"], "untrusted", "{told}");
    site.shows(&child, "builds of untrusted events get no secrets");
    site.shows(&child, "failed because of `one`");
}

#[test]
fn what_cannot_be_made_is_told() {
    let site = site("jobs:\n  a: { run: [{ build: { file: nowhere.yaml } }] }\n", "");
    let _server = site.serve();
    let text = site.submit(&[], 1);
    assert!(text.contains("a: failed: the source has no file `nowhere.yaml`"), "{text}");
}

#[test]
fn a_child_in_which_nothing_would_run_fails_its_job() {
    let child = "on: { push: { branches: [main] } }\njobs:\n  b: { run: 'true' }\n";
    let site = site(&asking(""), child);
    let _server = site.serve();
    let text = site.submit(&[], 1);
    assert!(text.contains("a: failed: .ropewalk/child.yaml does not answer to the event `build`: "), "{text}");
    assert_eq!(verdicts(&site), [(1, "failed".to_owned())]);
}

#[test]
fn what_only_a_worker_could_evaluate_is_told() {
    let pipeline = "jobs:\n  prep: { run: 'echo v=3 >> $ROPEWALK_OUTPUT', outputs: [v] }\n  a:\n    needs: prep\n    env: { V: '${{ needs.prep.outputs.v }}', W: plain }\n    \
                    run: [{ build: { file: .ropewalk/child.yaml, params: { w: '${{ env.W }}', v: '${{ env.V }}' } } }]\n";
    let site = site(pipeline, "jobs:\n  b: { run: 'true' }\n");
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    let text = site.submit(&[], 1);
    assert!(text.contains("`env.V` has expressions of its own, which only a worker evaluates"), "{text}");
    let other_case = pipeline.replace("env.V }}", "env.v }}");
    fs::write(site.root().join(".ropewalk/pipeline.yaml"), other_case).expect("a file");
    let text = site.submit(&[], 1);
    assert!(text.contains("no `env` sets `v`, and what a worker has of its own is not known"), "{text}");
    let pipeline = "jobs:\n  prep: { run: 'printf \"v=%070000d\\n\" 0 >> $ROPEWALK_OUTPUT', outputs: [v] }\n  a:\n    needs: prep\n    \
                    run: [{ build: { file: .ropewalk/child.yaml, params: { v: '${{ needs.prep.outputs.v }}' } } }]\n";
    fs::write(site.root().join(".ropewalk/pipeline.yaml"), pipeline).expect("a file");
    let text = site.submit(&[], 1);
    assert!(text.contains("it has more text than a build may be asked for with"), "{text}");
}

#[test]
fn a_pipeline_that_asks_for_itself_is_told() {
    let site = site("jobs:\n  a: { run: [{ build: {} }] }\n", "");
    let _server = site.serve();
    let text = site.submit(&[], 1);
    let child = child_of(&site, "1", "a");
    assert!(text.contains(&format!("a: failed: build {child} failed because of `a`")), "{text}");
    site.shows(&child, &format!("build {child} runs .ropewalk/pipeline.yaml for the same event"));
    assert_eq!(verdicts(&site).len(), 2);
}

#[test]
fn depth_has_a_bound() {
    let deeper = "on: { push: {}, manual: { params: { n: { type: string, default: '' } } } }\njobs:\n  a: { run: [{ build: { event: manual, params: { n: '${{ params.n }}+' } } }] }\n";
    let site = site(deeper, "");
    let _server = site.serve();
    site.submit(&[], 1);
    let mut deepest = "1".to_owned();
    for _ in 0..8 {
        deepest = child_of(&site, &deepest, "a");
    }
    site.shows(&deepest, "8 builds stand above this one, the most there may be: build 1 asked for ");
    assert_eq!(verdicts(&site).len(), 9);
}

/// The server is killed again and again while jobs ask for builds, and while those run: none is lost, and none is made twice.
#[test]
fn a_server_that_dies_loses_no_child_and_makes_none_twice() {
    let jobs: String = (0..8)
        .map(|number| format!("  a{number}: {{ run: [{{ build: {{ file: .ropewalk/child.yaml }} }}] }}\n"))
        .collect();
    let site = site(&format!("jobs:\n{jobs}"), "jobs: { one: { run: sleep 0.3 } }");
    let mut server = site.serve();
    let _worker = site.work("w1", &[]);
    let build = site.submit_only(&[]);
    for wait in [0, 20, 5, 40, 80, 160] {
        std::thread::sleep(std::time::Duration::from_millis(wait));
        server.kill();
        server = site.serve();
    }
    let mut follow = site.there(&["logs", &build, "--follow"]);
    let mut following = Process(follow.stdout(Stdio::piped()).spawn().expect("ropewalk starts"));
    let said = Reader::new(following.0.stdout.take().expect("a pipe"));
    assert_eq!(following.ended(), Some(0));
    drop(said.rest());
    site.shows(&build, &format!("build {build} passed"));
    let verdicts = verdicts(&site);
    assert_eq!(verdicts.len(), 9, "{verdicts:?}");
    assert!(verdicts.iter().all(|(_, verdict)| verdict == "passed"), "{verdicts:?}");
    let children = shown(&site, &build)["children"].as_array().map(Vec::len);
    assert_eq!(children, Some(8));
}
