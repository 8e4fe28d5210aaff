//! GitHub's own test cases of the language (`actions/languageservices`, `expressions/testdata`): every case, value by value
//! and message by message.

use std::collections::BTreeMap;
use std::path::Path;

use ropewalk_expression::{Contexts, Error, ErrorKind, Limits, Scope, Value, ValueKind, WORKFLOW_FUNCTIONS, parse_in};
use serde::Deserialize;

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors/gha_expressions");

/// GitHub's limit for an expression outside a workflow, which the cases are written for (`EvaluationOptions.MaxMemory`).
const MEMORY_BYTES_MAX: usize = 1024 * 1024;

/// Cases that we do not hold: file, expression, reason. There are none.
const SKIPPED: &[(&str, &str, &str)] = &[];

#[derive(Deserialize)]
struct Case {
    expr: String,
    contexts: Option<Value>,
    result: Option<Expected>,
    err: Option<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    kind: String,
    #[serde(default)]
    value: Value,
}

fn evaluate(case: &Case) -> Result<Value, Error> {
    let mut contexts = Contexts::new();
    let mut names = Vec::new();
    if let Some(Value::Object(object)) = &case.contexts {
        for (name, value) in object.entries() {
            contexts = contexts.with(name, value.clone());
            names.push(name.as_ref());
        }
    }
    let scope = Scope { contexts: Some(&names), functions: WORKFLOW_FUNCTIONS };
    let limits = Limits { memory_bytes_max: MEMORY_BYTES_MAX, ..Limits::default() };
    parse_in(&case.expr, &scope)?.evaluate_within(&contexts, limits)
}

fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Array(left), Value::Array(right)) => {
            let (left, right) = (left.items(), right.items());
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            let (left, right) = (left.entries(), right.entries());
            let same_entry = |(left, right): (&(_, Value), &(_, Value))| left.0 == right.0 && same(&left.1, &right.1);
            left.len() == right.len() && left.iter().zip(right).all(same_entry)
        }
        (Value::String(left), Value::String(right)) => left == right,
        (Value::Number(left), Value::Number(right)) => left == right || (left.is_nan() && right.is_nan()),
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Null, Value::Null) => true,
        _ => false,
    }
}

/// What is wrong with our answer to a case, if anything.
fn fault(case: &Case) -> Option<String> {
    match (evaluate(case), &case.result, &case.err) {
        (Ok(value), Some(expected), None) => {
            let is_right = value.kind().to_string() == expected.kind && same(&value, &expected.value);
            (!is_right).then(|| format!("got {:?}, expected {:?}", value.to_json(), expected.value.to_json()))
        }
        (Err(error), None, Some(expected)) => {
            let is_kind = match error.kind {
                ErrorKind::Lex => expected.kind == "lexing",
                ErrorKind::Parse => expected.kind == "parsing",
                ErrorKind::Evaluate => expected.kind == "evaluation",
                // GitHub reports the bound of depth as parsing and that of memory as evaluation.
                ErrorKind::Limit => expected.kind != "lexing",
            };
            let message = expected.value.to_text();
            // Some of the texts leave out where: `Too few parameters supplied: `.
            let is_message = error.message == message
                || (message.ends_with(": ") || message.ends_with("position 1")) && error.message.starts_with(&*message);
            (!is_kind || !is_message).then(|| format!("got {error:?}, expected {} {message:?}", expected.kind))
        }
        (got, ..) => Some(format!("got {got:?}, expected {}", if case.err.is_some() { "an error" } else { "a value" })),
    }
}

#[test]
fn all_cases() {
    if !Path::new(VECTORS).is_dir() {
        assert!(std::env::var_os("CI").is_none(), "the vectors are missing: {VECTORS}");
        eprintln!("skipped: no vectors at {VECTORS}");
        return;
    }
    let (mut passed, mut skipped, mut faults) = (0, 0, Vec::new());
    for entry in std::fs::read_dir(VECTORS).expect("the folder was there") {
        let path = entry.expect("the folder can be listed").path();
        let file = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a vector file is text");
        let groups: BTreeMap<String, Vec<Case>> = serde_json::from_str(&text).expect("a vector file is JSON");
        for case in groups.into_values().flatten() {
            if SKIPPED.iter().any(|(name, expression, _)| *name == file && *expression == case.expr) {
                skipped += 1;
                continue;
            }
            match fault(&case) {
                None => passed += 1,
                Some(fault) => faults.push(format!("{file}: {:.200}\n    {fault:.2000}", case.expr)),
            }
        }
    }
    println!("{passed} passed, {skipped} skipped, {} failed", faults.len());
    assert!(faults.is_empty(), "{} of the cases fail:\n{}", faults.len(), faults.join("\n"));
    assert_eq!((passed + skipped, skipped), (1020, SKIPPED.len()), "cases were lost");
}

#[test]
fn kinds_are_named_as_in_the_vectors() {
    let names = [ValueKind::Null, ValueKind::Bool, ValueKind::Number].map(|kind| kind.to_string());
    assert_eq!(names, ["Null", "Boolean", "Number"]);
}
