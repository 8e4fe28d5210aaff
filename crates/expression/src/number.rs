//! Numbers to and from text, as GitHub's `ExpressionUtility.ParseNumber` and .NET's format `G15` do it.

/// Significant digits of a number written as text.
const DIGITS_MAX: i32 = 15;

/// The number a text stands for when it is compared with one: trimmed; empty is 0; what is no number is NaN.
pub(crate) fn parse(text: &str) -> f64 {
    let text = text.trim();
    if text.is_empty() {
        return 0.0;
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return parse_radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return parse_radix(digits, 8);
    }
    // The standard parser also takes `inf`; .NET takes only these characters and the whole word in any letter case.
    if text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) {
        return text.parse().unwrap_or(f64::NAN);
    }
    let (sign, word) = match text.as_bytes()[0] {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if word.eq_ignore_ascii_case("infinity") { sign * f64::INFINITY } else { f64::NAN }
}

/// Hexadecimal and octal numbers are signed 32-bit integers in GitHub's parser: `0xffffffff` is -1, longer ones are NaN.
fn parse_radix(digits: &str, radix: u32) -> f64 {
    if !digits.chars().all(|digit| digit.is_digit(radix)) {
        return f64::NAN;
    }
    match u32::from_str_radix(digits, radix) {
        Ok(bits) => f64::from(bits.cast_signed()),
        Err(_) => f64::NAN,
    }
}

/// The number as text: at most 15 significant digits, `1E+15` from there on, `1E-05` below 0.0001; negative zero is `0`.
pub(crate) fn format(number: f64) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    if number == 0.0 {
        return "0".into();
    }
    if number.fract() == 0.0 && number.abs() < 1e15 {
        return (number as i64).to_string();
    }
    let scientific = format!("{:.*e}", DIGITS_MAX as usize - 1, number.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let digits = digits.trim_end_matches('0');
    let sign = if number < 0.0 { "-" } else { "" };
    if !(-4..DIGITS_MAX).contains(&exponent) {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let exponent_sign = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{first}{point}{rest}E{exponent_sign}{:02}", exponent.abs());
    }
    if exponent < 0 {
        return format!("{sign}0.{}{digits}", "0".repeat((-exponent - 1) as usize));
    }
    let whole_digits = exponent as usize + 1;
    if digits.len() <= whole_digits {
        return format!("{sign}{digits:0<whole_digits$}");
    }
    let (whole, fraction) = digits.split_at(whole_digits);
    format!("{sign}{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use super::{format, parse};

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(format(parse(text)), expected, "number {text:?}");
    }

    #[test]
    fn text_to_number_and_back() {
        check("", "0");
        check(" \t1.50\n", "1.5");
        check("-0", "0");
        check("5.", "5");
        check(".", "NaN");
        check("1e", "NaN");
        check("inf", "NaN");
        check("nan", "NaN");
        check("+INFINITY", "Infinity");
        check("1e999", "Infinity");
        check("0x7fffffff", "2147483647");
        check("0xffffffff", "-1");
        check("0x100000000", "NaN");
        check("0x", "NaN");
        check("0x+1", "NaN");
        check("0X1", "NaN");
        check("0o37777777777", "-1");
        check("0o8", "NaN");
        check("-0x1", "NaN");
    }

    #[test]
    fn fifteen_digits() {
        check("999999999999999", "999999999999999");
        check("1000000000000000", "1E+15");
        check("-12345678901234567890", "-1.23456789012346E+19");
        check("0.0001", "0.0001");
        check("0.00001", "1E-05");
        check("0.000012345", "1.2345E-05");
        check("0.1234567890123456", "0.123456789012346");
        check("123456789012345.6", "123456789012346");
        check("999999999999999.9", "1E+15");
        check("1e-300", "1E-300");
        check("100.25", "100.25");
    }
}
