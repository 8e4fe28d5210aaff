//! JSON as a tree: RFC 8259 and nothing else, with a sentence for each of the usual slips.
//!
//! Differs from the RFC where it leaves a choice: repeated keys and lone surrogates are faults, a byte order mark is skipped.

use graph::Diagnostic;

use crate::reading::{Reading, Stop, syntax};
use crate::scalar;
use crate::tree::{DuplicateKeys, Entry, Node, NodeValue, Style};

/// The value of a file.
pub(crate) fn read(reading: &mut Reading<'_>) -> Result<Node, Stop> {
    let mut json = Json { offset: 0, reading };
    json.skip_white();
    let node = json.value(1)?;
    json.skip_white();
    if json.offset < json.reading.text.len() {
        return json.fail("something follows the end of the value", "a JSON file holds one value; remove the rest");
    }
    Ok(node)
}

struct Json<'r, 's> {
    reading: &'r mut Reading<'s>,
    /// The byte that is read next; always on a character boundary between tokens.
    offset: usize,
}

impl<'s> Json<'_, 's> {
    fn peek(&self) -> Option<u8> {
        self.reading.text.as_bytes().get(self.offset).copied()
    }

    fn skip_white(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.offset += 1;
        }
    }

    fn fail<T>(&mut self, message: &str, help: &str) -> Result<T, Stop> {
        let diagnostic = self.fault_at(self.offset, message, help);
        self.reading.stop(diagnostic)
    }

    fn fault_at(&self, offset: usize, message: &str, help: &str) -> Diagnostic {
        let location = self.reading.location(self.reading.character_at(offset));
        let label = if offset >= self.reading.text.len() { "the file ends here" } else { "the reader gave up here" };
        syntax("json-syntax", message, location, label, help)
    }

    fn value(&mut self, depth: usize) -> Result<Node, Stop> {
        let start = self.reading.character_at(self.offset);
        self.reading.count(1, start)?;
        match self.peek() {
            Some(b'{') => {
                self.reading.check_depth(depth, start)?;
                self.object(depth)
            }
            Some(b'[') => {
                self.reading.check_depth(depth, start)?;
                self.array(depth)
            }
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'a'..=b'z' | b'A'..=b'Z' | b'_') => self.word(),
            Some(b'\'') => self.fail("a text stands in single quotes", "JSON takes double quotes only"),
            Some(b'/') => self.fail("JSON has no comments", "remove the comment, or use YAML, EDN or TOML"),
            Some(b'#') => self.fail("JSON has no comments", "remove the comment, or use YAML, EDN or TOML"),
            Some(b']' | b'}' | b',' | b':') => {
                self.fail("a value is missing", "write a value here, or remove the `,` before it")
            }
            Some(b'.' | b'+') => {
                self.fail("a number begins with a digit or `-`", "write `0.5` for `.5` and `1` for `+1`")
            }
            Some(_) => self.fail("no value begins with this sign", "put texts in double quotes"),
            None => self.fail("the file ends where a value is expected", "write a value, at least `{}`"),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Node, Stop> {
        let start = self.offset;
        self.offset += 1;
        let mut entries = Vec::new();
        self.skip_white();
        if self.peek() == Some(b'}') {
            self.offset += 1;
        } else {
            loop {
                entries.push(self.entry(depth)?);
                if !self.go_on(
                    b'}',
                    "a `,` or `}` is missing in a map",
                    "put `,` between entries and `}` after the last",
                )? {
                    break;
                }
            }
        }
        let span = self.reading.span(start, self.offset);
        Ok(self.reading.mapping(entries, DuplicateKeys::Error, span, Style::Flow))
    }

    fn entry(&mut self, depth: usize) -> Result<Entry, Stop> {
        match self.peek() {
            Some(b'"') => {}
            Some(b'}') => return self.fail("a `,` stands before the end of a map", "remove the last `,`"),
            Some(b'\'') => return self.fail("a key stands in single quotes", "JSON takes double quotes only"),
            Some(b'/' | b'#') => {
                return self.fail("JSON has no comments", "remove the comment, or use YAML, EDN or TOML");
            }
            None => return self.fail("a map is not closed", "close it with `}`"),
            Some(_) => return self.fail("a key is expected here", "put keys in double quotes"),
        }
        let start = self.reading.character_at(self.offset);
        self.reading.count(1, start)?;
        let key = self.string()?;
        self.skip_white();
        if self.peek() != Some(b':') {
            return self.fail("a `:` is missing after a key", "put `:` between key and value");
        }
        self.offset += 1;
        self.skip_white();
        let value = self.value(depth + 1)?;
        Ok(Entry { key, value })
    }

    fn array(&mut self, depth: usize) -> Result<Node, Stop> {
        let start = self.offset;
        self.offset += 1;
        let mut items = Vec::new();
        self.skip_white();
        if self.peek() == Some(b']') {
            self.offset += 1;
        } else {
            loop {
                if self.peek() == Some(b']') {
                    return self.fail("a `,` stands before the end of a list", "remove the last `,`");
                }
                items.push(self.value(depth + 1)?);
                if !self.go_on(
                    b']',
                    "a `,` or `]` is missing in a list",
                    "put `,` between items and `]` after the last",
                )? {
                    break;
                }
            }
        }
        Ok(Node::new(NodeValue::Sequence(items), self.reading.span(start, self.offset), Style::Flow))
    }

    /// After an item: true past a `,` and the white around it, false past the closing bracket.
    fn go_on(&mut self, close: u8, message: &str, help: &str) -> Result<bool, Stop> {
        self.skip_white();
        match self.peek() {
            Some(b',') => {
                self.offset += 1;
                self.skip_white();
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.offset += 1;
                Ok(false)
            }
            _ => self.fail(message, help),
        }
    }

    fn word(&mut self) -> Result<Node, Stop> {
        let start = self.offset;
        while let Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_') = self.peek() {
            self.offset += 1;
        }
        let value = match &self.reading.text[start..self.offset] {
            "null" => NodeValue::Null,
            "true" => NodeValue::Bool(true),
            "false" => NodeValue::Bool(false),
            _ => {
                self.offset = start;
                return self.fail(
                    "a bare word is no value",
                    "put texts in double quotes; JSON's words are `true`, `false` and `null`",
                );
            }
        };
        Ok(Node::new(value, self.reading.span(start, self.offset), Style::Plain))
    }

    fn digits(&mut self) -> usize {
        let start = self.offset;
        while let Some(b'0'..=b'9') = self.peek() {
            self.offset += 1;
        }
        self.offset - start
    }

    fn number(&mut self) -> Result<Node, Stop> {
        let start = self.offset;
        let negative = self.peek() == Some(b'-');
        self.offset += usize::from(negative);
        let whole_start = self.offset;
        let leading_zero = self.peek() == Some(b'0');
        match self.digits() {
            0 => return self.fail("a digit is missing after `-`", "write a number, or put the text in double quotes"),
            2.. if leading_zero => {
                self.offset = whole_start;
                return self
                    .fail("a number begins with a needless zero", "remove the zero, or put the text in double quotes");
            }
            _ => {}
        }
        let whole_end = self.offset;
        if self.peek() == Some(b'.') {
            self.offset += 1;
            if self.digits() == 0 {
                return self.fail("a digit is missing after the point", "write `1.0` for `1.`");
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.offset += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.offset += 1;
            }
            if self.digits() == 0 {
                return self.fail("a digit is missing in the exponent", "write `1e3`");
            }
        }
        let raw = &self.reading.text[start..self.offset];
        let value = if self.offset == whole_end {
            scalar::integer(raw, negative, &raw[usize::from(negative)..], 10)
        } else {
            raw.parse().ok().map(|value| NodeValue::Float { value, raw: raw.into() })
        };
        let value = value.expect("the grammar of JSON's numbers is part of Rust's");
        Ok(Node::new(value, self.reading.span(start, self.offset), Style::Plain))
    }

    fn string(&mut self) -> Result<Node, Stop> {
        let start = self.offset;
        self.offset += 1;
        let mut text = String::new();
        loop {
            let run_start = self.offset;
            while self.peek().is_some_and(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
                self.offset += 1;
            }
            let run = &self.reading.text[run_start..self.offset];
            match self.peek() {
                Some(b'"') => {
                    let value = if text.is_empty() { run.into() } else { (text + run).into() };
                    self.offset += 1;
                    return Ok(Node::new(
                        NodeValue::String(value),
                        self.reading.span(start, self.offset),
                        Style::Quoted,
                    ));
                }
                Some(b'\\') => {
                    text.push_str(run);
                    let character = self.escape()?;
                    text.push(character);
                }
                Some(b'\n' | b'\r') => {
                    return self.fail(
                        "a text goes on over the end of its line",
                        "close the quote, or write `\\n` for a line break",
                    );
                }
                Some(_) => {
                    return self.fail("a control character stands in a text", "write it as `\\u00XX`, a tab as `\\t`");
                }
                None => {
                    let diagnostic = self.fault_at(start, "a text is not closed", "close it with `\"`");
                    return self.reading.stop(diagnostic);
                }
            }
        }
    }

    /// The character of the escape that begins at the `\`; leaves the offset behind it.
    fn escape(&mut self) -> Result<char, Stop> {
        let start = self.offset;
        let sign = self.reading.text.as_bytes().get(start + 1).copied();
        self.offset += 2;
        Ok(match sign {
            Some(sign @ (b'"' | b'\\' | b'/')) => char::from(sign),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(start),
            _ => {
                self.offset = start;
                return self.fail(
                    "this escape is unknown",
                    "JSON has \\\" \\\\ \\/ \\b \\f \\n \\r \\t and \\uXXXX; write `\\\\` for a backslash",
                );
            }
        })
    }

    fn unicode_escape(&mut self, start: usize) -> Result<char, Stop> {
        let unit = self.four_digits();
        let code = match unit {
            Some(high @ 0xd800..=0xdbff) => {
                let is_pair = self.reading.text.as_bytes()[self.offset..].starts_with(b"\\u");
                self.offset += if is_pair { 2 } else { 0 };
                match is_pair.then(|| self.four_digits()).flatten() {
                    Some(low @ 0xdc00..=0xdfff) => Some(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)),
                    _ => None,
                }
            }
            other => other,
        };
        if let Some(character) = code.and_then(char::from_u32) {
            return Ok(character);
        }
        self.offset = start;
        self.fail(
            "this escape names no character",
            "write four hexadecimal digits, and both halves of a surrogate pair",
        )
    }

    fn four_digits(&mut self) -> Option<u32> {
        let digits = self.reading.text.as_bytes().get(self.offset..self.offset + 4)?;
        let mut value = 0;
        for &digit in digits {
            value = value * 16 + char::from(digit).to_digit(16)?;
        }
        self.offset += 4;
        Some(value)
    }
}
