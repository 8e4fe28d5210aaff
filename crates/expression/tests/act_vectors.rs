//! The test rows of `nektos/act`'s interpreter. They are a second opinion: where act does not do what GitHub does, the row is
//! named in `CONTRADICTING` with the reason.

use std::path::Path;

use ropewalk_expression::{Contexts, Value, parse};
use serde::Deserialize;

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors/act_exprparser.json");

/// Rows whose expectation differs from GitHub's language, with the reason.
const CONTRADICTING: &[(&str, &str)] = &[
    (
        "fromJSON('[0,1]')[1.1]",
        "GitHub takes the whole part of an array index (`IndexHelper`), so this is 1; act gives null",
    ),
    (
        "(github.event.commits.*.author.username)[0]",
        "parentheses make no node, so `[0]` indexes each of the filtered texts: an empty array; act indexes the array",
    ),
    (
        "github.event.commits[0].author.username1 != github.event.commits[1].author.username2",
        "null equals null (GitHub's op_eq.json, `null == null`); act says two missing properties differ",
    ),
    ("secrets != env", "objects compare by identity (GitHub's op_ne.json), so this is true; act fails"),
    (
        "github.event.pull_request.labels.*.name",
        "a filter over what is missing is an empty array (GitHub's op_idx_star.json, `foo.*` of null); act gives null",
    ),
    (
        r#"contains(fromJSON('[{ "first": { "result": "success" }},{ "second": { "result": "success" }}]').first.result, 'success') }}"#,
        "a name is no index of an array (GitHub's op_idx.json), so nothing is found; act looks through the items",
    ),
];

/// Rows that test a function of the caller, not of the language.
const SKIPPED_TEST: (&str, usize) = ("TestFunctionHashFiles", 8);

#[derive(Deserialize)]
struct Row {
    test: String,
    expr: String,
    go_value: String,
}

/// What act's own tests have in their environment, as far as the rows look at it.
fn contexts(test: &str) -> Contexts {
    let env = if test == "TestContexts" { r#"{"TEST": "value"}"# } else { r#"{"key": "value"}"# };
    let contexts = [
        (
            "github",
            r#"{"action": "push", "event": {"commits": [
                {"author": {"username": "someone"}}, {"author": {"username": "someone-else"}}]}}"#,
        ),
        ("env", env),
        ("job", r#"{"status": "success"}"#),
        (
            "steps",
            r#"{"step-id": {"outputs": {"name": "value"}, "conclusion": "success", "outcome": "success"},
                "step-id2": {"conclusion": "skipped", "outcome": "failure"}}"#,
        ),
        ("runner", r#"{"os": "Linux"}"#),
        ("secrets", r#"{"name": "value"}"#),
        ("vars", r#"{"name": "value"}"#),
        ("strategy", r#"{"fail-fast": true}"#),
        ("matrix", r#"{"os": "Linux"}"#),
        ("needs", r#"{"job-id": {"outputs": {"output-name": "value"}, "result": "success"}}"#),
        ("inputs", r#"{"name": "value"}"#),
    ];
    contexts.into_iter().fold(Contexts::new(), |contexts, (name, json)| {
        contexts.with(name, Value::from_json(json).expect("the context is JSON"))
    })
}

/// A Go literal as the value it stands for; `None` where the row expects an error.
fn go_value(literal: &str) -> Option<Value> {
    let literal = literal.strip_suffix(", nil").unwrap_or(literal);
    Some(match literal {
        "nil" => Value::Null,
        "make(map[string]interface{})" => Value::from_json("{}").expect("an object"),
        "math.Inf(1)" => Value::Number(f64::INFINITY),
        "math.NaN()" => Value::Number(f64::NAN),
        _ if literal.starts_with("nil, ") || literal.starts_with("\"\", ") => return None,
        _ => match literal.strip_prefix('`').and_then(|raw| raw.strip_suffix('`')) {
            Some(raw) => raw.into(),
            None => Value::from_json(literal).unwrap_or_else(|error| panic!("Go literal {literal}: {error}")),
        },
    })
}

fn fault(row: &Row) -> Option<String> {
    // Some rows carry the end of the `${{ }}` they were cut from.
    let text = row.expr.trim().trim_end_matches("}}");
    let got = parse(text).and_then(|expression| expression.evaluate(&contexts(&row.test)));
    match (got, go_value(&row.go_value)) {
        (Err(_), None) => None,
        (Ok(got), Some(expected)) => {
            let is_nan = |value: &Value| matches!(value, Value::Number(number) if number.is_nan());
            let is_right = got.kind() == expected.kind()
                && got.to_json() == expected.to_json()
                && got.to_text() == expected.to_text()
                && is_nan(&got) == is_nan(&expected);
            (!is_right).then(|| format!("got {got:?}, expected {expected:?}"))
        }
        (got, _) => Some(format!("got {got:?}, expected {}", row.go_value)),
    }
}

#[test]
fn all_rows() {
    if !Path::new(VECTORS).is_file() {
        assert!(std::env::var_os("CI").is_none(), "the vectors are missing: {VECTORS}");
        eprintln!("skipped: no vectors at {VECTORS}");
        return;
    }
    let text = std::fs::read_to_string(VECTORS).expect("the vector file is text");
    let rows: Vec<Row> = serde_json::from_str(&text).expect("the vector file is JSON");
    let (mut passed, mut skipped, mut contradicting, mut faults) = (0, 0, 0, Vec::new());
    for row in &rows {
        if row.test == SKIPPED_TEST.0 {
            skipped += 1;
            continue;
        }
        let named = CONTRADICTING.iter().find(|(expression, _)| *expression == row.expr);
        match (fault(row), named) {
            (None, None) => passed += 1,
            (Some(_), Some(_)) => contradicting += 1,
            (None, Some((_, reason))) => faults.push(format!("{} holds although it should not: {reason}", row.expr)),
            (Some(fault), None) => faults.push(format!("{}: {}\n    {fault}", row.test, row.expr)),
        }
    }
    println!("{passed} passed, {contradicting} contradict GitHub, {skipped} skipped");
    assert!(faults.is_empty(), "{} of the rows fail:\n{}", faults.len(), faults.join("\n"));
    assert_eq!((rows.len(), skipped, contradicting), (428, SKIPPED_TEST.1, CONTRADICTING.len()), "rows were lost");
}
