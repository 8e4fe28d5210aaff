//! Bytes as hexadecimal text.

use std::fmt::Write as _;

/// The bytes as lower-case hexadecimal digits, two a byte.
#[must_use]
pub fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes of a text of hexadecimal digits, of either case; `None` if it is anything else.
#[must_use]
pub fn bytes(digits: &str) -> Option<Vec<u8>> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some((value(*high)? << 4) | value(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(bytes(&digits(&all)), Some(all.clone()));
        assert_eq!(bytes(&digits(&all).to_uppercase()), Some(all));
        assert_eq!((digits(&[0, 10, 255]).as_str(), bytes("")), ("000aff", Some(Vec::new())));
        for wrong in ["0", "0g", "+1", " 1", "é", "0x"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }
}
