//! What the four readers make of a text: the tree, its places, and the faults.

use std::fmt::Write;

use ropewalk_dialects::tree::{
    DuplicateKeys, Feature, Limits, Node, NodeValue, Notation, Rules, Sources, Style, YamlRules, YamlSchema,
};

/// Reads a text and writes down everything that is observable of the result, one node a line.
fn render(notation: Notation, rules: &Rules, bytes: &[u8]) -> String {
    let mut sources = Sources::new();
    let (node, diagnostics) = sources.read("file", bytes, notation, rules);
    let mut out = String::new();
    if let Some(node) = &node {
        render_node(&sources, node, "", &mut out);
    }
    for diagnostic in diagnostics {
        let place = diagnostic.location.map_or_else(String::new, |location| {
            format!(" at {}:{} {:?}", location.line, location.column, location.start..location.end)
        });
        writeln!(
            out,
            "{}{place}: {} ({}) [{}]",
            diagnostic.code, diagnostic.message, diagnostic.label, diagnostic.help
        )
        .unwrap();
    }
    out
}

fn render_node(sources: &Sources, node: &Node, path: &str, out: &mut String) {
    let mut line = match &node.value {
        NodeValue::Null => "null".to_owned(),
        NodeValue::Bool(value) => format!("{value}"),
        NodeValue::Integer { value, .. } => format!("int {value}"),
        NodeValue::Float { value, .. } => format!("float {value:?}"),
        NodeValue::String(text) => format!("{text:?}"),
        NodeValue::Sequence(items) => format!("list of {}", items.len()),
        NodeValue::Mapping(entries) => format!("map of {}", entries.len()),
    };
    if let Some(tag) = node.tag() {
        write!(line, " tag {tag}").unwrap();
    }
    if let Some(anchor) = node.anchor() {
        write!(line, " anchor {anchor}").unwrap();
    }
    if let Some(alias) = node.alias() {
        write!(line, " by {}", sources.text(alias)).unwrap();
    }
    let text = sources.text(node.span);
    let _ = writeln!(out, "{path}: {line} <{}>", text.escape_debug());
    for (index, item) in node.items().unwrap_or_default().iter().enumerate() {
        render_node(sources, item, &format!("{path}[{index}]"), out);
    }
    for entry in node.entries().unwrap_or_default() {
        let key = entry.name().map_or_else(|| entry.key.kind().to_owned(), str::to_owned);
        let under = sources.text(entry.key.span);
        let path =
            if under == key { format!("{path}.{key}") } else { format!("{path}.{key}<{}>", under.escape_debug()) };
        render_node(sources, &entry.value, &path, out);
    }
}

/// Reads every text by the native rules and compares all results with the snapshot of this name.
fn check(name: &str, notation: Notation, texts: &[&str]) {
    check_rules(name, notation, &Rules::NATIVE, texts);
}

fn check_rules(name: &str, notation: Notation, rules: &Rules, texts: &[&str]) {
    let mut results = String::new();
    for text in texts {
        writeln!(results, "--- {text:?}\n{}", render(notation, rules, text.as_bytes())).unwrap();
    }
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, results);
    });
}

#[test]
fn yaml_shapes_and_places() {
    let block = "a: 1\nb:\n  - x\n  - 'y z'\nc: |\n  text\n  more\nd:\ne: {f: [1, 2], g}\n# end\n";
    let texts = ["", "# c\n", block, "é: ü\nb: 1\n", "? [a, b]\n: c\n", "a: {{ x }}\n", "- - a\n- b"];
    check("yaml_shapes", Notation::Yaml, &texts);
}

#[test]
fn yaml_scalars_are_core_12() {
    let scalars = "[on, no, 1:30, 0o17, 0x1f, 017, 1_000, .inf, null, ~, true, True, 1.10, '1', ! 1, !!str 1]";
    check("yaml_scalars", Notation::Yaml, &[scalars, "on:\n  push:\n"]);
}

#[test]
fn yaml_scalars_may_be_core_11() {
    let yaml = YamlRules { schema: YamlSchema::Core11, ..YamlRules::NATIVE };
    let rules = Rules { yaml, ..Rules::NATIVE };
    check_rules("yaml_scalars_11", Notation::Yaml, &rules, &["[on, no, 1:30, 017, 1_000, 0755, '017']"]);
}

