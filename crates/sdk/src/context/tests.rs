//! What a function says to its shell, and what it hears.

use super::{Command, Cx, Failure, Recorded};
use crate::event::Event;
use crate::json::Json;
use crate::reads::Reads;

fn cx(shell: &Recorded) -> Cx {
    Cx::new(shell.clone(), Event::new(Json::Null, Reads::default()))
}

/// The lines of the log that these calls write.
#[track_caller]
fn check_log(call: impl FnOnce(&mut Cx), expected: &[&str]) {
    let shell = Recorded::new().on("*", 0, "");
    let mut cx = cx(&shell);
    call(&mut cx);
    cx.end_heading();
    assert_eq!(shell.log_lines(), expected);
}

#[test]
fn headings_end_with_the_next_and_with_the_group_around_them() {
    let call = |cx: &mut Cx| {
        cx.heading("one");
        cx.heading("two");
        cx.group("inner", |cx| {
            cx.heading("three");
            cx.log("text");
        });
        cx.log("after");
    };
    let expected = [
        "::group::one",
        "::endgroup::",
        "::group::two",
        "::group::inner",
        "::group::three",
        "text",
        "::endgroup::",
        "::endgroup::",
        "after",
        "::endgroup::",
    ];
    check_log(call, &expected);
}

#[test]
fn the_innermost_reason_is_shown() {
    let call = |cx: &mut Cx| {
        cx.pending("outer", |cx| {
            cx.pending("inner", |cx| cx.log("waits"));
        });
    };
    check_log(call, &["::pending::outer", "::pending::inner", "waits", "::pending::outer", "::pending::"]);
}

#[test]
fn texts_for_people_stay_on_one_line() {
    check_log(|cx| cx.warning("a\nb\r\n::error::c"), &["::warning::a b ::error::c"]);
    check_log(|cx| cx.error(""), &["::error::"]);
}

#[test]
fn a_command_that_fails_is_named_with_its_exit_code() {
    let shell = Recorded::new().on("make *", 2, "").on("cc", 0, "");
    let failure = cx(&shell).sh("make all\nmake install").unwrap_err();
    assert_eq!((failure.message(), failure.exit()), ("`make all …` ended with exit code 2", Some(2)));
    let failure = cx(&shell).command(["make", "a b"]).unwrap_err();
    assert_eq!(failure.message(), "`make \"a b\"` ended with exit code 2");
    assert_eq!(cx(&shell).command(["cc"]), Ok(()));
    let failure = cx(&shell).sh("ld").unwrap_err();
    assert_eq!(failure.message(), "cannot run `ld`: the recorded shell has no rule for it");
    shell.assert_ran(["make all*install", "make \"a b\"", "cc", "ld"]);
}

#[test]
fn rules_are_used_in_order_and_the_last_again() {
    let shell = Recorded::new().on("date", 0, "1\n").on("date", 0, "2\n");
    let mut cx = cx(&shell);
    let dates: Vec<String> = (0..3).map(|_| cx.capture("date").unwrap()).collect();
    assert_eq!(dates, ["1", "2", "2"]);
}

#[test]
fn patterns() {
    let matches = |pattern: &str, text: &str| {
        let shell = Recorded::new().on(pattern, 0, "");
        cx(&shell).sh(text).is_ok()
    };
    assert!(matches("cargo build", "cargo build") && !matches("cargo build", "cargo build -r"));
    assert!(matches("cargo *", "cargo build") && !matches("cargo *", "cargo"));
    assert!(matches("*a*b*", "xaxbx") && !matches("*a*b*", "xbxax"));
    assert!(matches("*aa", "aa") && !matches("aa*aa", "aaa"));
}

#[test]
#[should_panic(expected = "! 2: expected `b`, ran `c`\n! 3: expected `d`, ran nothing")]
fn other_commands_are_shown_beside_those_expected() {
    let shell = Recorded::new().on("*", 0, "");
    let mut cx = cx(&shell);
    let _ = (cx.sh("a"), cx.sh("c"));
    shell.assert_ran(["a", "b", "d"]);
}

#[test]
fn after_a_cancellation_nothing_is_started() {
    let shell = Recorded::new().canceled_during("sleep *").on("*", 0, "");
    let mut cx = cx(&shell);
    assert_eq!(cx.sh("sleep 9"), Err(Failure::canceled()));
    assert_eq!(cx.sh("echo on"), Err(Failure::canceled()));
    assert!(cx.is_canceled());
    shell.assert_ran(["sleep 9"]);
}

#[test]
fn files_must_be_there_and_inside() {
    let shell = Recorded::new().file("target/app").dir("docs");
    let cx = cx(&shell);
    let file = |path: &str| {
        cx.file(path).map(|file| file.path().display().to_string()).map_err(|failure| failure.message().to_owned())
    };
    let error = |text: &str| Err(text.to_owned());
    assert_eq!(file("./target/app"), Ok("target/app".to_owned()));
    assert_eq!(file("target"), error("there is no file `target`"));
    assert_eq!(file("docs"), error("`docs` is no file"));
    assert_eq!(file("../app"), error("`../app` leads out of the workspace"));
    assert_eq!(file("a/../../app"), error("`a/../../app` leads out of the workspace"));
    assert_eq!(file("/etc/passwd"), error("`/etc/passwd` leads out of the workspace"));
    assert_eq!(file("."), error("a path is empty"));
    assert!(cx.dir("docs").is_ok());
    assert_eq!(cx.dir("target/app").unwrap_err().message(), "`target/app` is no directory");
}

#[test]
fn secrets_are_named_when_they_are_missing() {
    let shell = Recorded::new().variable("TOKEN", "x");
    assert_eq!(cx(&shell).secret("TOKEN"), Ok("x".to_owned()));
    let failure = cx(&shell).secret("OTHER").unwrap_err();
    assert_eq!(failure.message(), "the secret `OTHER` is not here: a job names the secrets it gets");
}

#[test]
fn a_command_has_its_own_environment() {
    let command = Command::sh("  make\n").env("A", "1").directory("sub").capture();
    assert_eq!(command.text(), "make");
}
