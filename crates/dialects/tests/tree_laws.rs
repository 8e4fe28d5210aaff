//! What holds of every reading: the bounds, the sameness of the four notations, and that no bytes do harm.

use std::fmt::Write;

use proptest::prelude::*;
use ropewalk_dialects::report::{self, Color};
use ropewalk_dialects::tree::{
    DuplicateKeys, Feature, Limits, Node, NodeValue, Notation, Rules, Sources, YamlRules, YamlSchema,
};

/// Reads a text within limits; returns the code of the last fault.
fn fault_within(limits: Limits, notation: Notation, text: &str) -> Option<String> {
    let (_, diagnostics) = Sources::new().read("file", text.as_bytes(), notation, &Rules { limits, ..Rules::NATIVE });
    diagnostics.last().map(|diagnostic| diagnostic.code.to_string())
}

fn check_bound(limits: Limits, code: &str, cases: [(Notation, &str, &str); 4]) {
    for (notation, fits, too_much) in cases {
        assert_eq!(fault_within(limits, notation, fits), None, "{fits}");
        assert_eq!(fault_within(limits, notation, too_much).as_deref(), Some(code), "{too_much}");
    }
}

const NOTATIONS: [Notation; 4] = [Notation::Yaml, Notation::Json, Notation::Edn, Notation::Toml];

#[test]
fn bytes_are_bounded() {
    let limits = Limits { bytes_max: 5, ..Limits::DEFAULT };
    let cases = [
        (Notation::Yaml, "[1,2]", "[1, 2]"),
        (Notation::Json, "[1,2]", "[1, 2]"),
        (Notation::Edn, "[1 2]", "[1  2]"),
        (Notation::Toml, "a = 1", "a = 12"),
    ];
    check_bound(limits, "file-too-large", cases);
}

#[test]
fn values_are_bounded() {
    let limits = Limits { nodes_max: 4, ..Limits::DEFAULT };
    let cases = [
        (Notation::Yaml, "[1, 2, 3]", "[1, 2, 3, 4]"),
        (Notation::Json, "[1, 2, 3]", "[1, 2, 3, 4]"),
        (Notation::Edn, "[1 2 3]", "[1 2 3 4]"),
        (Notation::Toml, "a = 1", "a = 1\nb = 2"),
    ];
    check_bound(limits, "too-many-values", cases);
    assert_eq!(fault_within(limits, Notation::Toml, &",".repeat(1_000)).as_deref(), Some("too-many-values"));
}

#[test]
fn depth_is_bounded() {
    let limits = Limits { depth_max: 3, ..Limits::DEFAULT };
    let cases = [
        (Notation::Yaml, "{a: [[1]]}", "{a: [[[1]]]}"),
        (Notation::Json, "{\"a\": [[1]]}", "{\"a\": [[[1]]]}"),
        (Notation::Edn, "{:a [[1]]}", "{:a [[[1]]]}"),
        (Notation::Toml, "a = [[1]]", "a = [[[1]]]"),
    ];
    check_bound(limits, "too-deep", cases);
    for text in ["a.b.c = 1", "[a.b]", "[[a]]", "a = {b.c = 1}", "[a]\nb.c = 1"] {
        assert_eq!(fault_within(limits, Notation::Toml, text), None, "{text}");
    }
    for text in
        ["a.b.c.d = 1", "[a.b.c]", "[[a.b]]", "a = {b.c.d = 1}", "[a]\nb.c.d = 1", "[[a]]\n[a.b]", "[[a]]\nb = []"]
    {
        assert_eq!(fault_within(limits, Notation::Toml, text).as_deref(), Some("too-deep"), "{text}");
    }
    for text in ["#a #b #c #d 1", "#_ #_ #_ #_ 1 2 3 4 5"] {
        assert_eq!(fault_within(limits, Notation::Edn, text).as_deref(), Some("too-deep"), "{text}");
    }
    let through_alias = "a: &x [[1]]\nb: [*x]\n";
    assert_eq!(fault_within(limits, Notation::Yaml, through_alias).as_deref(), Some("too-deep"));
    let much = "[".repeat(1 << 20);
    let of_toml = format!("a = {much}");
    for (notation, text) in NOTATIONS.into_iter().zip([&much, &much, &much, &of_toml]) {
        assert_eq!(fault_within(Limits::DEFAULT, notation, text).as_deref(), Some("too-deep"), "{notation:?}");
    }
}

#[test]
fn aliases_are_bounded() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{aliases}]").unwrap();
    }
    assert_eq!(fault_within(Limits::DEFAULT, Notation::Yaml, &bomb).as_deref(), Some("aliases-too-large"));
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 100].join(", "));
    assert_eq!(fault_within(Limits::DEFAULT, Notation::Yaml, &long).as_deref(), Some("aliases-too-large"));
    let mut ordinary = "d: &d {timeout: 20m, env: {A: 1}}\njobs:\n".to_owned();
    for job in 0..10_000 {
        writeln!(ordinary, "  j{job}: {{<<: *d, run: x}}").unwrap();
    }
    assert_eq!(fault_within(Limits::DEFAULT, Notation::Yaml, &ordinary), None);
}