#[test]
fn yaml_anchors_and_merges() {
    let texts = [
        "x: &a {k: 1, l: 2}\ny:\n  <<: *a\n  k: 3\nz: *a\n",
        "x: &a {k: 1}\ny: &b {k: 2, m: 3}\nz:\n  <<: [*a, *b]\n  n: 4\n",
        "a: &x\n  - 1\nb: *x\n",
        "a: &n\nb: *n\n",
        "a: &x 1\nb: &x 2\nc: *x\n",
        "'<<': {a: 1}\n",
        "a: &a*b c\nd: *a*b\n",
    ];
    check("yaml_anchors", Notation::Yaml, &texts);
}

#[test]
fn yaml_faults_of_meaning() {
    let texts = [
        "a: &b [*b]\n",
        "x: *nope",
        "x: &name 1\ny: *nmae\n",
        "a: !ref [1]\nb: !!int x\nc: !!set {a}\nd: !foo\n",
        "a: 1\na: 2\n1: x\n\"1\": y\n",
        "<<: 3\na: 1",
        "<<: {a: 1}\n<<: {b: 1}\n",
        "---\na\n---\nb\n",
    ];
    check("yaml_faults", Notation::Yaml, &texts);
}

#[test]
fn yaml_faults_of_grammar() {
    let texts = [
        "a: b: c\n",
        "a:\n\t- 1\n",
        "a: \"x\n",
        "a: [1, 2\nb: 3\n",
        "a: [1, 2\n",
        "a: [1 2}\n",
        "a: @x\n",
        "a: *\n",
        "a:\n  - b\n c: d\n",
        "a\nb: c\n",
        "a: 'x' y\n",
        "a: \"\\q\"\n",
        "- a\nb: c\n",
        "a: - b\n",
        "a: !x!y z\n",
        "a: \"x\"#c\n",
        "env: {A: ${{ event.branch }}}\n",
        "needs: [ ${{ env.A }} ]\n",
        "needs: [a-${{ env.A }}]\n",
    ];
    check("yaml_syntax", Notation::Yaml, &texts);
}

#[test]
fn yaml_rules_of_other_dialects() {
    let rules = |yaml| Rules { yaml, ..Rules::NATIVE };
    let last_wins = rules(YamlRules { duplicate_keys: DuplicateKeys::LastWins, ..YamlRules::NATIVE });
    check_rules("yaml_last_wins", Notation::Yaml, &last_wins, &["a: 1\nb: 2\na: 3\na: 4\n"]);
    let tags = rules(YamlRules { custom_tags: Feature::Allowed, ..YamlRules::NATIVE });
    check_rules("yaml_custom_tags", Notation::Yaml, &tags, &["a: !reference [b, c]\nb: !x 1\nc: !<tag:x,y> z"]);
    let bare = YamlRules { anchors: Feature::Refused, merge_keys: Feature::Refused, ..YamlRules::NATIVE };
    check_rules("yaml_no_anchors", Notation::Yaml, &rules(bare), &["a: &x 1\nb: *x\nc: *y\n<<: {d: 1}\n"]);
    let documents = rules(YamlRules { documents: Feature::Allowed, ..YamlRules::NATIVE });
    check_rules("yaml_documents", Notation::Yaml, &documents, &["", "a: &x 1\n---\nb: *x\n"]);
}

#[test]
fn json_values() {
    let all = " {\"a\": [1, -2.5e3, true, null, \"x\\u00e9\\n\\ud83d\\ude00\"], \"b\": {}}\n";
    check("json_values", Notation::Json, &["{}", all, "99999999999999999999", "-0", "\u{feff}[]"]);
}

#[test]
fn json_faults() {
    let texts = [
        "",
        "{\"a\":1,}",
        "[1 2]",
        "[1,]",
        "[,1]",
        "{a:1}",
        "{'a':1}",
        "'a'",
        "// x",
        "# x",
        "[01]",
        "[1.]",
        "[.5]",
        "[+1]",
        "[-]",
        "[1e]",
        "\"a\nb\"",
        "\"a\tb\"",
        "\"abc",
        "\"\\ud800x\"",
        "\"\\u12\"",
        "\"\\x\"",
        "\"\\",
        "{\"a\":1,\"a\":2}",
        "[",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{} x",
        "nul",
        "NaN",
        "[1}",
        "é",
    ];
    check("json_faults", Notation::Json, &texts);
}

#[test]
fn edn_values() {
    let all = "{:working-directory \"x\" :a/b-c [:v-w :n/s-t sym \\a \\newline \\u00e9 \\(] \
               \"k-l\" #{1 2}, sy-m (1 +2 -3N 1.5M 1e3 nil true)}";
    let texts = [
        all,
        "#inst \"2020\"",
        "[#_ a #_#_ b c d] ; x",
        "[##Inf ##-Inf ##NaN]",
        "{#uuid \"x\" 1}",
        "\"a\\n\\u00e9\n\"",
    ];
    check("edn_values", Notation::Edn, &texts);
}

