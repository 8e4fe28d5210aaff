//! Values to and from JSON text, within a bound of memory.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::limits::VALUE_DEPTH_MAX;
use crate::{ErrorKind, Value, number};

/// Bytes counted for a string apart from its text. GitHub: `EvaluationMemory`.
const STRING_BYTES: usize = 26;

/// Bytes counted for one value in an array or object.
pub(crate) const ITEM_BYTES: usize = 24;

/// What a string is counted as: two bytes for each UTF-16 unit.
pub(crate) fn string_bytes(text: &str) -> usize {
    let units = if text.is_ascii() { text.len() } else { text.encode_utf16().count() };
    STRING_BYTES + 2 * units
}

/// A value that was read, and the bytes it is counted as.
pub(crate) struct Read {
    pub(crate) value: Value,
    pub(crate) bytes: usize,
}

/// Why JSON could not be read or written.
#[derive(Debug)]
pub(crate) enum Fault {
    Memory,
    Depth,
    Syntax(String),
}

impl Fault {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Fault::Memory | Fault::Depth => ErrorKind::Limit,
            Fault::Syntax(_) => ErrorKind::Evaluate,
        }
    }

    pub(crate) fn message(self) -> String {
        match self {
            Fault::Memory => crate::evaluation::MEMORY_EXCEEDED.to_owned(),
            Fault::Depth => format!("Exceeded max value depth {VALUE_DEPTH_MAX}"),
            Fault::Syntax(cause) => format!("The text is not valid JSON: {cause}"),
        }
    }
}

/// Reads one JSON value. The reader itself refuses nesting beyond 128.
pub(crate) fn read(text: &str, bytes_max: usize) -> Result<Read, Fault> {
    let budget = Budget { left: Cell::new(bytes_max), exhausted: Cell::new(false) };
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Seed(&budget).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    match value {
        Ok(value) => Ok(Read { value, bytes: bytes_max - budget.left.get() }),
        Err(_) if budget.exhausted.get() => Err(Fault::Memory),
        Err(cause) => Err(Fault::Syntax(cause.to_string())),
    }
}

struct Budget {
    left: Cell<usize>,
    exhausted: Cell<bool>,
}

impl Budget {
    fn take<E: serde::de::Error>(&self, bytes: usize) -> Result<(), E> {
        match self.left.get().checked_sub(bytes) {
            Some(left) => self.left.set(left),
            None => {
                self.exhausted.set(true);
                return Err(E::custom("too large"));
            }
        }
        Ok(())
    }
}

struct Seed<'b>(&'b Budget);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        self.0.take(ITEM_BYTES)?;
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        self.0.take(string_bytes(text))?;
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element_seed(Seed(self.0))? {
            items.push(item);
        }
        Ok(Value::array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(Arc<str>, Value)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            self.0.take(string_bytes(&name))?;
            entries.push((name.into(), map.next_value_seed(Seed(self.0))?));
        }
        Ok(Value::object(entries))
    }
}

impl<'de> serde::Deserialize<'de> for Value {
    /// Reads any self-describing data of plain kinds; keeps the order of keys. The reader bounds size and depth.
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Value, D::Error> {
        let budget = Budget { left: Cell::new(usize::MAX), exhausted: Cell::new(false) };
        Seed(&budget).deserialize(reader)
    }
}

impl Serialize for Value {
    /// Whole numbers are written as integers; NaN and infinities as the writer does (`null` in JSON).
    fn serialize<S: Serializer>(&self, writer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => writer.serialize_unit(),
            Value::Bool(truth) => writer.serialize_bool(*truth),
            Value::Number(number) if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 => {
                writer.serialize_i64(*number as i64)
            }
            Value::Number(number) => writer.serialize_f64(*number),
            Value::String(text) => writer.serialize_str(text),
            Value::Array(array) => writer.collect_seq(array.items()),
            Value::Object(object) => {
                let mut map = writer.serialize_map(Some(object.entries().len()))?;
                for (name, value) in object.entries() {
                    map.serialize_entry(name.as_ref(), value)?;
                }
                map.end()
            }
        }
    }
}

/// Writes a value as `toJSON` does: two spaces for each level, numbers as the language writes them (so NaN is `NaN`).
pub(crate) fn write(value: &Value, bytes_max: usize) -> Result<String, Fault> {
    let mut writer = Writer { text: String::new(), bytes_max };
    writer.value(value, 0)?;
    Ok(writer.text)
}

struct Writer {
    text: String,
    bytes_max: usize,
}

impl Writer {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Fault> {
        if depth > VALUE_DEPTH_MAX {
            return Err(Fault::Depth);
        }
        if self.text.len() > self.bytes_max {
            return Err(Fault::Memory);
        }
        match value {
            Value::Null => self.text.push_str("null"),
            Value::Bool(truth) => self.text.push_str(if *truth { "true" } else { "false" }),
            Value::Number(number) => self.text.push_str(&number::format(*number)),
            Value::String(text) => self.string(text)?,
            Value::Array(array) if array.items().is_empty() => self.text.push_str("[]"),
            Value::Object(object) if object.entries().is_empty() => self.text.push_str("{}"),
            Value::Array(array) => {
                self.text.push('[');
                for (index, item) in array.items().iter().enumerate() {
                    self.line(index, depth + 1);
                    self.value(item, depth + 1)?;
                }
                self.end(depth, ']');
            }
            Value::Object(object) => {
                self.text.push('{');
                for (index, (name, value)) in object.entries().iter().enumerate() {
                    self.line(index, depth + 1);
                    self.string(name)?;
                    self.text.push_str(": ");
                    self.value(value, depth + 1)?;
                }
                self.end(depth, '}');
            }
        }
        Ok(())
    }

    fn line(&mut self, index: usize, depth: usize) {
        self.text.push_str(if index == 0 { "\n" } else { ",\n" });
        self.indent(depth);
    }

    fn end(&mut self, depth: usize, bracket: char) {
        self.text.push('\n');
        self.indent(depth);
        self.text.push(bracket);
    }

    fn indent(&mut self, depth: usize) {
        for _ in 0..depth {
            self.text.push_str("  ");
        }
    }

    /// Escapes what Newtonsoft's writer escapes, which is a little more than JSON asks for (U+0085, U+2028, U+2029).
    fn string(&mut self, text: &str) -> Result<(), Fault> {
        if self.text.len().saturating_add(text.len()) > self.bytes_max {
            return Err(Fault::Memory);
        }
        self.text.push('"');
        for character in text.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                '\0'..='\x1f' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
                    self.text.push_str(&format!("\\u{:04x}", character as u32));
                }
                _ => self.text.push(character),
            }
        }
        self.text.push('"');
        Ok(())
    }
}