#[test]
fn hostile_files_are_read_in_linear_time() {
    // Each of these takes hours where a fault costs a walk over its line.
    let count = 150_000;
    let cases = [
        (Notation::Yaml, "duplicate-key", format!("{{{}}}", "a: 1,".repeat(count))),
        (Notation::Yaml, "unknown-anchor", format!("[{}]", "*b ,".repeat(count))),
        (Notation::Yaml, "unknown-tag", format!("[{}]", "!b c,".repeat(count))),
        (Notation::Json, "duplicate-key", format!("{{{}\"a\":1}}", "\"a\":1,".repeat(count))),
        (Notation::Edn, "duplicate-key", format!("{{{}}}", ":a 1 ".repeat(count))),
        (Notation::Toml, "duplicate-key", format!("a = {{{}}}", "b=1,".repeat(count))),
        (Notation::Toml, "toml-syntax", "a = b ".repeat(count)),
    ];
    for (notation, code, text) in cases {
        let (_, diagnostics) = Sources::new().read("file", text.as_bytes(), notation, &Rules::NATIVE);
        assert_eq!(diagnostics[0].code, code, "{notation:?}");
        assert!(diagnostics.len() <= Limits::DEFAULT.diagnostics_max + 1);
    }
}

const YAML: &str = r#"
name: release
count: 3
ratio: 1.5
dry: false
nothing: null
jobs:
  build:
    run: ["cargo build", "cargo test"]
    working_directory: "sub dir"
    env: { "A-B": "é\n\"x\"" }
  deploy:
    needs: [build]
    matrix: [{ os: linux, shard: 1 }, { os: mac, shard: -2 }]
    empty: {}
"#;
const JSON: &str = r#"{"name": "release", "count": 3, "ratio": 15e-1, "dry": false, "nothing": null, "jobs": {
  "build": {"run": ["cargo build", "cargo test"], "working_directory": "sub dir", "env": {"A-B": "\u00e9\n\"x\""}},
  "deploy": {"needs": ["build"], "matrix": [{"os": "linux", "shard": 1}, {"os": "mac", "shard": -2}], "empty": {}}}}"#;
