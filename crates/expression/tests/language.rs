//! What the vectors leave open: templates, conditions, what an expression names, and the bounds.

use ropewalk_expression::limits::{EXPRESSION_LENGTH_MAX, FAULTS_MAX, TEMPLATE_EXPRESSIONS_MAX};
use ropewalk_expression::{
    CallError, Condition, ContextPath, Contexts, Environment, Error, ErrorKind, Limits, Object, Scope, Segment,
    Template, Value, parse,
};

fn contexts() -> Contexts {
    let github = r#"{"event_name": "push", "event": {"labels": [{"name": "a"}, {"name": "b"}]}}"#;
    Contexts::new()
        .with("github", Value::from_json(github).unwrap())
        .with("matrix", Value::from_json(r#"{"os": "linux", "version": 1.50}"#).unwrap())
        .with_function("success", |_| Ok(true.into()))
        .with_function("failure", |_| Ok(false.into()))
        .with_function("hashFiles", |patterns| match patterns {
            [Value::String(pattern)] => Ok(format!("hash of {pattern}").into()),
            _ => Err(CallError::Failed("one pattern, please".into())),
        })
}

/// An error as `Kind start..end message`.
fn shown(error: Error) -> String {
    format!("{:?} {:?} {}", error.kind, error.range, error.message)
}

#[track_caller]
fn check_expression(text: &str, expected: &str) {
    let got = parse(text).and_then(|expression| expression.evaluate(&contexts()));
    assert_eq!(got.map_or_else(shown, |value| value.to_text().into_owned()), expected, "{text}");
}

#[track_caller]
fn check_template(text: &str, expected: &str) {
    let got = Template::parse(text).and_then(|template| template.evaluate(&contexts()));
    assert_eq!(got.unwrap_or_else(shown), expected, "{text}");
}

#[track_caller]
fn check_condition(text: &str, expected: &str) {
    let got = Condition::parse(text).and_then(|condition| condition.is_met(&contexts()));
    assert_eq!(got.map_or_else(shown, |is_met| is_met.to_string()), expected, "{text}");
}

#[track_caller]
fn check_paths(text: &str, expected: &str) {
    let paths = parse(text).unwrap().context_paths();
    let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
    assert_eq!(paths.join(" "), expected, "{text}");
}

#[test]
fn templates() {
    check_template("", "");
    check_template("plain $ { } }} text", "plain $ { } }} text");
    check_template("${{ matrix.os }}", "linux");
    check_template("${{matrix.os}}-${{ matrix.version }}!", "linux-1.5!");
    check_template("${{ github.event }}", "Object");
    check_template("a${{ null }}b", "ab");
    check_template("${{ '}}' }}", "}}");
    check_template("${{ '${{' }} ${{ 'it''s }}' }}", "${{ it's }}");
    check_template("${{ 'ü' }}ü", "üü");
}

#[test]
fn template_errors() {
    let unclosed =
        "The expression is not closed. An unescaped ${{ sequence was found, but the closing }} sequence was not found.";
    check_template("a ${{ b", &format!("Lex 2..7 {unclosed}"));
    check_template("a ${{ 'b }}", &format!("Lex 2..11 {unclosed}"));
    check_template("a ${{ b }", &format!("Lex 2..9 {unclosed}"));
    check_template("${{}}", "Parse 0..5 An expression was expected");
    check_template("x ${{   }}", "Parse 2..10 An expression was expected");
    check_template(
        "ü${{  1 + 2 }}",
        "Lex 9..10 Unexpected symbol: '+'. Located at position 3 within expression: 1 + 2",
    );
    check_template(
        "é ${{ secrets.a }}",
        "Evaluate 7..14 Unrecognized named-value: 'secrets'. Located at position 1 within expression: secrets.a",
    );
    let many = "${{ 1 }}".repeat(TEMPLATE_EXPRESSIONS_MAX + 1);
    assert_eq!(Template::parse(&many).unwrap_err().kind, ErrorKind::Limit);
    assert!(Template::parse(&many[8..]).is_ok());
}

#[test]
fn a_single_expression_keeps_its_kind() {
    let value = |text| Template::parse(text).unwrap().evaluate_value(&contexts()).unwrap().to_json().to_string();
    assert_eq!(value("${{ fromJSON('[1]') }}"), "[1]");
    assert_eq!(value("${{ 1 }}"), "1");
    assert_eq!(value(" ${{ 1 }}"), "\" 1\"");
    assert_eq!(value("1"), "\"1\"");
}

#[test]
fn conditions() {
    check_condition("", "true");
    check_condition(" \n", "true");
    check_condition("github.event_name == 'push'", "true");
    check_condition(" ${{ github.event_name == 'pull' }} ", "false");
    check_condition("failure()", "false");
    check_condition("!failure()", "true");
    check_condition("  1 +", "Lex 4..5 Unexpected symbol: '+'. Located at position 3 within expression: 1 +");
    check_condition(
        " ${{  a.b }}",
        "Evaluate 6..7 Unrecognized named-value: 'a'. Located at position 1 within expression: a.b",
    );
    check_condition("always()", "Evaluate 0..8 The function 'always' is not available here");
    // A string that is not empty, as on GitHub.
    check_condition("${{ false }} && false", "true");
    assert!(Condition::parse("${{ false }} && false").unwrap().is_text());
    assert!(!Condition::parse(" ${{ false }}\n").unwrap().is_text());
}

#[test]
fn success_is_implied_unless_a_status_function_is_called() {
    let failed = Contexts::new().with_function("success", |_| Ok(false.into()));
    let is_met = |text| Condition::parse(text).unwrap().is_met(&failed).unwrap();
    assert!(!is_met("true"));
    assert!(!is_met(""));
    assert!(is_met("true || ALWAYS()"));
    assert!(is_met("${{ !success() }}"));
    assert!(Condition::parse("true").unwrap().is_true(&failed).unwrap());
}

#[test]
fn names() {
    check_paths("1 == 'a'", "");
    check_paths("toJSON(needs)", "needs");
    check_paths("Needs.Build.outputs['ver-sion'] || matrix.os", "needs.Build.outputs.ver-sion matrix.os");
    check_paths("needs.*.result", "needs.*.result");
    check_paths("a[b.c].d[0][*]", "a[?].d.0.* b.c");
    check_paths("fromJSON(a.b).c[d]", "a.b d");
    check_paths("(!a.b && c) > d", "a.b c d");
    let expression = parse("tojson(1) && HASHFILES('x') || hash_files('x') || toJSON(2)").unwrap();
    assert_eq!(expression.functions(), ["hashFiles", "hash_files", "toJSON"]);
    assert!(!expression.calls_status_function());
    assert_eq!(Template::parse("${{ a.b }}${{ c }}").unwrap().context_paths()[1].to_string(), "c");
}

#[test]
fn functions_of_the_environment() {
    check_expression("hashFiles('*.rs')", "hash of *.rs");
    check_expression("hashfiles('a', 'b')", "Evaluate 0..19 The function 'hashFiles' failed: one pattern, please");
    check_expression("cancelled()", "Evaluate 0..11 The function 'cancelled' is not available here");
    let arity = "Too few parameters supplied: 'hashFiles'. Located at position 1 within expression: hashFiles()";
    check_expression("hashFiles()", &format!("Parse 0..9 {arity}"));
}

#[test]
fn corners_of_the_language() {
    check_expression("fromJSON('[0,1]')[1.9]", "1");
    check_expression("toJSON((github.event.labels.*.name)[0])", "[]");
    check_expression("case(true, github.event.labels.*, 1).name == 1", "false");
    check_expression("join(case(true, github.event.labels.*, 1).name)", "a,b");
    check_expression("fromJSON('{\"*\": 7}')[* && '*']", "7");
    check_expression("toJSON('\u{85}\u{2028}\u{7f}\u{1}ü')", "\"\\u0085\\u2028\u{7f}\\u0001ü\"");
    check_expression("fromJSON('{\"a\": 1, \"b\": 2, \"A\": 3}').a", "3");
    check_expression("'infinity' == Infinity", "true");
    check_expression("'ſ' == 's'", "false");
    check_expression("'ᾀ' == 'ᾈ'", "true");
    check_expression("'\u{ffff}' < '😊'", "false");
    check_expression(
        "format('{0:x}', 1)",
        "Evaluate 0..18 The format specifiers 'x' are not valid for objects of type 'Number'",
    );
    check_expression(
        "format('{0:a}}b}', 1)",
        "Evaluate 0..21 The format specifiers 'a}b' are not valid for objects of type 'Number'",
    );
    check_expression("format('{256}', 1)", "Evaluate 0..18 The following format string is invalid: {256}");
    check_expression("format('{0} {', a)", "Evaluate 0..18 The following format string is invalid: {0} {");
    check_expression("'a'.b", "Parse 3..4 Unexpected symbol: '.'. Located at position 4 within expression: 'a'.b");
    check_expression(
        "True",
        "Evaluate 0..4 Unrecognized named-value: 'True'. Located at position 1 within expression: True",
    );
    let json = parse("fromJSON('[1')").unwrap().evaluate(&contexts()).unwrap_err();
    assert_eq!((json.kind, json.range), (ErrorKind::Evaluate, 0..14));
}

#[test]
fn names_of_objects() {
    let entries = |count: usize| (0..count).map(|n| (format!("Key{n}").into(), Value::from(n as f64)));
    for count in [3, 300] {
        let object = Object::new(entries(count));
        assert_eq!(object.get("kEY2").map(Value::to_number), Some(2.0), "{count} entries");
        assert_eq!(object.entries().len(), count);
        let exact = Object::with_exact_names(entries(count));
        assert!(exact.get("kEY2").is_none() && exact.get("Key2").is_some(), "{count} entries");
        let twice = Object::new(entries(count).chain([("KEY0".into(), Value::Null)]));
        assert_eq!((twice.entries().len(), twice.entries()[0].1.kind().to_string().as_str()), (count, "Null"));
    }
}

/// What stands wrong in a text, each with its first byte; and what of it can be read all the same.
fn faults_and_reads(text: &str, faults: &[Error], paths: &[ContextPath]) -> String {
    let fault = |error: &Error| format!("{} {}", error.offset(), &text[error.range.clone()]);
    let faults: Vec<String> = faults.iter().map(fault).collect();
    let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
    format!("{}; reads {}", faults.join(", "), paths.join(", "))
}

#[test]
fn reading_goes_on_behind_every_fault() {
    let scope = Scope { contexts: Some(&["matrix", "needs"]), functions: &[] };
    let check = |text: &str, expected: &str| {
        let (template, faults) = Template::read(text, &scope);
        assert_eq!(faults_and_reads(text, &faults, &template.context_paths()), expected, "{text}");
        assert_eq!(Template::parse_in(text, &scope).err().as_ref(), faults.first(), "{text}");
        let covered: String = template.segments().iter().map(|segment| &text[range(segment)]).collect();
        assert_eq!(covered, text);
    };
    check("x ${{ matrix.a }} y", "; reads matrix.a");
    check(
        "${{ bad.a }} ${{ needs.n }} ${{ nofun(matrix.b, other.c) }}",
        "4 bad, 32 nofun, 48 other; reads bad.a, needs.n, matrix.b, other.c",
    );
    check("${{ 1 + }} ${{ }} ${{ format() || matrix.a }}", "6 +, 11 ${{ }}, 22 format; reads matrix.a");
    check("${{ bad.a || (1 }} ${{ matrix.a }} ${{ x.b", "4 bad, 14 1, 35 ${{ x.b; reads matrix.a");

    let check = |text: &str, expected: &str| {
        let (condition, faults) = Condition::read(text, &scope);
        assert_eq!(faults_and_reads(text, &faults, &condition.context_paths()), expected, "{text}");
        assert_eq!(Condition::parse_in(text, &scope).err().as_ref(), faults.first(), "{text}");
    };
    check(" bad.k || nofun() && matrix.a", "1 bad, 10 nofun; reads bad.k, matrix.a");
    check(" ${{ bad.k || needs.a }}", "5 bad; reads bad.k, needs.a");
    check("matrix.a ||", "9 ||; reads ");
}

fn range(segment: &Segment) -> std::ops::Range<usize> {
    match segment {
        Segment::Text { range, .. } | Segment::Expression { range, .. } => range.clone(),
    }
}

#[test]
fn faults_are_bounded() {
    let scope = Scope { contexts: Some(&[]), functions: &[] };
    for text in ["${{ bad }}".repeat(900), format!("${{{{ {} }}}}", ["bad"; 2_000].join("||"))] {
        let (template, faults) = Template::read(&text, &scope);
        assert_eq!((faults.len(), template.segments().is_empty()), (FAULTS_MAX, false));
    }
}

#[track_caller]
fn check_limit(text: &str, environment: &dyn Environment, limits: Limits) {
    let got = parse(text).and_then(|expression| expression.evaluate_within(environment, limits));
    assert_eq!(got.map_err(|error| error.kind).map(|value| value.kind()), Err(ErrorKind::Limit), "{text:.100}");
}

#[test]
fn bounds() {
    let big = Value::from("x".repeat(4_000_000));
    let list = Value::array(vec![Value::Null; 100_000]);
    let contexts = Contexts::new().with("big", big).with("list", list);
    let limits = Limits::default();
    let few_steps = Limits { steps_max: 150_000, ..limits };
    check_limit("format('{0}{0}{0}{0}', big)", &contexts, limits);
    check_limit(&format!("join(list, '{}')", "y".repeat(200)), &contexts, limits);
    check_limit("toJSON(format('{0}', big)) == toJSON(format('{0}', big))", &contexts, limits);
    check_limit(
        "fromJSON(format('[{0}]', join(list, '0,')))",
        &contexts,
        Limits { memory_bytes_max: 1 << 20, ..limits },
    );
    let repeated = vec!["contains(big, 'y')"; 200].join(" || ");
    check_limit(&repeated, &contexts, few_steps);
    let compared = vec!["contains(list, 1)"; 60].join(" || ");
    check_limit(&compared, &contexts, few_steps);
    check_limit(&vec!["list.*"; 100].join(" && "), &contexts, limits);
    // What a call's arguments needed is given back: each side alone fits.
    let text =
        "startsWith(format('{0}', big), 'y') || endsWith(format('{0}', big), 'y') || contains(format('{0}', big), 'x')";
    let value = parse(text).unwrap().evaluate(&contexts).unwrap();
    assert_eq!(value.to_text(), "true");

    let template = Template::parse(&"${{ contains(big, 'y') }}".repeat(100)).unwrap();
    assert_eq!(template.evaluate_within(&contexts, few_steps).unwrap_err().kind, ErrorKind::Limit);

    let longest = format!("{}1", " ".repeat(EXPRESSION_LENGTH_MAX - 1));
    assert!(parse(&longest).is_ok());
    assert_eq!(parse(&(longest + " ")).unwrap_err().kind, ErrorKind::Limit);
    assert!(parse(&format!("'{}'", "ü".repeat(EXPRESSION_LENGTH_MAX - 2))).is_ok());
}

#[test]
fn depth_counts_nodes_not_parentheses() {
    let nested = |open: &str, close: &str, count: usize| format!("{}1{}", open.repeat(count), close.repeat(count));
    assert!(parse(&nested("(", ")", 10_000)).is_ok());
    assert!(parse(&nested("1 && (", ")", 2_000)).is_ok());
    assert!(parse(&nested("!", "", 49)).is_ok());
    assert_eq!(parse(&nested("!", "", 20_000)).unwrap_err().kind, ErrorKind::Limit);
    assert_eq!(parse(&nested("fromJSON(", ")", 2_000)).unwrap_err().kind, ErrorKind::Limit);
    assert_eq!(parse(&format!("1{}", "<1".repeat(10_000))).unwrap_err().kind, ErrorKind::Limit);
    assert_eq!(parse(&"a[".repeat(10_000)).unwrap_err().kind, ErrorKind::Parse);
    let deep = Value::from_json(&format!("{}{}", "[".repeat(20_000), "]".repeat(20_000)));
    assert_eq!(deep.unwrap_err().kind, ErrorKind::Evaluate);
}
