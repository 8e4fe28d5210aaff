//! Gates as the native format has them, and their answers as inputs.

use super::identifier;
use crate::Data;
use crate::ci::Ci;
use crate::json::Json;

/// Where to ship to.
#[derive(Clone, Copy, Debug, PartialEq, Data)]
enum Region {
    Eu,
    Us,
}

/// The settings of the job `job`, and what is wrong.
fn settings(pipeline: impl FnOnce(&Ci), job: &str) -> String {
    let ci = Ci::new(Json::Null, Default::default(), vec![0]);
    pipeline(&ci);
    let shared = ci.shared.borrow();
    let settings = shared.jobs[shared.by_name[job]].settings.0.iter();
    let mut lines: Vec<String> = settings.map(|setting| format!("{}: {}", setting.key, setting.value)).collect();
    lines.extend(shared.diagnostics.iter().filter_map(|it| Some(it.get("message")?.as_str()?.to_owned())));
    lines.join("\n")
}

#[track_caller]
fn check(pipeline: impl FnOnce(&Ci), expected: &[&str]) {
    assert_eq!(settings(pipeline, "ship"), expected.join("\n"));
}

#[test]
fn a_gate_alone_and_with_a_prompt() {
    check(|ci| drop(ci.gate("ship")), &["gate: {}"]);
    check(|ci| drop(ci.gate("ship").prompt("Ship?")), &[r#"gate: {"prompt":"Ship?"}"#]);
}

#[test]
fn other_letters_are_shown_and_not_named() {
    let pipeline = |ci: &Ci| {
        ci.gate("ship?");
        ci.job("ship");
    };
    assert_eq!(settings(pipeline, "ship-gate"), "gate: {}\nname: \"ship?\"");
    assert_eq!(identifier("Ship it, now!"), "Ship-it-now");
    assert_eq!(identifier("42 ok?"), "_42-ok");
    assert_eq!(identifier("größe"), "gr-e");
    assert_eq!(identifier("???"), "_");
}

#[test]
fn fields_have_the_form_of_their_types() {
    let pipeline = |ci: &Ci| {
        let gate = ci.gate("ship");
        gate.field::<String>("version").help("what to ship");
        gate.field::<bool>("dry run").default(true);
        gate.field::<u16>("count");
        gate.field::<Region>("region").default(Region::Us).help("where to");
    };
    let fields = [
        r#""version":{"type":"string","help":"what to ship"}"#,
        r#""dry-run":{"type":"boolean","default":true,"help":"dry run"}"#,
        r#""count":{"type":"number"}"#,
        r#""region":{"type":"choice","options":["Eu","Us"],"default":"Us","help":"where to"}"#,
    ];
    check(pipeline, &[&format!("gate: {{\"fields\":{{{}}}}}", fields.join(","))]);
}

#[test]
fn a_field_stands_once() {
    let pipeline = |ci: &Ci| {
        let gate = ci.gate("ship");
        gate.field::<bool>("sure");
        gate.field::<String>("sure");
    };
    check(pipeline, &[r#"gate: {"fields":{"sure":{"type":"string"}}}"#, "the gate `ship` has the field `sure` twice"]);
}

#[test]
fn answers_are_inputs_of_their_types() {
    let ended = r#"{"outcome":{"outcome":"passed","outputs":{"region":"Eu","count":3,"sure":true,"version":"1.2"}}}"#;
    let answers = [(r#"{"outcome":"ship-gate"}"#.to_owned(), Json::read(ended).unwrap())];
    let ci = Ci::new(Json::Null, answers.into_iter().collect(), vec![0]);
    let gate = ci.gate("ship?");
    let (region, count) = (gate.field::<Region>("region"), gate.field::<u16>("count"));
    let (sure, version) = (gate.field::<bool>("sure"), gate.field::<String>("version"));
    let mut seen = None;
    ci.then((&gate, &region, &count, &sure, &version), |_, values| seen = Some(values));
    assert_eq!(seen, Some(((), Region::Eu, 3, true, "1.2".to_owned())));
    assert!(ci.shared.borrow().diagnostics.is_empty());
}
