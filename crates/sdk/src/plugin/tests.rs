//! Jobs of files that use a plugin, as requests and replies: what comes back, and what is told.

use crate::hook::Hooks;
use crate::json::Json;
use crate::wire::{self, Request};
use crate::{Ci, Plugin, With};

/// The reply to a push, with these jobs in files beside the program.
fn reply(pipeline: impl Fn(&Ci) + 'static, document: &str) -> Json {
    let line = format!(r#"{{"protocol":1,"event":{{"kind":"push"}},"hooks":[0],"document":{document}}}"#);
    let request = Request::read(&line).expect("a request");
    Json::read(&wire::answer(&pipeline.hooks(), request)).expect("a reply")
}

/// The jobs of the files as the program hands them back.
fn check(pipeline: impl Fn(&Ci) + 'static, document: &str, expected: &str) {
    let reply = reply(pipeline, document);
    assert_eq!(reply.get("diagnostics").map(Json::to_string), None);
    let jobs = reply.get("document").and_then(|document| document.get("jobs")).cloned().unwrap_or_default();
    assert_eq!(jobs.to_string(), expected);
}

/// What is told: code, message, help and place of each.
fn check_told(pipeline: impl Fn(&Ci) + 'static, document: &str, expected: &[&str]) {
    let reply = reply(pipeline, document);
    let told = reply.get("diagnostics").map(Json::items).unwrap_or_default().iter().map(|told| {
        let text = |key| told.get(key).and_then(Json::as_str).unwrap_or_default();
        let place = told.get("@").cloned().unwrap_or_default();
        format!("{place} {}: {}; {}", text("code"), text("message"), text("help"))
    });
    assert_eq!(told.collect::<Vec<_>>(), expected);
}

fn tools() -> Plugin {
    Plugin::new("tools").job("lint", |job, with: &With| {
        let strict = if with.flag("strict") { " --strict" } else { "" };
        let job =
            job.needs("build").input_files("src/**").run(format!("lint{strict} {}", with.texts("paths").join(" ")));
        match with.text("level") {
            Some(level) => job.env("LEVEL", level),
            None => job,
        }
    })
}

#[test]
fn a_files_job_is_completed() {
    check(
        |ci| ci.plugin(tools()),
        r#"{"jobs":{"@style":[-1,2,3],"style":{"@use":[-1,3,5],"use":"tools.lint","@with":[-1,4,5],"with":{"@strict":[-1,4,13],"strict":true,"@paths":[-1,4,27],"paths":["a","b"]}}}}"#,
        r#"{"style":{"@":[-1,2,3],"@needs":[-1,3,5],"needs":[{"job":"build","on":"success"}],"@inputs":[-1,3,5],"inputs":["src/**"],"@run":[-1,3,5],"run":[{"run":"lint --strict a b"}]}}"#,
    );
}

#[test]
fn what_the_file_says_of_a_job_stands() {
    check(
        |ci| ci.plugin(tools()),
        r#"{"jobs":{"@style":[-1,2,3],"style":{"@use":[-1,3,5],"use":"tools.lint","inputs":[],"@timeout":[-1,4,5],"timeout":"5m"}}}"#,
        r#"{"style":{"@":[-1,2,3],"@needs":[-1,3,5],"needs":[{"job":"build","on":"success"}],"@run":[-1,3,5],"run":[{"run":"lint "}],"inputs":[],"@timeout":[-1,4,5],"timeout":"5m"}}"#,
    );
}

#[test]
fn other_jobs_of_files_stay_as_they_are() {
    check(|ci| ci.plugin(tools()), r#"{"jobs":{"a":{"run":"a"}}}"#, "{}");
}

#[test]
fn steps_of_plugins_go_around_jobs_of_files_and_those_that_plugins_complete() {
    let docker = || Plugin::new("docker").extend(|ci| ci.before(|job| job.has_label("docker"), "docker login"));
    let pipeline = move |ci: &Ci| {
        ci.plugin(docker());
        ci.plugin(tools());
    };
    let document = r#"{"jobs":{"a":{"labels":["docker"],"run":"a"},"b":{"run":"b"},"c":{"labels":["docker"],"use":"tools.lint"}}}"#;
    let reply = reply(pipeline, document);
    let jobs = reply.get("document").and_then(|document| document.get("jobs")).cloned().unwrap_or_default();
    let names = jobs.entries().iter().map(|(name, _)| name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["a", "c"]);
    for (job, first, last) in [("a", "docker login", "a"), ("c", "docker login", "lint ")] {
        let steps = jobs.get(job).and_then(|job| job.get("run")).map(Json::items).unwrap_or_default();
        let script = |step: &Json| step.get("run").unwrap_or(step).as_str().map(str::to_owned);
        let scripts: Vec<String> = steps.iter().filter_map(script).collect();
        assert_eq!(scripts, [first, last], "of {job}");
    }
}

#[test]
fn unknown_names_are_told_where_the_file_says_them() {
    let document = r#"{"@plugins":[-1,1,1],"plugins":{"@tolls":[-1,1,12],"tolls":null},"jobs":{
"a":{"@use":[-1,2,1],"use":"tools.lnt"},"b":{"@use":[-1,3,1],"use":"tool.lint"},"c":{"@use":[-1,4,1],"use":"tolls.lint"},
"d":{"@use":[-1,5,1],"use":"tools.lint","with":{"@strcit":[-1,6,1],"strcit":true,"@level":[-1,6,9],"level":[]}}}}"#;
    check_told(
        |ci| ci.plugin(tools()),
        &document.replace('\n', ""),
        &[
            "[-1,1,12] unknown-plugin: the program beside this file does not have the plugin `tolls`; \
             did you mean `tools`?",
            "[-1,2,1] unknown-plugin-job: the plugin `tools` has no job `lnt`; did you mean `lint`?",
            "[-1,3,1] unknown-plugin: the job `b` uses a plugin that is not there: `tool`; did you mean `tools`?",
            "[-1,6,1] unknown-option: `tools.lint` has no option `strcit`; did you mean `strict`?",
            "[-1,6,9] bad-option: the option `level` of `tools.lint` is wrong: a string was expected, a list came; ",
        ],
    );
}

