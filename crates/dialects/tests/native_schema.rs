//! The JSON Schema of the native format against documents: it takes what the reader takes, and refuses what the reader
//! refuses by its shape alone.
//!
//! They are checked by the program `check-jsonschema`, which `cargo xtask test` installs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use graph::{Event, EventKind, Known};
use ropewalk_dialects::native::{self, SourceFile};
use ropewalk_dialects::tree::{Node, NodeValue, Notation, Rules, Sources};
use serde_json::{Value, json};

/// Jobs and pipelines that the reader refuses whatever an expression or another job says.
fn wrong() -> Vec<Value> {
    let jobs = [
        json!({ "matrix": "linux" }),
        json!({ "matrix": 1 }),
        json!({ "matrix": { "os": "linux" } }),
        json!({ "matrix": { "os": 1 } }),
        json!({ "matrix": { "os": ["linux"], "include": "linux" } }),
        json!({ "matrix": { "os": ["linux"], "exclude": true } }),
        json!({ "environment": {} }),
        json!({ "environment": null }),
        json!({ "environment": { "network": "off" } }),
        json!({ "environment": { "image": "a", "nix": "." } }),
        json!({ "resources": { "memory": 0 } }),
        json!({ "resources": { "memory": -1 } }),
        json!({ "resources": { "memory": "0MiB" } }),
    ];
    jobs.into_iter().map(pipeline).chain([json!({ "defaults": { "environment": null }, "jobs": {} })]).collect()
}

/// The same keys with what they take.
fn right() -> Vec<Value> {
    let jobs = [
        json!({ "matrix": "${{ fromJSON('{\"os\": [1]}') }}" }),
        json!({ "matrix": { "os": "${{ fromJSON('[1]') }}", "include": "${{ fromJSON('[{\"os\": 2}]') }}" } }),
        json!({ "matrix": { "os": ["linux", 1], "exclude": [{ "os": 1 }] } }),
        json!({ "matrix": null }),
        json!({ "environment": "sandbox" }),
        json!({ "environment": { "sandbox": null } }),
        json!({ "environment": { "image": "a", "network": "off" } }),
        json!({ "resources": { "memory": 1 } }),
        json!({ "resources": { "memory": "04 MiB" } }),
        json!({ "resources": null }),
    ];
    jobs.into_iter().map(pipeline).collect()
}

/// A pipeline of one job with these keys.
fn pipeline(mut job: Value) -> Value {
    job["run"] = json!("make");
    json!({ "jobs": { "a": job } })
}

/// Every file of the golden cases in which the reader finds no error, as it reads them; but those in EDN, whose words are
/// spelled with dashes.
fn golden() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/native");
    let mut found = Vec::new();
    for case in std::fs::read_dir(folder).expect("the cases are there") {
        let case = case.expect("an entry").path();
        let read = |name: &str| Some(SourceFile::new(name, std::fs::read(case.join(name)).ok()?));
        let names = ["pipeline.yaml", "pipeline.json", "pipeline.edn", "pipeline.toml"];
        let files: Vec<SourceFile> = names.into_iter().filter_map(read).collect();
        if is_taken(&files) {
            let of_schema = files.iter().filter(|file| file.notation != Notation::Edn);
            found.extend(of_schema.map(|file| {
                let (root, _) = Sources::new().read(&file.name, &file.text, file.notation, &Rules::NATIVE);
                value(&root.expect("it was read"))
            }));
        }
    }
    assert!(found.len() > 30, "the cases are there");
    found
}

fn is_taken(files: &[SourceFile]) -> bool {
    let push = Event { branch: Some("main".to_owned()), ..Event::new(EventKind::Push) };
    !native::lower(files, &Known::of(push)).is_wrong()
}

fn value(node: &Node) -> Value {
    match &node.value {
        NodeValue::Null => Value::Null,
        NodeValue::Bool(flag) => json!(flag),
        NodeValue::Integer { value, .. } => json!(value),
        NodeValue::Float { value, .. } => json!(value),
        NodeValue::String(text) => json!(&**text),
        NodeValue::Sequence(items) => items.iter().map(value).collect(),
        NodeValue::Mapping(entries) => {
            let named = |entry: &ropewalk_dialects::tree::Entry| {
                (entry.name().expect("names are texts").to_owned(), value(&entry.value))
            };
            Value::Object(entries.iter().map(named).collect())
        }
    }
}

#[test]
fn it_takes_what_the_reader_takes() {
    let as_read = |document: &Value| is_taken(&[SourceFile::new("pipeline.json", document.to_string())]);
    let (right, wrong) = (right(), wrong());
    for document in &right {
        assert!(as_read(document), "{document}");
    }
    for document in &wrong {
        assert!(!as_read(document), "{document}");
    }

    let checker = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/check-jsonschema/bin/check-jsonschema");
    if !checker.exists() {
        assert!(std::env::var_os("CI").is_none(), "check-jsonschema is missing: `cargo xtask test` installs it");
        println!("skipped: check-jsonschema is not in target/check-jsonschema; `cargo xtask test` installs it");
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("native_schema-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the documents");
    let written = |name: &str, documents: Vec<Value>| -> Vec<PathBuf> {
        let write = |(index, document): (usize, Value)| {
            let path = folder.join(format!("{name}{index}.json"));
            std::fs::write(&path, document.to_string()).expect("a document is written");
            path
        };
        documents.into_iter().enumerate().map(write).collect()
    };
    let right = written("right", right.into_iter().chain(golden()).collect());
    let wrong = written("wrong", wrong);
    assert_eq!(refused(&checker, &right), BTreeSet::new());
    assert_eq!(refused(&checker, &wrong), wrong.into_iter().collect());
    std::fs::remove_dir_all(&folder).expect("the documents are removed");
}

/// Those of the documents that the schema does not take.
fn refused(checker: &Path, documents: &[PathBuf]) -> BTreeSet<PathBuf> {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/pipeline.schema.json");
    let mut command = Command::new(checker);
    let output = command.args(["--output-format", "json", "--schemafile"]).arg(schema).args(documents).output();
    let output = output.expect("it starts");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()))
    });
    assert!(said.get("parse_errors").is_none_or(|errors| *errors == json!([])), "{said}");
    let files = said["errors"].as_array().expect("a list of errors").iter().map(|error| error["filename"].as_str());
    files.map(|file| PathBuf::from(file.expect("an error has a file"))).collect()
}
