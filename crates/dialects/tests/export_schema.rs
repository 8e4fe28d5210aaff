//! What `ropewalk export` writes, held against the schemas of the systems it is for.
//!
//! GitHub's is the one its own parser uses (`workflow-v1.0.json`), read here as that parser reads it. GitLab's and Buildkite's,
//! and the one that editors use for GitHub, are JSON Schemas, checked by the program `check-jsonschema`, which `cargo xtask test` installs.

use std::path::{Path, PathBuf};
use std::process::Command;

use ropewalk_dialects::tree::{Node, NodeValue, Notation, Rules, Sources};
use serde_json::Value;

/// The folder of the schemas; `None`, said aloud, where it is not there. In CI that is a failure.
fn schemas() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors/schemas");
    if folder.is_dir() {
        return Some(folder);
    }
    missing("the schemas of other systems are not there");
    None
}

fn missing(what: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{what}");
    println!("skipped: {what}");
}

/// Every exported configuration of this name, with its path.
fn exported(name: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/export");
    let cases = std::fs::read_dir(folder).expect("the cases are there").map(|case| case.expect("an entry").path());
    let mut found: Vec<_> = cases
        .map(|case| case.join(name))
        .map(|path| (path.clone(), std::fs::read_to_string(path).expect("a case has all systems")))
        .collect();
    found.sort();
    assert!(found.len() >= 3, "the cases are there");
    found
}

#[test]
fn github_understands_every_key() {
    let Some(schemas) = schemas() else { return };
    let text = std::fs::read_to_string(schemas.join("gha_workflow-v1.0.json")).expect("GitHub's schema");
    let schema: Value = serde_json::from_str(&text).expect("it is JSON");
    let definitions = &schema["definitions"];
    for (path, text) in exported("github.yml") {
        assert_eq!(faults(definitions, &text), [""; 0], "{}", path.display());
    }
    // It does find what is wrong.
    let wrong = "on: push\njobs:\n  a:\n    runs_on: x\n    steps:\n      - run: true\n        shel: sh\n";
    assert_eq!(
        faults(definitions, wrong),
        ["jobs.a.runs_on: unknown key", "jobs.a.steps.0.shel: unknown key", "jobs.a: no `runs-on`"]
    );
}

fn faults(definitions: &Value, text: &str) -> Vec<String> {
    let (root, _) = Sources::new().read("github.yml", text.as_bytes(), Notation::Yaml, &Rules::NATIVE);
    let mut faults = Vec::new();
    check(definitions, "workflow-root-strict", &root.expect("it is YAML"), "", &mut faults);
    faults
}

/// Compares a node with a definition; a text that is one expression may stand for anything.
fn check(definitions: &Value, name: &str, node: &Node, at: &str, faults: &mut Vec<String>) {
    let definition = match name {
        "any" => return,
        "mapping" | "sequence" | "string" | "boolean" | "number" | "null" => &serde_json::json!({ name: {} }),
        _ => &definitions[name],
    };
    assert!(definition.is_object(), "GitHub's schema has no `{name}`");
    if node.as_str().is_some_and(|text| text.trim_start().starts_with("${{") && text.trim_end().ends_with("}}")) {
        return;
    }
    if let Some(names) = definition["one-of"].as_array() {
        let mut best: Option<Vec<String>> = None;
        for name in names {
            let mut found = Vec::new();
            check(definitions, name.as_str().expect("a name"), node, at, &mut found);
            // That which gets furthest into the text tells most.
            let depth = |found: &[String]| found.iter().map(|fault| fault.split(':').next().unwrap_or("").len()).max();
            if best.as_ref().is_none_or(|best| found.is_empty() || (!best.is_empty() && depth(&found) > depth(best))) {
                best = Some(found);
            }
        }
        return faults.extend(best.unwrap_or_default());
    }
    let fits = match &node.value {
        NodeValue::Mapping(_) if definition.get("mapping").is_some() => {
            return check_mapping(definitions, &definition["mapping"], node, at, faults);
        }
        NodeValue::Sequence(items) if definition.get("sequence").is_some() => {
            let item = definition["sequence"]["item-type"].as_str().unwrap_or("any");
            for (index, node) in items.iter().enumerate() {
                check(definitions, item, node, &below(at, &index.to_string()), faults);
            }
            return;
        }
        NodeValue::Mapping(_) | NodeValue::Sequence(_) => false,
        NodeValue::Null => definition.get("null").is_some() || definition.get("string").is_some(),
        NodeValue::Bool(_) => definition.get("boolean").is_some() || definition.get("string").is_some(),
        NodeValue::Integer { .. } | NodeValue::Float { .. } => {
            definition.get("number").is_some() || definition.get("string").is_some()
        }
        NodeValue::String(text) => {
            let string = &definition["string"];
            let is_allowed = definition["allowed-values"]
                .as_array()
                .is_some_and(|values| values.iter().any(|value| value.as_str() == Some(text)));
            let is_constant = string["constant"].as_str().is_none_or(|constant| constant == &**text);
            let is_filled = string["require-non-empty"] != true || !text.is_empty();
            is_allowed || (string.is_object() && is_constant && is_filled)
        }
    };
    if !fits {
        faults.push(format!("{at}: no {name}"));
    }
}

fn check_mapping(definitions: &Value, mapping: &Value, node: &Node, at: &str, faults: &mut Vec<String>) {
    let type_of = |property: &Value| {
        let name = property.as_str().or_else(|| property["type"].as_str());
        name.expect("a property has a type").to_owned()
    };
    for entry in node.entries().unwrap_or_default() {
        let key = entry.name().unwrap_or_default();
        let at = below(at, key);
        match (mapping["properties"].get(key), mapping["loose-value-type"].as_str()) {
            (Some(property), _) => check(definitions, &type_of(property), &entry.value, &at, faults),
            (None, Some(value)) => check(definitions, value, &entry.value, &at, faults),
            (None, None) if mapping.get("properties").is_none() => {}
            (None, None) => faults.push(format!("{at}: unknown key")),
        }
    }
    for (key, property) in mapping["properties"].as_object().into_iter().flatten() {
        if property["required"] == true && node.get(key).is_none() {
            faults.push(format!("{at}: no `{key}`"));
        }
    }
}

fn below(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}

#[test]
fn editors_understand_every_key() {
    let Some(schemas) = schemas() else { return };
    let checker = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/check-jsonschema/bin/check-jsonschema");
    if !checker.exists() {
        assert!(std::env::var_os("CI").is_none(), "check-jsonschema is missing: `cargo xtask test` installs it");
        println!("skipped: check-jsonschema is not in target/check-jsonschema; `cargo xtask test` installs it");
        return;
    }
    let file = |name: &str| ["--schemafile".into(), schemas.join(name).into_os_string()];
    // The checker carries SchemaStore's schema of workflows.
    let carried = ["--builtin-schema".into(), "vendor.github-workflows".into()];
    for (name, schema) in [
        ("github.yml", carried),
        ("gitlab.yml", file("gitlab_ci.schema.json")),
        ("buildkite.yml", file("buildkite.schema.json")),
    ] {
        let paths = exported(name).into_iter().map(|(path, _)| path);
        let output = Command::new(&checker).args(schema).args(paths).output().expect("it starts");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{name}:\n{}", String::from_utf8_lossy(&said));
    }
}