#[test]
fn a_plugin_that_the_program_lacks_is_told_by_its_right_name() {
    let check = |name: &str, help: &str| {
        let document = r#"{"jobs":{"a":{"@use":[-1,2,1],"use":"NAME.fmt"}}}"#.replace("NAME", name);
        let told = format!("[-1,2,1] unknown-plugin: the job `a` uses a plugin that is not there: `{name}`; {help}");
        check_told(|ci| ci.plugin(tools()), &document, &[&told]);
    };
    let add = "add `ci.plugin(ropewalk_cargo::plugin());` to the program, and the crate to its dependencies";
    check("cargo", add);
    check("crago", &format!("did you mean `cargo`? Then {add}"));
    check("tolls", "did you mean `tools`?");
    check("our-house", &add.replace("cargo", "our_house"));
}

#[test]
fn a_panic_of_a_plugin_is_told() {
    let broken = || Plugin::new("broken").job("job", |_, _: &With| -> crate::Job { panic!("no luck") });
    check_told(
        move |ci| ci.plugin(broken()),
        r#"{"jobs":{"a":{"@use":[-1,2,1],"use":"broken.job"}}}"#,
        &["[-1,2,1] plugin-panicked: `broken.job` panicked: no luck; this is a mistake of the plugin"],
    );
}

#[test]
fn functions_of_jobs_of_files_are_found_again_by_what_their_step_says() {
    let adding = || {
        Plugin::new("sum").job("add", |job, with: &With| {
            let number = with.get::<i64>("to").unwrap_or_default();
            job.run_fn(move |_, ()| Ok(number + 1))
        })
    };
    let pipeline = move |ci: &Ci| ci.plugin(adding());
    let document = r#"{"jobs":{"@a":[-1,2,3],"a":{"@use":[-1,2,1],"use":"sum.add","with":{"@to":[-1,2,9],"to":4}}}}"#;
    let reply = reply(pipeline, document);
    let job = reply.get("document").and_then(|document| document.get("jobs")).and_then(|jobs| jobs.get("a"));
    let step = job.and_then(|job| job.get("run")).map(Json::items).unwrap_or_default();
    let payload = step[0].get("function").expect("a step that is a function");
    let of_job = payload.get("document").expect("the job of the file");
    assert_eq!(of_job.to_string(), r#"{"jobs":{"a":{"use":"sum.add","with":{"to":4}}}}"#);
    let line = format!(r#"{{"protocol":1,"event":{{"kind":"push"}},"hooks":[0],"document":{of_job}}}"#);
    let ci = wire::evaluate(&pipeline.hooks(), Request::read(&line).expect("a request"));
    let (_, outputs) = ci.shared.borrow().function("a").expect("the function");
    assert_eq!(outputs, ["value"]);
}

#[test]
fn two_plugins_of_one_name_are_told() {
    let line = line!() + 4;
    let reply = reply(
        |ci| {
            ci.plugin(tools());
            ci.plugin(tools());
        },
        "null",
    );
    let told = reply.get("diagnostics").map(Json::items).unwrap_or_default();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].get("@").map(Json::to_string), Some(format!("[0,{line},16]")));
}