#[test]
fn edn_faults() {
    let texts = [
        "",
        "{:a}",
        "{:a 1",
        "(1]",
        "[1/2]",
        "[1",
        "#{1",
        "{:a-b 1 :a_b 2}",
        "#",
        "#foo",
        "##x",
        "\"a\\qb\"",
        "\"a\\u12\"",
        "\"ab",
        "\\",
        ":",
        "::a",
        "012",
        "1x",
        "{} {}",
        "\\foo",
        "'a",
        "#_",
        "[#_]",
        "}",
    ];
    check("edn_faults", Notation::Edn, &texts);
}

#[test]
fn toml_values() {
    let all = "a = 1\nb.c = \"x\"\nb.d = [1, {x = 2, y.z = 3}]\n[t]\nk = 1_000\n[t.u.v]\nf = 1.5\n[[l]]\nn = 1\n[[l]]\n\
               n = 0x1f\n[l.sub]\nd = 2020-01-01\n";
    let texts = ["", all, "a = '''\nx\ny'''\n\"q k\" = inf\n'l' = \"\"\"\\\n  z\"\"\"", "[a.b]\n[a]\nc = true\n"];
    check("toml_values", Notation::Toml, &texts);
}

#[test]
fn toml_faults() {
    let texts = [
        "a = 1\na = 2\n",
        "[a]\n[a]\n",
        "a.b = 1\n[a]\nx = 1\n",
        "[a.b]\n[a]\nb.c = 1\n",
        "a = 1\na.b = 2\n",
        "a = {b = 1}\na.c = 2\n[a.d]\ne = 1\n",
        "a = {b = 1, b = 2}\n",
        "[[a]]\n[a]\n",
        "a = [1]\n[[a]]\n",
        "a = 'x'\n[a.b]\nc = 1",
        "a = \n b = 3\n c d\n",
        "a = [1, 2",
        "a = \"x",
        "a = -0x1\nb = 1__0\nc = yes\n",
        "a = 1 b = 2\n",
        "= 1\n[\n[]\n",
    ];
    check("toml_faults", Notation::Toml, &texts);
}

#[test]
fn faults_are_bounded() {
    let limits = Limits { diagnostics_max: 2, ..Limits::DEFAULT };
    let text = "a: *x\nb: *x\nc: *x\nd: *x\n";
    check_rules("too_many_faults", Notation::Yaml, &Rules { limits, ..Rules::NATIVE }, &[text]);
}

#[test]
fn bytes_that_are_no_text() {
    let mut results = String::new();
    for bytes in [&b"a: \xff\n"[..], b"\xc3\xa9\n  b\xe2\x82", b"\xff\xfea\0:\0", b"\0a"] {
        writeln!(results, "--- {}\n{}", bytes.escape_ascii(), render(Notation::Yaml, &Rules::NATIVE, bytes)).unwrap();
    }
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("not_utf8", results);
    });
}

#[test]
fn notations_are_told_by_the_path() {
    let of = |path: &str| Notation::of_path(path).map(Notation::name);
    assert_eq!(of(".ropewalk/pipeline.yaml"), Some("YAML"));
    assert_eq!(of("a.yml"), Some("YAML"));
    assert_eq!(of("a.json"), Some("JSON"));
    assert_eq!(of("a.edn"), Some("EDN"));
    assert_eq!(of("a.toml"), Some("TOML"));
    assert_eq!(of("a.yaml.txt"), None);
    assert_eq!(of("yaml"), None);
}

#[test]
fn keys_and_kinds() {
    let text = "a: 1\n2: [x]\ntrue: 1.10\nn: ~\n";
    let (node, _) = Sources::new().read("file", text.as_bytes(), Notation::Yaml, &Rules::NATIVE);
    let node = node.unwrap();
    assert_eq!(node.kind(), "a map");
    assert_eq!(node.get("a").and_then(Node::as_integer), Some(1));
    assert_eq!(node.get("2").map(Node::kind), Some("a list"));
    assert_eq!(node.get("true").and_then(Node::scalar_text), Some("1.10"));
    assert_eq!(node.get("true").and_then(Node::as_float), Some(1.1));
    assert!(node.get("n").is_some_and(Node::is_null));
    assert_eq!(node.get("b"), None);
    assert_eq!(node.items(), None);
    assert_eq!(node.style, Style::Indented);
}
