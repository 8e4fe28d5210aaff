//! What plain scalars mean: the YAML 1.2 core schema, the YAML 1.1 schema, and the numbers that all notations share.
//!
//! Sources: YAML 1.2.2, 10.3.2 "Tag Resolution"; yaml.org/type (1.1: bool, int, float, null).

use crate::tree::{NodeValue, YamlSchema};

/// The value of a plain scalar under a schema.
pub(crate) fn plain(text: &str, schema: YamlSchema) -> NodeValue {
    let Some(&first) = text.as_bytes().first() else { return NodeValue::Null };
    let value = match first {
        b'0'..=b'9' | b'+' | b'-' | b'.' => number(text, schema),
        b'~' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'y' | b'Y' | b'o' | b'O' => word(text, schema),
        _ => None,
    };
    value.unwrap_or_else(|| NodeValue::String(text.into()))
}

/// Null and the booleans.
fn word(text: &str, schema: YamlSchema) -> Option<NodeValue> {
    match text {
        "null" | "Null" | "NULL" | "~" => return Some(NodeValue::Null),
        "true" | "True" | "TRUE" => return Some(NodeValue::Bool(true)),
        "false" | "False" | "FALSE" => return Some(NodeValue::Bool(false)),
        _ => {}
    }
    match (schema, text) {
        (YamlSchema::Core11, "yes" | "Yes" | "YES" | "on" | "On" | "ON") => Some(NodeValue::Bool(true)),
        (YamlSchema::Core11, "no" | "No" | "NO" | "off" | "Off" | "OFF") => Some(NodeValue::Bool(false)),
        _ => None,
    }
}

/// Integers, floats, infinities and NaN of a schema.
fn number(text: &str, schema: YamlSchema) -> Option<NodeValue> {
    let (negative, digits) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    match digits {
        ".inf" | ".Inf" | ".INF" => {
            let value = if negative { f64::NEG_INFINITY } else { f64::INFINITY };
            return Some(NodeValue::Float { value, raw: text.into() });
        }
        ".nan" | ".NaN" | ".NAN" if digits.len() == text.len() => {
            return Some(NodeValue::Float { value: f64::NAN, raw: text.into() });
        }
        _ => {}
    }
    match schema {
        YamlSchema::Core12 => number_12(text, negative, digits),
        YamlSchema::Core11 => number_11(text, negative, digits),
    }
}

fn number_12(text: &str, negative: bool, digits: &str) -> Option<NodeValue> {
    let signed = digits.len() != text.len();
    if let Some(octal) = digits.strip_prefix("0o") {
        return if signed { None } else { integer(text, false, octal, 8) };
    }
    if let Some(hexadecimal) = digits.strip_prefix("0x") {
        return if signed { None } else { integer(text, false, hexadecimal, 16) };
    }
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return integer(text, negative, digits, 10);
    }
    if is_float(digits) { float(text, text) } else { None }
}

fn number_11(text: &str, negative: bool, digits: &str) -> Option<NodeValue> {
    if digits.contains(':') {
        return sexagesimal(text, negative, digits);
    }
    let first = *digits.as_bytes().first()?;
    if digits.contains('_') && !(first.is_ascii_digit() || first == b'.') {
        return None;
    }
    let bare: String = digits.chars().filter(|&character| character != '_').collect();
    if let Some(binary) = bare.strip_prefix("0b") {
        return integer(text, negative, binary, 2);
    }
    if let Some(hexadecimal) = bare.strip_prefix("0x") {
        return integer(text, negative, hexadecimal, 16);
    }
    if !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_digit()) {
        let is_octal = bare.len() > 1 && bare.starts_with('0');
        return if is_octal { integer(text, negative, &bare[1..], 8) } else { integer(text, negative, &bare, 10) };
    }
    // YAML 1.1 asks for a point in every float: `1e3` is a string there.
    if !bare.contains('.') || !is_float(&bare) {
        return None;
    }
    let sign = if negative { "-" } else { "" };
    float(text, &format!("{sign}{bare}"))
}

/// `1:30` and `1:30:00.5`: digits of base sixty, the first above zero.
fn sexagesimal(text: &str, negative: bool, digits: &str) -> Option<NodeValue> {
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (digits, None),
    };
    let mut value: i64 = 0;
    for (index, part) in whole.split(':').enumerate() {
        let is_digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let in_range =
            if index == 0 { !part.starts_with('0') } else { part.len() <= 2 && part < "6" || part.len() == 1 };
        if !is_digits || !in_range {
            return None;
        }
        value = value.checked_mul(60)?.checked_add(part.parse().ok()?)?;
    }
    let value = if negative { -value } else { value };
    match fraction {
        None => Some(NodeValue::Integer { value, raw: text.into() }),
        Some(fraction) if fraction.bytes().all(|byte| byte.is_ascii_digit()) => {
            let part: f64 = format!("0.{fraction}0").parse().ok()?;
            let value = if negative { value as f64 - part } else { value as f64 + part };
            Some(NodeValue::Float { value, raw: text.into() })
        }
        Some(_) => None,
    }
}

