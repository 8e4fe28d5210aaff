//! The data of the language and its coercions.
//!
//! Arrays and objects are shared and never change; the language compares them by identity, so there is no `PartialEq`.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::{Error, json, letter_case, number};

/// A value of the language. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// `null`; also what a missing property is.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A 64-bit float, NaN and infinities included.
    Number(f64),
    /// Text.
    String(Arc<str>),
    /// A sequence.
    Array(Arc<Array>),
    /// Named values in order.
    Object(Arc<Object>),
}

/// A [`Value`]'s kind without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueKind {
    /// Of [`Value::Null`].
    Null,
    /// Of [`Value::Bool`].
    Bool,
    /// Of [`Value::Number`].
    Number,
    /// Of [`Value::String`].
    String,
    /// Of [`Value::Array`].
    Array,
    /// Of [`Value::Object`].
    Object,
}

impl fmt::Display for ValueKind {
    /// The kind as GitHub names it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            ValueKind::Null => "Null",
            ValueKind::Bool => "Boolean",
            ValueKind::Number => "Number",
            ValueKind::String => "String",
            ValueKind::Array => "Array",
            ValueKind::Object => "Object",
        })
    }
}

/// A sequence of values. One that came from `.*` or `[*]` hands a further index on to each of its items.
#[derive(Debug)]
pub struct Array {
    items: Vec<Value>,
    origin: ArrayOrigin,
}

#[derive(Debug, PartialEq)]
enum ArrayOrigin {
    Data,
    Filter,
}

impl Array {
    /// An array of data.
    pub fn new(items: Vec<Value>) -> Array {
        Array { items, origin: ArrayOrigin::Data }
    }

    /// What an object filter (`.*`) selected.
    pub(crate) fn filtered(items: Vec<Value>) -> Array {
        Array { items, origin: ArrayOrigin::Filter }
    }

    /// The items in order.
    pub fn items(&self) -> &[Value] {
        &self.items
    }

    pub(crate) fn is_filtered(&self) -> bool {
        self.origin == ArrayOrigin::Filter
    }
}

/// Named values in the order in which they were given. Names differing only in letter case are one name, unless
/// the object was made [with exact names](Object::with_exact_names).
#[derive(Debug)]
pub struct Object {
    // No two entries have equal names; `places` is over the folded (or exact) names and present from `SCAN_MAX` entries on.
    entries: Vec<(Arc<str>, Value)>,
    names: Names,
    places: Option<HashMap<Box<str>, usize>>,
}

#[derive(Clone, Copy, Debug)]
enum Names {
    IgnoreCase,
    Exact,
}

impl Names {
    fn key(self, name: &str) -> Cow<'_, str> {
        match self {
            Names::IgnoreCase => letter_case::fold(name),
            Names::Exact => Cow::Borrowed(name),
        }
    }

    fn equal(self, left: &str, right: &str) -> bool {
        match self {
            Names::IgnoreCase => letter_case::equal(left, right),
            Names::Exact => left == right,
        }
    }
}

impl Object {
    /// Up to this many entries, looking at each is quicker than hashing.
    const SCAN_MAX: usize = 16;

    /// An object; of entries with equal names the last one's value stays, at the first one's place.
    pub fn new(entries: impl IntoIterator<Item = (Arc<str>, Value)>) -> Object {
        Object::build(entries.into_iter().collect(), Names::IgnoreCase)
    }

    /// An object whose names are told apart by letter case, as the `env` context on a Unix worker.
    pub fn with_exact_names(entries: impl IntoIterator<Item = (Arc<str>, Value)>) -> Object {
        Object::build(entries.into_iter().collect(), Names::Exact)
    }

    fn build(given: Vec<(Arc<str>, Value)>, names: Names) -> Object {
        let mut object = Object { entries: Vec::with_capacity(given.len()), names, places: None };
        if given.len() > Object::SCAN_MAX {
            object.places = Some(HashMap::with_capacity(given.len()));
        }
        for (name, value) in given {
            match object.place(&name) {
                Some(place) => object.entries[place].1 = value,
                None => {
                    if let Some(places) = &mut object.places {
                        places.insert(names.key(&name).into(), object.entries.len());
                    }
                    object.entries.push((name, value));
                }
            }
        }
        object
    }

    fn place(&self, name: &str) -> Option<usize> {
        match &self.places {
            Some(places) => places.get(self.names.key(name).as_ref()).copied(),
            None => self.entries.iter().position(|(known, _)| self.names.equal(known, name)),
        }
    }

    /// The value of that name, if there is one.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.place(name).map(|place| &self.entries[place].1)
    }

    /// All entries in order; no two names are equal.
    pub fn entries(&self) -> &[(Arc<str>, Value)] {
        &self.entries
    }
}

impl Value {
    /// An array of data.
    pub fn array(items: Vec<Value>) -> Value {
        Value::Array(Arc::new(Array::new(items)))
    }

