//! Durations and sizes as pipelines write them.

/// Units of time with their milliseconds, largest first.
const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("ms", 1), ("m", 60_000), ("s", 1_000)];
/// Units of size with their bytes.
const SIZES: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];
/// The longest duration: ten years.
const DURATION_MS_MAX: u64 = 3_660 * 86_400_000;

/// Milliseconds of `30s`, `20m`, `1h30m`; `None` if it is no duration or longer than ten years.
pub(crate) fn duration_ms(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum: u64 = 0;
    while !rest.is_empty() {
        let (number, after) = leading_number(rest)?;
        let (unit, factor) = TIMES.iter().find(|(unit, _)| after.starts_with(unit))?;
        sum = sum.checked_add(number.checked_mul(*factor)?)?;
        rest = &after[unit.len()..];
    }
    (!text.is_empty() && sum <= DURATION_MS_MAX).then_some(sum)
}

/// Bytes of `512MiB`, `4 GB`; `None` if it is no size.
pub(crate) fn size_bytes(text: &str) -> Option<u64> {
    let (number, after) = leading_number(text)?;
    let (_, factor) = SIZES.iter().find(|(unit, _)| *unit == after.trim_start())?;
    number.checked_mul(*factor)
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    Some((text[..length].parse().ok()?, &text[length..]))
}

#[cfg(test)]
mod tests {
    use super::{duration_ms, size_bytes};

    #[test]
    fn durations() {
        let cases = [
            ("30s", Some(30_000)),
            ("20m", Some(1_200_000)),
            ("1h30m", Some(5_400_000)),
            ("250ms", Some(250)),
            ("1d", Some(86_400_000)),
            ("0s", Some(0)),
            ("", None),
            ("20", None),
            ("m", None),
            ("-1s", None),
            ("1.5h", None),
            ("20 m", None),
            ("99999999999999999999s", None),
            ("9999999d", None),
        ];
        for (text, expected) in cases {
            assert_eq!(duration_ms(text), expected, "{text}");
        }
    }

    #[test]
    fn sizes() {
        let cases = [
            ("512MiB", Some(512 << 20)),
            ("4 GiB", Some(4 << 30)),
            ("1kB", Some(1000)),
            ("7B", Some(7)),
            ("7", None),
            ("GiB", None),
            ("99999999999TiB", None),
        ];
        for (text, expected) in cases {
            assert_eq!(size_bytes(text), expected, "{text}");
        }
    }
}