/// Digits of a base as a whole number, or as a float where they do not fit; `None` if they are no such digits.
pub(crate) fn integer(raw: &str, negative: bool, digits: &str, base: u32) -> Option<NodeValue> {
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(base)) {
        return None;
    }
    if let Ok(magnitude) = i128::from_str_radix(digits, base)
        && let Ok(value) = i64::try_from(if negative { -magnitude } else { magnitude })
    {
        return Some(NodeValue::Integer { value, raw: raw.into() });
    }
    let magnitude = match base {
        10 => digits.parse().ok()?,
        _ => {
            digits.chars().fold(0.0, |sum, digit| sum * f64::from(base) + f64::from(digit.to_digit(base).unwrap_or(0)))
        }
    };
    Some(NodeValue::Float { value: if negative { -magnitude } else { magnitude }, raw: raw.into() })
}

fn float(raw: &str, digits: &str) -> Option<NodeValue> {
    Some(NodeValue::Float { value: digits.parse().ok()?, raw: raw.into() })
}

/// Whether the text is `( "." digits | digits [ "." digits? ] ) [ e [sign] digits ]`.
pub(crate) fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa_holds = match mantissa.split_once('.') {
        Some((whole, fraction)) => {
            is_digits(whole) && is_digits(fraction) && !(whole.is_empty() && fraction.is_empty())
        }
        None => !mantissa.is_empty() && is_digits(mantissa),
    };
    let exponent_holds = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !digits.is_empty() && is_digits(digits)
    });
    mantissa_holds && exponent_holds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schema: YamlSchema, text: &str, expected: &str) {
        let found = match plain(text, schema) {
            NodeValue::Null => "null".to_owned(),
            NodeValue::Bool(value) => format!("bool {value}"),
            NodeValue::Integer { value, raw } => {
                assert_eq!(&*raw, text);
                format!("int {value}")
            }
            NodeValue::Float { value, raw } => {
                assert_eq!(&*raw, text);
                format!("float {value}")
            }
            NodeValue::String(value) => {
                assert_eq!(&*value, text);
                "string".to_owned()
            }
            other => format!("{other:?}"),
        };
        assert_eq!(found, expected, "{text:?} under {schema:?}");
    }

    #[test]
    fn core_12() {
        let cases = [
            ("", "null"),
            ("~", "null"),
            ("NULL", "null"),
            ("nul", "string"),
            ("True", "bool true"),
            ("tRue", "string"),
            ("on", "string"),
            ("no", "string"),
            ("y", "string"),
            ("1:30", "string"),
            ("0", "int 0"),
            ("-0", "int 0"),
            ("007", "int 7"),
            ("+12", "int 12"),
            ("0o17", "int 15"),
            ("0o8", "string"),
            ("-0o17", "string"),
            ("0x1f", "int 31"),
            ("0x", "string"),
            ("1_000", "string"),
            ("9223372036854775807", "int 9223372036854775807"),
            ("-9223372036854775808", "int -9223372036854775808"),
            ("9223372036854775808", "float 9223372036854776000"),
            ("0xffffffffffffffffffffffffffffffffff", "float 87112285931760250000000000000000000000000"),
            ("1.10", "float 1.1"),
            (".5", "float 0.5"),
            ("5.", "float 5"),
            (".", "string"),
            ("-", "string"),
            ("-.", "string"),
            ("1e3", "float 1000"),
            ("1e", "string"),
            ("1e+", "string"),
            ("e3", "string"),
            ("1.2.3", "string"),
            (".inf", "float inf"),
            ("-.INF", "float -inf"),
            (".nan", "float NaN"),
            ("-.nan", "string"),
            ("inf", "string"),
            ("2001-12-14", "string"),
            ("٣", "string"),
        ];
        for (text, expected) in cases {
            check(YamlSchema::Core12, text, expected);
        }
    }

    #[test]
    fn core_11() {
        let cases = [
            ("on", "bool true"),
            ("No", "bool false"),
            ("y", "string"),
            ("017", "int 15"),
            ("018", "string"),
            ("0o17", "string"),
            ("0b101", "int 5"),
            ("1_000", "int 1000"),
            ("0x_1f", "int 31"),
            ("1:30", "int 90"),
            ("1:60", "string"),
            ("0:30", "string"),
            ("1:30:00.5", "float 5400.5"),
            ("1e3", "string"),
            ("1.5e+3", "float 1500"),
            ("-1_0.5", "float -10.5"),
            ("_1", "string"),
            ("-_1", "string"),
        ];
        for (text, expected) in cases {
            check(YamlSchema::Core11, text, expected);
        }
    }
}
