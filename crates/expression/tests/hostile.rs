//! Random bytes and random words: nothing panics, errors point into the text, results keep their bounds.

use proptest::prelude::*;
use ropewalk_expression::{Condition, Contexts, Error, ErrorKind, Limits, Template, Value, parse};

const WORDS: &[&str] = &[
    "(",
    ")",
    "[",
    "]",
    ".",
    ",",
    "*",
    "!",
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "&&",
    "||",
    "=",
    "&",
    "'",
    "''",
    "'a'",
    "'{0}'",
    "'{0:}'",
    "'}'",
    "'[1,{\"a\":2}]'",
    "0",
    "1.5",
    "-1",
    "0x1f",
    ".5",
    "1e400",
    "NaN",
    "Infinity",
    "null",
    "true",
    "false",
    "github",
    "data",
    "a",
    "b-c",
    "_",
    "contains",
    "contains(",
    "startsWith(",
    "endsWith(",
    "format(",
    "join(",
    "toJSON(",
    "fromJSON(",
    "case(",
    "success()",
    "hashFiles(",
    "nothing(",
    " ",
    "\n",
    "ü",
    "😊",
    "\u{feff}",
    "${{",
    "}}",
    "$",
    "{",
    "}",
    "\\",
    "\"",
    "\0",
];

/// Fragments that are legal more often than not, so that evaluation is reached.
const OPERANDS: &[&str] = &[
    "data",
    "data.*",
    "data.*.*",
    "data.list[1]",
    "data['list'][*].a",
    "'x'",
    "'{0}{1}'",
    "'{0}{{'",
    "-0",
    "NaN",
    "null",
    "toJSON(data)",
    "fromJSON(toJSON(data))",
    "join(data.list, data.text)",
    "format('{0}{0}{0}{0}{0}{0}{0}{0}', data.text)",
    "case(true, data.*, 1)",
    "contains(data.list, 'ß')",
    "startsWith(data.text, 'İ')",
    "endsWith('a', data.text)",
    "(1)",
];
const OPERATORS: &[&str] = &[" == ", "!=", "<", "<=", ">", ">=", " && ", " || ", " && !", " == !!"];

fn environment() -> Contexts {
    let data =
        r#"{"list": [1, "ſß", {"a": [null, {"A": 1e300}]}, [[]], true], "text": "Straße İ ı 😊", "": {"*": "star"}}"#;
    Contexts::new()
        .with("data", Value::from_json(data).expect("the data is JSON"))
        .with("github", Value::from_json("{}").expect("the data is JSON"))
        .with_function("success", |arguments| Ok((arguments.len() as f64).into()))
}

const LIMITS: Limits = Limits { memory_bytes_max: 16 * 1024, steps_max: 50_000 };

#[track_caller]
fn check_error(error: &Error, text: &str) {
    assert!(text.get(error.range.clone()).is_some(), "{error:?} does not point into {text:?}");
    assert!(!error.message.is_empty() && !error.cause.is_empty(), "{error:?}");
}

/// Puts a text through everything that reads texts.
fn check(text: &str) {
    let environment = environment();
    match parse(text) {
        Err(error) => {
            check_error(&error, text);
            assert_ne!(error.kind, ErrorKind::Evaluate, "{error:?}");
        }
        Ok(expression) => {
            for path in expression.context_paths() {
                assert!(text.to_ascii_lowercase().contains(&*path.context), "{path} is not in {text:?}");
            }
            match expression.evaluate_within(&environment, LIMITS) {
                Ok(Value::String(result)) => assert!(result.len() <= LIMITS.memory_bytes_max),
                Ok(_) => {}
                Err(error) => {
                    check_error(&error, text);
                    assert!(matches!(error.kind, ErrorKind::Evaluate | ErrorKind::Limit), "{error:?}");
                }
            }
        }
    }
    match Template::parse(text) {
        Err(error) => check_error(&error, text),
        Ok(template) => {
            assert_eq!(template.literal().is_none(), Template::is_needed(text), "{text:?}");
            match template.evaluate_within(&environment, LIMITS) {
                Ok(result) => assert!(result.len() <= LIMITS.memory_bytes_max),
                Err(error) => check_error(&error, text),
            }
        }
    }
    if let Err(error) = Condition::parse(text).and_then(|condition| condition.is_met(&environment)) {
        check_error(&error, text);
    }
    if let Err(error) = Value::from_json(text) {
        check_error(&error, text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn random_words(words in proptest::collection::vec(proptest::sample::select(WORDS), 0..40)) {
        check(&words.concat());
        check(&format!("a ${{{{ {} }}}} b", words.join(" ")));
    }

    #[test]
    fn random_expressions(
        first in proptest::sample::select(OPERANDS),
        rest in proptest::collection::vec((proptest::sample::select(OPERATORS), proptest::sample::select(OPERANDS)), 0..12),
    ) {
        let text = rest.iter().fold(first.to_owned(), |text, (operator, operand)| text + operator + operand);
        prop_assert!(parse(&text).is_ok(), "{text}");
        check(&text);
    }

    #[test]
    fn numbers_survive_text(number in any::<f64>()) {
        let text = Value::Number(number).to_text().into_owned();
        let back = Value::from(text.as_str()).to_number();
        // Fifteen digits.
        prop_assert!(back == number || (back - number).abs() <= number.abs() * 1e-14 || back.is_infinite(), "{number} {text}");
    }

    #[test]
    fn json_survives(text in "[ -~ü]{0,20}", number in -1e9..1e9_f64) {
        let value = Value::object([("a", Value::array(vec![text.as_str().into(), number.into(), Value::Null]))]);
        let environment = Contexts::new().with("v", value.clone());
        let round = parse("fromJSON(toJSON(v))").unwrap().evaluate(&environment).unwrap();
        prop_assert_eq!(round.get("A").map(|array| array.to_json()[0].clone()), Some(text.into()));
    }
}
