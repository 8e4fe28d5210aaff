//! Text compared without regard to letter case, as .NET's `StringComparison.OrdinalIgnoreCase` does it: character by
//! character through the simple upper-case mapping, without locale, in the order of UTF-16 units.

use std::borrow::Cow;
use std::cmp::Ordering;

/// The simple upper case of one character. Two letters that would become ASCII (`ı`, `ſ`) stay what they are, as in .NET.
fn upper(character: char) -> char {
    match character {
        '\0'..='\x7f' => character.to_ascii_uppercase(),
        'ı' | 'ſ' => character,
        // Greek letters with iota subscript: the full mapping makes two characters of them, the simple one makes one.
        '\u{1f80}'..='\u{1f87}' | '\u{1f90}'..='\u{1f97}' | '\u{1fa0}'..='\u{1fa7}' => {
            char::from_u32(character as u32 + 8).unwrap_or(character)
        }
        '\u{1fb3}' | '\u{1fc3}' | '\u{1ff3}' => char::from_u32(character as u32 + 9).unwrap_or(character),
        _ => {
            let mut mapped = character.to_uppercase();
            match (mapped.next(), mapped.next()) {
                (Some(single), None) => single,
                _ => character,
            }
        }
    }
}

/// The text in simple upper case; two texts are equal without regard to case exactly when these are equal.
pub(crate) fn fold(text: &str) -> Cow<'_, str> {
    if !text.is_ascii() {
        Cow::Owned(text.chars().map(upper).collect())
    } else if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        Cow::Owned(text.to_ascii_uppercase())
    } else {
        Cow::Borrowed(text)
    }
}

pub(crate) fn equal(left: &str, right: &str) -> bool {
    if left.eq_ignore_ascii_case(right) {
        return true;
    }
    !(left.is_ascii() && right.is_ascii()) && left.chars().map(upper).eq(right.chars().map(upper))
}

pub(crate) fn compare(left: &str, right: &str) -> Ordering {
    if left.is_ascii() && right.is_ascii() {
        let upper = |byte: u8| byte.to_ascii_uppercase();
        return left.bytes().map(upper).cmp(right.bytes().map(upper));
    }
    fold(left).encode_utf16().cmp(fold(right).encode_utf16())
}

pub(crate) fn starts_with(text: &str, prefix: &str) -> bool {
    if text.is_ascii() && prefix.is_ascii() {
        return text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    }
    let mut characters = text.chars().map(upper);
    prefix.chars().map(upper).all(|wanted| characters.next() == Some(wanted))
}

pub(crate) fn ends_with(text: &str, suffix: &str) -> bool {
    if text.is_ascii() && suffix.is_ascii() {
        let start = text.len().checked_sub(suffix.len());
        return start.is_some_and(|start| text[start..].eq_ignore_ascii_case(suffix));
    }
    let mut characters = text.chars().rev().map(upper);
    suffix.chars().rev().map(upper).all(|wanted| characters.next() == Some(wanted))
}

/// Linear in the length of both: a hostile pair must not make it quadratic.
pub(crate) fn contains(text: &str, part: &str) -> bool {
    memchr::memmem::find(fold(text).as_bytes(), fold(part).as_bytes()).is_some()
}