const EDN: &str = r#"{:name "release", :count 3, :ratio 1.5M, :dry false, :nothing nil, :jobs {
  :build {:run ["cargo build" "cargo test"] :working-directory "sub dir" :env {"A-B" "\u00e9\n\"x\""}}
  :deploy {:needs [:build] :matrix [{:os linux :shard 1} {:os :mac, :shard -2}] #_ :gone :empty {}}}} ; end"#;
const TOML: &str = r#"
name = "release"
count = 3
ratio = 1.5
dry = false
nothing = "NULL"
[jobs.build]
run = ["cargo build", 'cargo test']
working_directory = "sub dir"
env."A-B" = "\u00e9\n\"x\""
[jobs.deploy]
needs = ["build"]
[[jobs.deploy.matrix]]
os = "linux"
shard = 1
[[jobs.deploy.matrix]]
os = "mac"
shard = -2
[jobs.deploy.empty]
"#;

#[test]
fn four_notations_are_one_tree() {
    let read = |notation, text: &str| {
        let (node, diagnostics) = Sources::new().read("file", text.as_bytes(), notation, &Rules::NATIVE);
        assert_eq!(diagnostics, [], "{notation:?}");
        node.expect("a text without faults has a tree")
    };
    let yaml = read(Notation::Yaml, YAML);
    for (notation, text) in [(Notation::Json, JSON), (Notation::Edn, EDN)] {
        let other = read(notation, text);
        assert!(yaml.same_value(&other), "{notation:?}: {other:#?}\nis not\n{yaml:#?}");
    }
    // TOML has no null: the others say a word there.
    let toml = read(Notation::Toml, TOML);
    let said = read(Notation::Yaml, &YAML.replace("nothing: null", "nothing: 'NULL'"));
    assert!(said.same_value(&toml), "TOML: {toml:#?}\nis not\n{said:#?}");
    assert!(!yaml.same_value(&toml));
}

/// The laws of any reading: every place lies in the text, on characters; every fault has words; no tree only with a
/// fault; the bounds hold; and what is shown commands no terminal.
fn check_laws(notation: Notation, rules: &Rules, bytes: &[u8]) {
    let mut sources = Sources::new();
    let (node, diagnostics) = sources.read("file", bytes, notation, rules);
    assert!(node.is_some() || !diagnostics.is_empty());
    assert!(diagnostics.len() <= rules.limits.diagnostics_max + 1);
    for diagnostic in &diagnostics {
        assert!(!diagnostic.message.is_empty() && !diagnostic.help.is_empty());
        for location in diagnostic.location.iter().chain(diagnostic.related.iter().map(|(location, _)| location)) {
            assert!(location.line >= 1 && location.column >= 1 && location.start <= location.end);
        }
    }
    let mut nodes: Vec<_> = node.iter().map(|node| (node, 0)).collect();
    let mut count = 0;
    while let Some((node, depth)) = nodes.pop() {
        let _ = (sources.text(node.span), sources.start(node.span), sources.end(node.span));
        count += 1;
        assert!(depth <= rules.limits.depth_max, "{depth} deep: {}", bytes.escape_ascii());
        nodes.extend(node.items().unwrap_or_default().iter().map(|item| (item, depth + 1)));
        let entries = node.entries().unwrap_or_default();
        nodes.extend(entries.iter().flat_map(|entry| [(&entry.key, depth + 1), (&entry.value, depth + 1)]));
    }
    assert!(count <= rules.limits.nodes_max, "{count} values");
    let shown = report::text(&diagnostics, &sources, Color::Never);
    assert!(shown.chars().all(|character| character == '\n' || !character.is_control()), "{shown:?}");
    serde_json::from_str::<serde_json::Value>(&report::json(&diagnostics)).unwrap();
    serde_json::from_str::<serde_json::Value>(&report::sarif(&diagnostics, &sources, "1.0.0")).unwrap();
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let feature = || prop_oneof![Just(Feature::Allowed), Just(Feature::Refused)];
    let schema = prop_oneof![Just(YamlSchema::Core12), Just(YamlSchema::Core11)];
    let duplicate_keys = prop_oneof![Just(DuplicateKeys::Error), Just(DuplicateKeys::LastWins)];
    let small = Limits { nodes_max: 20, alias_weight_max: 10, depth_max: 4, diagnostics_max: 2, ..Limits::DEFAULT };
    let limits = prop_oneof![Just(Limits::DEFAULT), Just(small)];
    (schema, duplicate_keys, feature(), feature(), feature(), feature(), limits).prop_map(
        |(schema, duplicate_keys, merge_keys, anchors, custom_tags, documents, limits)| Rules {
            yaml: YamlRules { schema, duplicate_keys, merge_keys, anchors, custom_tags, documents },
            limits,
        },
    )
}

/// A valid file with some bytes put in or taken out.
fn mutated() -> impl Strategy<Value = (Notation, Vec<u8>)> {
    let anchors = "a: &a {b: 1, c: [x, *a]}\nd:\n  <<: [*a, {e: 2}]\n  f: !t |\n    text\n---\n? g\n: *a\n";
    let source = prop_oneof![
        Just((Notation::Yaml, YAML)),
        Just((Notation::Yaml, anchors)),
        Just((Notation::Json, JSON)),
        Just((Notation::Edn, EDN)),
        Just((Notation::Toml, TOML)),
    ];
    let sign = prop::sample::select(b"\n\t \"'[]{}():,.#&*!|>-+=\\_~;0x9a\xc3\xa9".to_vec());
    let edit = (any::<prop::sample::Index>(), 0_usize..12, prop::collection::vec(sign, 0..4));
    (source, prop::collection::vec(edit, 1..6)).prop_map(|((notation, text), edits)| {
        let mut bytes = text.as_bytes().to_vec();
        for (index, removed, put) in edits {
            let start = index.index(bytes.len() + 1);
            let end = (start + removed).min(bytes.len());
            bytes.splice(start..end, put);
        }
        (notation, bytes)
    })
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn to_json(node: &Node) -> serde_json::Value {
    match &node.value {
        NodeValue::Null => serde_json::Value::Null,
        NodeValue::Bool(value) => (*value).into(),
        NodeValue::Integer { value, .. } => (*value).into(),
        NodeValue::Float { value, .. } => (*value).into(),
        NodeValue::String(text) => (&**text).into(),
        NodeValue::Sequence(items) => items.iter().map(to_json).collect(),
        NodeValue::Mapping(entries) => {
            let entry = |entry: &ropewalk_dialects::tree::Entry| {
                (entry.key.as_str().unwrap().to_owned(), to_json(&entry.value))
            };
            entries.iter().map(entry).collect()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200), rules in any_rules()) {
        NOTATIONS.into_iter().for_each(|notation| check_laws(notation, &rules, &bytes));
    }

    #[test]
    fn any_signs_are_read(text in "[\\[\\]{}():,.#&*!|>\"'=\\\\_~;0-9a-c<\\- \n\té]{0,120}", rules in any_rules()) {
        NOTATIONS.into_iter().for_each(|notation| check_laws(notation, &rules, text.as_bytes()));
    }

    #[test]
    fn mutated_files_are_read((notation, bytes) in mutated(), rules in any_rules()) {
        check_laws(notation, &rules, &bytes);
    }

    #[test]
    fn json_is_read_as_serde_reads_it(value in any_json()) {
        let (node, diagnostics) = Sources::new().read("file", value.to_string().as_bytes(), Notation::Json, &Rules::NATIVE);
        prop_assert_eq!(diagnostics, vec![]);
        prop_assert_eq!(to_json(&node.unwrap()), value);
    }
}
