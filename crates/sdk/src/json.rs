//! JSON as it crosses between a program and the binary: a value, a writer, and a bounded reader.
//!
//! Objects keep the order in which they were filled, since jobs stand in the order of the program.

use std::fmt::{self, Write};

/// A JSON value.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Json {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number that fits; every `i64` and every `u64` does.
    Int(i128),
    /// Any other number. Never infinite and never NaN: those are written as `null`.
    Float(f64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object, in the order of its making. A name stands once.
    Object(Vec<(String, Json)>),
    /// A value that JSON cannot say, and why. It is written as `null`, and a function whose value holds one fails.
    Unsayable(String),
}

/// How deep lists and objects may stand in one another.
pub const DEPTH_MAX: usize = 128;

/// A text that is no JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// What was wrong.
    pub message: &'static str,
    /// At which byte.
    pub offset: usize,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.message, self.offset)
    }
}

impl std::error::Error for JsonError {}

impl Json {
    /// The value of this name, if this is an object that has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Json> {
        let Json::Object(entries) = self else { return None };
        entries.iter().find(|(entry, _)| entry == name).map(|(_, value)| value)
    }

    /// The text, if this is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Json::Text(text) = self { Some(text) } else { None }
    }

    /// The items, if this is a list.
    #[must_use]
    pub fn items(&self) -> &[Json] {
        if let Json::List(items) = self { items } else { &[] }
    }

    /// The entries, if this is an object.
    #[must_use]
    pub fn entries(&self) -> &[(String, Json)] {
        if let Json::Object(entries) = self { entries } else { &[] }
    }

    /// An object of these entries.
    #[must_use]
    pub fn object<const N: usize>(entries: [(&str, Json); N]) -> Json {
        Json::Object(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// Reads a whole text.
    ///
    /// # Errors
    /// If it is no JSON, or deeper than [`DEPTH_MAX`].
    pub fn read(text: &str) -> Result<Json, JsonError> {
        let mut reader = Reader { bytes: text.as_bytes(), text, at: 0 };
        let value = reader.value(0)?;
        reader.space();
        if reader.at < text.len() { Err(reader.error("something stands after the value")) } else { Ok(value) }
    }

    /// Where something is that JSON cannot say, such as NaN, with what it is and what to do: `.ratios[2]`.
    pub(crate) fn unsayable(&self) -> Option<(String, String)> {
        match self {
            Json::Float(number) if !number.is_finite() => Some((
                String::new(),
                format!("{number}, which no JSON number is; return an `Option<f64>` that is `None` then, or an `Err`"),
            )),
            Json::Unsayable(why) => Some((String::new(), why.clone())),
            Json::List(items) => items.iter().enumerate().find_map(|(index, item)| {
                let (path, what) = item.unsayable()?;
                Some((format!("[{index}]{path}"), what))
            }),
            Json::Object(entries) => entries.iter().find_map(|(name, value)| {
                let (path, what) = value.unsayable()?;
                Some((format!(".{name}{path}"), what))
            }),
            _ => None,
        }
    }

    /// Appends the value without white space.
    pub fn write(&self, out: &mut String) {
        match self {
            Json::Null => out.push_str("null"),
            Json::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
            Json::Int(number) => match u32::try_from(*number) {
                Ok(number) => write_number(number, out),
                Err(_) => drop(write!(out, "{number}")),
            },
            Json::Float(number) if number.is_finite() => {
                let _ = write!(out, "{number:?}");
            }
            Json::Float(_) | Json::Unsayable(_) => out.push_str("null"),
            Json::Text(text) => write_text(text, out),
            // Plain loops and texts: see `write_text`.
            Json::List(items) => {
                let (mut index, mut before) = (0, "[");
                while index < items.len() {
                    out.push_str(before);
                    items[index].write(out);
                    (index, before) = (index + 1, ",");
                }
                out.push_str(if index == 0 { "[]" } else { "]" });
            }
            Json::Object(entries) => {
                let (mut index, mut before) = (0, "{");
                while index < entries.len() {
                    let (name, value) = &entries[index];
                    out.push_str(before);
                    write_text(name, out);
                    out.push(':');
                    value.write(out);
                    (index, before) = (index + 1, ",");
                }
                out.push_str(if index == 0 { "{}" } else { "}" });
            }
        }
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.write(&mut out);
        f.write_str(&out)
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Json::Text(text.to_owned())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Json::Text(text)
    }
}

impl From<bool> for Json {
    fn from(flag: bool) -> Self {
        Json::Bool(flag)
    }
}

macro_rules! from_integer {
    ($($kind:ty),*) => {$(
        impl From<$kind> for Json {
            fn from(number: $kind) -> Self {
                Json::Int(i128::from(number))
            }
        }
    )*};
}

from_integer!(i8, i16, i32, i64, u8, u16, u32, u64);

impl From<f64> for Json {
    fn from(number: f64) -> Self {
        Json::Float(number)
    }
}

impl<T: Into<Json>, const N: usize> From<[T; N]> for Json {
    fn from(items: [T; N]) -> Self {
        Json::List(items.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Json>> From<Vec<T>> for Json {
    fn from(items: Vec<T>) -> Self {
        Json::List(items.into_iter().map(Into::into).collect())
    }
}

/// Appends a text with its quotes.
pub(crate) fn write_text(text: &str, out: &mut String) {
    out.push('"');
    let bytes = text.as_bytes();
    let (mut plain, mut next) = (0, 0);
    // A plain loop: programs are built without optimization, and an iterator costs several calls a byte there.
    while next < bytes.len() {
        let (index, byte) = (next, bytes[next]);
        next += 1;
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        let escaped = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            _ => {
                out.push_str(&text[plain..index]);
                let _ = write!(out, "\\u{byte:04x}");
                plain = index + 1;
                continue;
            }
        };
        out.push_str(&text[plain..index]);
        out.push_str(escaped);
        plain = index + 1;
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

/// Appends a number without a sign, as `{}` would and at a fraction of its price in a program that is not optimized.
pub(crate) fn write_number(number: u32, out: &mut String) {
    let mut digits = [b'0'; 10];
    let (mut at, mut rest) = (digits.len(), number);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.push_str(str::from_utf8(&digits[at..]).unwrap_or_default());
}

struct Reader<'a> {
    bytes: &'a [u8],
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn error(&self, message: &'static str) -> JsonError {
        JsonError { message, offset: self.at }
    }

    fn space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn take(&mut self, word: &str) -> bool {
        let is_next = self.bytes[self.at..].starts_with(word.as_bytes());
        self.at += if is_next { word.len() } else { 0 };
        is_next
    }

    fn value(&mut self, depth: usize) -> Result<Json, JsonError> {
        if depth > DEPTH_MAX {
            return Err(self.error("too deep"));
        }
        self.space();
        match self.bytes.get(self.at) {
            Some(b'n') if self.take("null") => Ok(Json::Null),
            Some(b't') if self.take("true") => Ok(Json::Bool(true)),
            Some(b'f') if self.take("false") => Ok(Json::Bool(false)),
            Some(b'"') => self.string().map(Json::Text),
            Some(b'[') => self.list(depth),
            Some(b'{') => self.object(depth),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => Err(self.error("no value")),
            None => Err(self.error("the text ends too early")),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Json, JsonError> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.take("]") {
            return Ok(Json::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.space();
            if self.take("]") {
                return Ok(Json::List(items));
            }
            if !self.take(",") {
                return Err(self.error("no `,` or `]`"));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, JsonError> {
        self.at += 1;
        let mut entries = Vec::new();
        self.space();
        if self.take("}") {
            return Ok(Json::Object(entries));
        }
        loop {
            self.space();
            if self.bytes.get(self.at) != Some(&b'"') {
                return Err(self.error("no name"));
            }
            let name = self.string()?;
            self.space();
            if !self.take(":") {
                return Err(self.error("no `:`"));
            }
            entries.push((name, self.value(depth + 1)?));
            self.space();
            if self.take("}") {
                return Ok(Json::Object(entries));
            }
            if !self.take(",") {
                return Err(self.error("no `,` or `}`"));
            }
        }
    }

    fn number(&mut self) -> Result<Json, JsonError> {
        let start = self.at;
        while matches!(self.bytes.get(self.at), Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')) {
            self.at += 1;
        }
        let text = &self.text[start..self.at];
        let is_whole = text.bytes().all(|byte| matches!(byte, b'-' | b'0'..=b'9'));
        match (is_whole.then(|| text.parse().ok()).flatten(), text.parse()) {
            (Some(number), _) => Ok(Json::Int(number)),
            (None, Ok(number)) => Ok(Json::Float(number)),
            (None, Err(_)) => Err(JsonError { message: "no number", offset: start }),
        }
    }

    fn string(&mut self) -> Result<String, JsonError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let start = self.at;
            while matches!(self.bytes.get(self.at), Some(byte) if !matches!(byte, b'"' | b'\\' | 0..0x20)) {
                self.at += 1;
            }
            out.push_str(&self.text[start..self.at]);
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    out.push(self.escape()?);
                }
                Some(_) => return Err(self.error("a control character")),
                None => return Err(self.error("the string has no end")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let byte = self.bytes.get(self.at).copied();
        self.at += 1;
        Ok(match byte {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let first = self.unit()?;
                let code = match first {
                    0xd800..0xdc00 if self.take("\\u") => {
                        let second = self.unit()?;
                        if !(0xdc00..0xe000).contains(&second) {
                            return Err(self.error("half a character"));
                        }
                        0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                    }
                    code => code,
                };
                char::from_u32(code).ok_or_else(|| self.error("half a character"))?
            }
            _ => return Err(self.error("no such escape")),
        })
    }

    fn unit(&mut self) -> Result<u32, JsonError> {
        let digits = self.text.get(self.at..self.at + 4).ok_or_else(|| self.error("the string has no end"))?;
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let unit =
            u32::from_str_radix(digits, 16).ok().filter(|_| is_hex).ok_or_else(|| self.error("no hex digits"))?;
        self.at += 4;
        Ok(unit)
    }
}
