//! EDN as a tree (github.com/edn-format/edn).
//!
//! Keywords as keys of a map are names: `:working-directory` is `working_directory`. Keywords elsewhere lose their colon
//! and keep their dashes. Symbols are strings; lists, vectors and sets are lists; `#inst "…"` and other tags stay on
//! the value ([`Node::tag`]); ratios are refused.

use graph::Diagnostic;

use crate::reading::{Reading, Stop, syntax};
use crate::scalar;
use crate::tree::{DuplicateKeys, Entry, Node, NodeValue, Span, Style};

/// The value of a file.
pub(crate) fn read(reading: &mut Reading<'_>) -> Result<Node, Stop> {
    let mut edn = Edn { reading, offset: 0 };
    edn.skip_white(1)?;
    let node = edn.value(1, Place::Value)?;
    edn.skip_white(1)?;
    if edn.offset < edn.reading.text.len() {
        return edn
            .fail("something follows the end of the value", "an EDN pipeline is one map; put everything into it");
    }
    Ok(node)
}

/// Where a value stands, which decides what a keyword is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Key,
    Value,
}

struct Edn<'r, 's> {
    reading: &'r mut Reading<'s>,
    /// The byte that is read next; always on a character boundary between tokens.
    offset: usize,
}

/// Whether a byte ends a symbol, keyword, number or character.
fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c | b',' | b';' | b'"' | b'(' | b')' | b'[' | b']' | b'{' | b'}')
}