    /// An object with these entries; see [`Object::new`].
    pub fn object<N: Into<Arc<str>>>(entries: impl IntoIterator<Item = (N, Value)>) -> Value {
        Value::Object(Arc::new(Object::new(entries.into_iter().map(|(name, value)| (name.into(), value)))))
    }

    /// Reads JSON text; keeps the order of keys. Errors are of kind `Evaluate`, or `Limit` when it needs too much memory.
    pub fn from_json(text: &str) -> Result<Value, Error> {
        json::read(text, crate::limits::MEMORY_BYTES_MAX)
            .map(|read| read.value)
            .map_err(|fault| Error::plain(fault.kind(), fault.message(), 0..text.len()))
    }

    /// The value as a `serde_json` one. NaN and infinities, which JSON has not, become null; whole numbers become integers.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Null => serde_json::Value::Null,
            Value::Bool(truth) => (*truth).into(),
            Value::Number(number) if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 => {
                (*number as i64).into()
            }
            Value::Number(number) => (*number).into(),
            Value::String(text) => text.as_ref().into(),
            Value::Array(array) => array.items.iter().map(Value::to_json).collect(),
            Value::Object(object) => {
                let entries = object.entries.iter().map(|(name, value)| (name.to_string(), value.to_json()));
                serde_json::Value::Object(entries.collect())
            }
        }
    }

    /// The value's kind.
    pub fn kind(&self) -> ValueKind {
        match self {
            Value::Null => ValueKind::Null,
            Value::Bool(_) => ValueKind::Bool,
            Value::Number(_) => ValueKind::Number,
            Value::String(_) => ValueKind::String,
            Value::Array(_) => ValueKind::Array,
            Value::Object(_) => ValueKind::Object,
        }
    }

    /// Whether it counts as true: everything but null, `false`, zero, NaN and the empty text.
    pub fn is_truthy(&self) -> bool {
        match self {
            Value::Null => false,
            Value::Bool(truth) => *truth,
            Value::Number(number) => *number != 0.0 && !number.is_nan(),
            Value::String(text) => !text.is_empty(),
            Value::Array(_) | Value::Object(_) => true,
        }
    }

    /// The value as text, as a template inserts it: null is empty, an array is `Array`, an object `Object`.
    pub fn to_text(&self) -> Cow<'_, str> {
        match self {
            Value::Null => "".into(),
            Value::Bool(true) => "true".into(),
            Value::Bool(false) => "false".into(),
            Value::Number(number) => number::format(*number).into(),
            Value::String(text) => text.as_ref().into(),
            Value::Array(_) => "Array".into(),
            Value::Object(_) => "Object".into(),
        }
    }

    /// The value as a number: null is 0, `true` 1, text what it spells (or NaN), arrays and objects NaN.
    pub fn to_number(&self) -> f64 {
        match self {
            Value::Null => 0.0,
            Value::Bool(truth) => f64::from(u8::from(*truth)),
            Value::Number(number) => *number,
            Value::String(text) => number::parse(text),
            Value::Array(_) | Value::Object(_) => f64::NAN,
        }
    }

    /// Whether it is neither an array nor an object.
    pub fn is_primitive(&self) -> bool {
        !matches!(self, Value::Array(_) | Value::Object(_))
    }

    /// The property of that name, of an object.
    pub fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Value::Object(object) => object.get(name),
            _ => None,
        }
    }

    /// `==` of the language: text without regard to letter case, arrays and objects by identity, different kinds as numbers.
    pub fn equals(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(left), Value::Bool(right)) => left == right,
            (Value::String(left), Value::String(right)) => letter_case::equal(left, right),
            (Value::Array(left), Value::Array(right)) => Arc::ptr_eq(left, right),
            (Value::Object(left), Value::Object(right)) => Arc::ptr_eq(left, right),
            _ => self.to_number() == other.to_number(),
        }
    }

    /// `<` and `>` of the language; `None` where neither holds for want of an order (NaN, arrays, objects, null and null).
    pub fn compare(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Null, Value::Null) => None,
            (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
            (Value::String(left), Value::String(right)) => Some(letter_case::compare(left, right)),
            _ => self.to_number().partial_cmp(&other.to_number()),
        }
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Value {
        Value::Bool(truth)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Number(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::String(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::String(text.into())
    }
}

impl From<Arc<str>> for Value {
    fn from(text: Arc<str>) -> Value {
        Value::String(text)
    }
}

impl From<&serde_json::Value> for Value {
    /// Keeps the order that the map has; numbers become floats.
    fn from(json: &serde_json::Value) -> Value {
        match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(truth) => Value::Bool(*truth),
            serde_json::Value::Number(number) => Value::Number(number.as_f64().unwrap_or(f64::NAN)),
            serde_json::Value::String(text) => text.as_str().into(),
            serde_json::Value::Array(items) => Value::array(items.iter().map(Value::from).collect()),
            serde_json::Value::Object(entries) => {
                Value::object(entries.iter().map(|(name, value)| (name.as_str(), Value::from(value))))
            }
        }
    }
}
