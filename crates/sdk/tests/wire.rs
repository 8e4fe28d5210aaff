//! The verb `evaluate`, by examples as real programs: lines in, lines out.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use ropewalk::Json;

/// Starts an example with these lines as its input.
fn run(example: &str, arguments: &[&str], lines: &[&str]) -> Output {
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("examples").join(example);
    assert!(program.is_file(), "the example is not built: cargo build -p ropewalk --examples");
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    lines.iter().for_each(|line| writeln!(stdin, "{line}").unwrap());
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn replies(example: &str, lines: &[&str]) -> Vec<Json> {
    let output = run(example, &["evaluate"], lines);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| Json::read(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn request(event: &str, hook: usize) -> String {
    format!(r#"{{"protocol":1,"event":{event},"answers":[],"hooks":[{hook}],"document":null}}"#)
}

fn reply(example: &str, event: &str, hook: usize) -> Json {
    replies(example, &[&request(event, hook)]).remove(0)
}

/// Each diagnostic as `code line:column message`, with the places of what is related.
fn told(reply: &Json) -> String {
    let place = |json: &Json| {
        let [file, line, column] = json.get("@").map(Json::items).unwrap_or_default() else { return String::new() };
        let files = reply.get("files").map(Json::items).unwrap_or_default();
        let Json::Int(file) = file else { panic!("{file} is no number") };
        let name = usize::try_from(*file).map_or("FILE", |file| files[file].as_str().unwrap());
        format!("{}:{line}:{column}", name.rsplit('/').next().unwrap())
    };
    let mut text = String::new();
    for diagnostic in reply.get("diagnostics").map(Json::items).unwrap_or_default() {
        let word = |name: &str| diagnostic.get(name).and_then(Json::as_str).unwrap_or_default();
        text.push_str(&format!("{} {} {}\n", word("code"), place(diagnostic), word("message")));
        for related in diagnostic.get("related").map(Json::items).unwrap_or_default() {
            text.push_str(&format!("  {} {}\n", place(related), related.get("remark").unwrap()));
        }
    }
    text
}

#[test]
fn duplicates_are_told_together_with_their_places() {
    let reply = reply("mistakes", r#"{"kind":"push"}"#, 0);
    assert_eq!(
        told(&reply),
        "job-twice mistakes.rs:10:8 the job `build` is added twice\n  mistakes.rs:8:8 \"the first time\"\n\
         job-twice mistakes.rs:11:8 the job `test` is added twice\n  mistakes.rs:9:8 \"the first time\"\n"
    );
    let jobs = reply.get("document").and_then(|document| document.get("jobs")).unwrap();
    assert_eq!(jobs.entries().len(), 2, "the first of each name is there");
}

#[test]
fn prints_of_the_program_go_to_stderr() {
    let output = run("mistakes", &["evaluate"], &[&request(r#"{"kind":"push"}"#, 0)]);
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 1);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "a print of the program\n");
}

#[test]
fn a_panic_is_told_and_the_next_request_is_answered() {
    let requests = [request("{}", 1), request(r#"{"branch":"7"}"#, 2)];
    let replies = replies("mistakes", &requests.each_ref().map(String::as_str));
    assert_eq!(
        told(&replies[0]),
        "pipeline-panicked mistakes.rs:17:30 the pipeline `panics` panicked: there is a first\n  \
         mistakes.rs:42:9 \"the pipeline that was asked for its jobs\"\n"
    );
    assert_eq!(told(&replies[1]), "");
    assert!(replies[1].to_string().contains("\"job-7\""));
}

#[test]
fn an_error_is_told_at_the_hook() {
    let found = told(&reply("mistakes", r#"{"branch":"main"}"#, 2));
    assert_eq!(found, "pipeline-failed mistakes.rs:43:9 the pipeline `fails` failed: invalid digit found in string\n");
    let found = told(&reply("mistakes", r#"{"params":{"dry":"x"}}"#, 4));
    let expected = "the pipeline `asks` failed: .params.dry: a boolean was expected, a string came";
    assert_eq!(found, format!("pipeline-failed mistakes.rs:45:9 {expected}\n"));
}

#[test]
fn jobs_without_end_meet_their_bound() {
    let found = told(&reply("mistakes", "{}", 3));
    assert_eq!(found, "too-many-jobs mistakes.rs:29:12 the program adds more than 100000 jobs\n");
}

#[test]
fn hooks_say_what_they_answer_to() {
    let reply = replies("mistakes", &[r#"{"protocol":1,"hooks":null}"#]).remove(0);
    let hooks = reply.get("hooks").unwrap().items().iter();
    let hooks: Vec<String> =
        hooks.map(|hook| format!("{} {}", hook.get("name").unwrap(), hook.get("on").unwrap())).collect();
    assert_eq!(
        hooks,
        [
            r#""twice" {"push":{"branches":["main","next"]}}"#,
            r#""panics" {"pull_request":{}}"#,
            r#""fails" {"command":{"names":["a","b"]}}"#,
            r#""never ends" {"command":{"names":["endless"]}}"#,
            r#""asks" {"manual":{"params":{"dry":{"type":"boolean","default":true}}}}"#,
            r#""clocked" {"command":{"names":["clocked"]}}"#,
        ]
    );
}

#[test]
fn what_is_no_request_is_refused_and_told() {
    let lines = ["{", r#"{"protocol":2}"#, r#"{"protocol":1,"hooks":[-1]}"#, r#"{"protocol":1,"hooks":[9]}"#];
    let replies: Vec<String> = replies("mistakes", &lines).iter().map(told).collect();
    assert_eq!(
        replies,
        [
            "bad-request  the request is no JSON: no name at byte 2\n",
            "bad-request  the request has not protocol 1\n",
            "bad-request  `-1` is no number of a hook\n",
            "no-hook  the program has no hook 9\n",
        ]
    );
}

#[test]
fn a_call_without_verb_explains() {
    let output = run("mistakes", &[], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("ropewalk run"));
}

#[test]
fn steps_go_around_jobs_of_files_too() {
    let document = r#"{"env":{},"defaults":{},"jobs":{
        "@yaml":[-1,3,3],"yaml":{"@labels":[-1,4,5],"labels":"docker","@run":[-1,5,5],"run":"make"},
        "@quiet":[-1,6,3],"quiet":{"run":"true"},
        "@audited":[-1,7,3],"audited":{"secrets":["TOKEN"],"run":["one",{"run":"two"}]},
        "@gate":[-1,8,3],"gate":{"labels":["docker"],"gate":"sure?"},
        "@replaced":[-1,9,3],"replaced":{"run":"old"},
        "@taken":[-1,10,3],"taken":{"run":"old"}
    }}"#;
    let line = format!(r#"{{"protocol":1,"event":{{}},"hooks":[0],"document":{document}}}"#).replace('\n', " ");
    let reply = replies("around", &[&line]).remove(0);
    assert_eq!(
        told(&reply),
        "job-twice around.rs:12:8 the job `taken` is in a config file and in the program\n  FILE:10:3 \"in the file\"\n"
    );
    let document = reply.get("document").unwrap();
    let of_env = document.get("env").and_then(|env| env.get("JOBS")).and_then(Json::as_str);
    assert_eq!(of_env, Some("yaml,quiet,audited,gate,replaced,taken,image,plain,replaced,taken"));
    let scripts = |name: &str| {
        let job = document.get("jobs").and_then(|jobs| jobs.get(name))?;
        let script = |step: &Json| step.get("run").unwrap_or(step).as_str().unwrap().to_owned();
        Some(job.get("run")?.items().iter().map(script).collect::<Vec<_>>().join("; "))
    };
    assert_eq!(scripts("yaml").as_deref(), Some("docker login; make; docker logout"));
    assert_eq!(scripts("quiet"), None, "a job of a file that is not changed is left to the file");
    assert_eq!(scripts("audited").as_deref(), Some("./audit.sh; one; two"));
    assert_eq!(scripts("gate"), None, "a gate without steps stays one");
    assert_eq!(scripts("replaced").as_deref(), Some("new"));
    assert_eq!(scripts("image").as_deref(), Some("docker login; docker build .; docker logout"));
    assert_eq!(scripts("plain").as_deref(), Some("true"));
    let yaml = document.get("jobs").and_then(|jobs| jobs.get("yaml")).unwrap();
    assert_eq!(yaml.get("@").unwrap().to_string(), "[-1,3,3]");
    assert_eq!(yaml.get("@run").unwrap().to_string(), "[-1,5,5]");
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn an_evaluation_has_no_clock() {
    use std::os::unix::process::ExitStatusExt;

    const SIGSEGV: i32 = 11;
    const SIGSYS: i32 = 31;
    let asked = |way: &str| {
        let event = format!(r#"{{"kind":"push","branch":"{way}"}}"#);
        run("mistakes", &["evaluate"], &[&request(&event, 5)])
    };
    for (way, signal) in [("monotonic", SIGSYS), ("coarse", SIGSYS), ("called", SIGSYS), ("counter", SIGSEGV)] {
        let late = asked(way);
        assert_eq!(late.status.signal(), Some(signal), "{way}: {}", String::from_utf8_lossy(&late.stdout));
    }
    // What is no clock is there.
    for (way, told) in [("root", "permission denied"), ("none", "{1}")] {
        let output = asked(way);
        let reply = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && reply.contains(told), "{way}: {reply}");
    }
}