impl<'s> Edn<'_, 's> {
    fn peek(&self) -> Option<u8> {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> Option<u8> {
        self.reading.text.as_bytes().get(self.offset + ahead).copied()
    }

    fn fail<T>(&mut self, message: &str, help: &str) -> Result<T, Stop> {
        self.fail_at(self.offset, message, help)
    }

    fn fail_at<T>(&mut self, offset: usize, message: &str, help: &str) -> Result<T, Stop> {
        let diagnostic = self.fault(self.reading.character_at(offset), message, help);
        self.reading.stop(diagnostic)
    }

    fn fault(&self, span: Span, message: &str, help: &str) -> Diagnostic {
        let at_end = span.start as usize >= self.reading.text.len();
        let label = if at_end { "the file ends here" } else { "the reader gave up here" };
        syntax("edn-syntax", message, self.reading.location(span), label, help)
    }

    /// Skips white space, commas, comments and discarded values.
    fn skip_white(&mut self, depth: usize) -> Result<(), Stop> {
        loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\n' | b'\r' | 0x0c | b',') => self.offset += 1,
                Some(b';') => {
                    let rest = &self.reading.text.as_bytes()[self.offset..];
                    self.offset += rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
                }
                Some(b'#') if self.peek_at(1) == Some(b'_') => {
                    let start = self.reading.character_at(self.offset);
                    self.reading.check_depth(depth, start)?;
                    self.offset += 2;
                    self.skip_white(depth + 1)?;
                    self.value(depth + 1, Place::Value)?;
                }
                _ => return Ok(()),
            }
        }
    }

    fn value(&mut self, depth: usize, place: Place) -> Result<Node, Stop> {
        let start = self.reading.character_at(self.offset);
        self.reading.count(1, start)?;
        match self.peek() {
            Some(b'{') => self.map(depth),
            Some(b'[') => self.list(1, b']', depth),
            Some(b'(') => self.list(1, b')', depth),
            Some(b'"') => self.string(),
            Some(b'\\') => self.character(),
            Some(b'#') => self.dispatch(depth),
            Some(b']' | b')' | b'}') => {
                self.fail("a bracket closes what was not opened", "match every bracket with its own kind")
            }
            Some(b'\'' | b'`' | b'@' | b'^' | b'~') => {
                self.fail("no value begins with this sign", "put texts in double quotes")
            }
            Some(_) => self.token(place),
            None => self.fail("the file ends where a value is expected", "write a value, at least `{}`"),
        }
    }

    fn dispatch(&mut self, depth: usize) -> Result<Node, Stop> {
        match self.peek_at(1) {
            Some(b'{') => self.list(2, b'}', depth),
            Some(b'#') => self.symbolic(),
            Some(byte) if byte.is_ascii_alphabetic() => self.tagged(depth),
            _ => self.fail("this `#` begins nothing", "EDN has `#{sets}`, `#_discarded` and `#tag value`"),
        }
    }

    /// `##Inf`, `##-Inf` and `##NaN`.
    fn symbolic(&mut self) -> Result<Node, Stop> {
        let start = self.offset;
        let raw = self.word();
        let value = match raw {
            "##Inf" => f64::INFINITY,
            "##-Inf" => f64::NEG_INFINITY,
            "##NaN" => f64::NAN,
            _ => return self.fail_at(start, "this `##` begins nothing", "EDN has `##Inf`, `##-Inf` and `##NaN`"),
        };
        let value = NodeValue::Float { value, raw: raw.into() };
        Ok(Node::new(value, self.reading.span(start, self.offset), Style::Plain))
    }

    fn tagged(&mut self, depth: usize) -> Result<Node, Stop> {
        let start = self.reading.character_at(self.offset);
        self.reading.check_depth(depth, start)?;
        let tag = self.word();
        self.skip_white(depth + 1)?;
        if self.peek().is_none() {
            return self.fail("a tag needs a value", "write the tagged value, or remove the tag");
        }
        let mut node = self.value(depth + 1, Place::Value)?.with_tag(tag);
        node.span.start = start.start;
        Ok(node)
    }

    fn map(&mut self, depth: usize) -> Result<Node, Stop> {
        let start = self.offset;
        let opened = self.reading.character_at(start);
        self.reading.check_depth(depth, opened)?;
        self.offset += 1;
        let mut entries = Vec::new();
        loop {
            self.skip_white(depth + 1)?;
            match self.peek() {
                Some(b'}') => break,
                None => return self.unclosed(opened, "a map is not closed", "close it with `}`"),
                Some(_) => {}
            }
            let key = self.value(depth + 1, Place::Key)?;
            self.skip_white(depth + 1)?;
            if let Some(b'}') = self.peek() {
                let diagnostic = self.fault(key.span, "the last key of a map has no value", "write a value after it");
                return self.reading.stop(diagnostic);
            }
            let value = self.value(depth + 1, Place::Value)?;
            entries.push(Entry { key, value });
        }
        self.offset += 1;
        let span = self.reading.span(start, self.offset);
        Ok(self.reading.mapping(entries, DuplicateKeys::Error, span, Style::Flow))
    }

    /// A list, vector or set whose opening takes `opening` bytes.
    fn list(&mut self, opening: usize, close: u8, depth: usize) -> Result<Node, Stop> {
        let start = self.offset;
        let opened = self.reading.character_at(start);
        self.reading.check_depth(depth, opened)?;
        self.offset += opening;
        let mut items = Vec::new();
        loop {
            self.skip_white(depth + 1)?;
            match self.peek() {
                Some(byte) if byte == close => break,
                None => return self.unclosed(opened, "a list is not closed", "close it with its bracket"),
                Some(_) => items.push(self.value(depth + 1, Place::Value)?),
            }
        }
        self.offset += 1;
        Ok(Node::new(NodeValue::Sequence(items), self.reading.span(start, self.offset), Style::Flow))
    }

    fn unclosed<T>(&mut self, opened: Span, message: &str, help: &str) -> Result<T, Stop> {
        let location = self.reading.location(opened);
        let diagnostic = syntax("edn-syntax", message, location, "it begins here", help);
        self.reading.stop(diagnostic)
    }

    /// The bytes up to the next delimiter; at least one.
    fn word(&mut self) -> &'s str {
        let rest = &self.reading.text[self.offset..];
        let length = rest.bytes().skip(1).position(is_delimiter).map_or(rest.len(), |position| position + 1);
        self.offset += length;
        &rest[..length]
    }

    /// A number, keyword, symbol, `nil`, `true` or `false`.
    fn token(&mut self, place: Place) -> Result<Node, Stop> {
        let start = self.offset;
        let word = self.word();
        let digits = word.strip_prefix(['+', '-']).unwrap_or(word);
        let value = if digits.starts_with(|character: char| character.is_ascii_digit()) {
            match number(word) {
                Some(value) => value,
                None => {
                    return self.fail_at(
                        start,
                        "this is no number",
                        "put texts in double quotes; ratios and letters are not taken",
                    );
                }
            }
        } else if let Some(name) = word.strip_prefix(':') {
            if name.is_empty() || name.starts_with(':') {
                return self.fail_at(start, "a keyword needs a name", "write `:name`");
            }
            match place {
                Place::Key => NodeValue::String(name.replace('-', "_").into()),
                Place::Value => NodeValue::String(name.into()),
            }
        } else {
            match word {
                "nil" => NodeValue::Null,
                "true" => NodeValue::Bool(true),
                "false" => NodeValue::Bool(false),
                symbol => NodeValue::String(symbol.into()),
            }
        };
        Ok(Node::new(value, self.reading.span(start, self.offset), Style::Plain))
    }

    /// `\a`, `\newline`, `\u00e9`: one character as a string.
    fn character(&mut self) -> Result<Node, Stop> {
        let start = self.offset;
        self.offset += 1;
        let Some(first) = self.reading.text[self.offset..].chars().next() else {
            return self.fail_at(
                start,
                "a character is missing after the backslash",
                "write `\\a`, `\\newline` or `\\u00e9`",
            );
        };
        // The first character is taken even if it is a delimiter: `\(` is a bracket.
        self.offset += first.len_utf8();
        let rest = &self.reading.text[self.offset..];
        self.offset += rest.bytes().position(is_delimiter).unwrap_or(rest.len());
        let name = &self.reading.text[start + 1..self.offset];
        let character = match name {
            "newline" => Some('\n'),
            "return" => Some('\r'),
            "space" => Some(' '),
            "tab" => Some('\t'),
            "formfeed" => Some('\u{c}'),
            "backspace" => Some('\u{8}'),
            _ if name.len() == first.len_utf8() => Some(first),
            _ => match name.strip_prefix('u') {
                Some(digits) if digits.len() == 4 => u32::from_str_radix(digits, 16).ok().and_then(char::from_u32),
                _ => None,
            },
        };
        let Some(character) = character else {
            return self.fail_at(
                start,
                "this character has no such name",
                "write `\\a`, `\\newline`, `\\return`, `\\space`, `\\tab` or `\\u00e9`",
            );
        };
        let value = NodeValue::String(character.to_string().into());
        Ok(Node::new(value, self.reading.span(start, self.offset), Style::Plain))
    }

    fn string(&mut self) -> Result<Node, Stop> {
        let start = self.offset;
        self.offset += 1;
        let mut text = String::new();
        loop {
            let rest = &self.reading.text[self.offset..];
            let Some(length) = rest.bytes().position(|byte| byte == b'"' || byte == b'\\') else {
                let opened = self.reading.character_at(start);
                return self.unclosed(opened, "a text is not closed", "close it with `\"`");
            };
            let run = &rest[..length];
            self.offset += length;
            if self.peek() == Some(b'"') {
                self.offset += 1;
                let value = if text.is_empty() { run.into() } else { (text + run).into() };
                return Ok(Node::new(NodeValue::String(value), self.reading.span(start, self.offset), Style::Quoted));
            }
            text.push_str(run);
            let character = self.escape()?;
            text.push(character);
        }
    }

    /// The character of the escape that begins at the `\`; leaves the offset behind it.
    fn escape(&mut self) -> Result<char, Stop> {
        let start = self.offset;
        let sign = self.peek_at(1);
        let character = match sign {
            Some(sign @ (b'"' | b'\\')) => Some(char::from(sign)),
            Some(b'n') => Some('\n'),
            Some(b'r') => Some('\r'),
            Some(b't') => Some('\t'),
            Some(b'b') => Some('\u{8}'),
            Some(b'f') => Some('\u{c}'),
            Some(b'u') => {
                let digits = self.reading.text.get(start + 2..start + 6);
                let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
                self.offset += if digits.is_some() { 4 } else { 0 };
                digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32)
            }
            _ => None,
        };
        self.offset += 2;
        match character {
            Some(character) => Ok(character),
            None => self.fail_at(
                start,
                "this escape is unknown",
                "EDN has \\\" \\\\ \\n \\r \\t \\b \\f and \\uXXXX; write `\\\\` for a backslash",
            ),
        }
    }
}

/// `12`, `+12N`, `1.5`, `1e3`, `2.5M`; `None` for anything else.
fn number(word: &str) -> Option<NodeValue> {
    let negative = word.starts_with('-');
    let digits = word.strip_prefix(['+', '-']).unwrap_or(word);
    let whole = digits.strip_suffix('N').unwrap_or(digits);
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_digits(whole) {
        let needless_zero = whole.len() > 1 && whole.starts_with('0');
        return if needless_zero { None } else { scalar::integer(word.trim_end_matches('N'), negative, whole, 10) };
    }
    let float = digits.strip_suffix('M').unwrap_or(digits);
    if !float.starts_with(|character: char| character.is_ascii_digit()) || !scalar::is_float(float) {
        return None;
    }
    let magnitude: f64 = float.parse().ok()?;
    Some(NodeValue::Float {
        value: if negative { -magnitude } else { magnitude },
        raw: word.trim_end_matches('M').into(),
    })
}
