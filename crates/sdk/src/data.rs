//! What may cross from one job to another: values of the program's own types, by `#[derive(Data)]`.
//!
//! A type has a schema, a text that says its shape; its digest crosses with each value, so that two builds of a program
//! with different types refuse each other instead of reading nonsense.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use crate::fields::{FieldType, Fill};
use crate::json::Json;

/// A value that jobs hand on.
///
/// The law: `T::from_json(&value.to_json())` gives the value back. Derived for structs and enums that own what they hold:
///
/// ```
/// #[derive(ropewalk::Data)]
/// enum Either { Number(u32), Flag(bool) }
/// #[derive(ropewalk::Data)]
/// struct Owned<T: Clone>(T);
/// ```
///
/// A union does not say which of its fields is set, and a reference does not own what it points to:
///
/// ```compile_fail
/// #[derive(ropewalk::Data)]
/// union Either { number: u32, flag: bool }
/// ```
///
/// ```compile_fail
/// #[derive(ropewalk::Data)]
/// struct Borrowed<'a>(&'a str);
/// ```
pub trait Data: Sized + 'static {
    /// The names of a struct's fields; where a function returns it, each is an output of its own for expressions and
    /// other notations.
    const PARTS: &'static [&'static str] = &[];

    /// Appends the shape of the type. Equal shapes, and only those, have equal texts: names of fields and variants
    /// count, names of types do not. A type that is inside itself writes its name the second time.
    fn schema(schema: &mut Schema);

    /// The value as JSON.
    fn to_json(&self) -> Json;

    /// Reads a value.
    ///
    /// # Errors
    /// If the JSON has not the shape of the type; the error says where.
    fn from_json(json: &Json) -> Result<Self, DecodeError>;

    /// Visits every file and directory inside the value, so that they can be handed on and their paths replaced.
    fn visit_files(&mut self, _visit: &mut dyn FnMut(&mut String)) {}
}

/// The shape of a type, being written.
#[derive(Debug, Default)]
pub struct Schema {
    text: String,
    /// Types that are being written, by name, outermost first.
    open: Vec<&'static str>,
    holds_files: bool,
}

impl Schema {
    /// The shape of `T`.
    #[must_use]
    pub fn of<T: Data>() -> Self {
        let mut schema = Self::default();
        T::schema(&mut schema);
        schema
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether values of the type may hold files.
    #[must_use]
    pub fn holds_files(&self) -> bool {
        self.holds_files
    }

    /// 128 bits of FNV-1a over the text, as hex. It tells different builds of one program apart; it is no defence.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        for byte in self.text.bytes() {
            hash = (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
        format!("{hash:032x}")
    }

    /// Appends the name of a plain type.
    pub fn word(&mut self, word: &str) {
        self.text.push_str(word);
    }

    /// Says that values hold a file here.
    pub fn file(&mut self, word: &str) {
        self.holds_files = true;
        self.text.push_str(word);
    }

    /// Writes a named type by `write`, or its name alone if it is inside itself.
    pub fn named(&mut self, name: &'static str, write: impl FnOnce(&mut Self)) {
        if self.open.contains(&name) {
            let _ = write!(self.text, "&{name}");
            return;
        }
        self.open.push(name);
        write(self);
        self.open.pop();
    }

    /// Appends `open`, the fields, each with its name, and `close`.
    pub fn field(&mut self, name: &str, write: impl FnOnce(&mut Self)) {
        let _ = write!(self.text, "{name}:");
        write(self);
        self.text.push(',');
    }
}

/// JSON that has not the shape of the type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Where, outermost first: `.versions[2].major`.
    path: String,
    message: String,
}

impl DecodeError {
    /// An error at this value.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { path: String::new(), message: message.into() }
    }

    /// `what` was expected, and this came.
    #[must_use]
    pub fn expected(what: &str, json: &Json) -> Self {
        let came = match json {
            Json::Null | Json::Unsayable(_) => "null",
            Json::Bool(_) => "a boolean",
            Json::Int(_) | Json::Float(_) => "a number",
            Json::Text(_) => "a string",
            Json::List(_) => "a list",
            Json::Object(_) => "an object",
        };
        Self::new(format!("{what} was expected, {came} came"))
    }

    /// One of these variants was expected, and this came.
    #[must_use]
    pub fn variant(words: &[&str], json: &Json) -> Self {
        let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        let expected = match words.as_slice() {
            [] => "nothing".to_owned(),
            [word] => word.clone(),
            words => format!("one of {}", words.join(", ")),
        };
        let name = match json {
            Json::Object(entries) => entries.first().map(|(name, _)| name.as_str()),
            json => json.as_str(),
        };
        match name {
            Some(name) => Self::new(format!("{expected} was expected, `{name}` came")),
            None => Self::expected(&expected, json),
        }
    }

    /// The same, inside the field of this name.
    #[must_use]
    pub fn in_field(mut self, name: &str) -> Self {
        self.path.insert_str(0, &format!(".{name}"));
        self
    }

    /// The same, inside the item of this index.
    #[must_use]
    pub fn in_item(mut self, index: usize) -> Self {
        self.path.insert_str(0, &format!("[{index}]"));
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.is_empty() {
            true => f.write_str(&self.message),
            false => write!(f, "{}: {}", self.path, self.message),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Reads the field `name` of an object; one that is missing is read as `null`.
///
/// # Errors
/// If the value has not the field's shape.
pub fn field<T: Data>(json: &Json, name: &str) -> Result<T, DecodeError> {
    T::from_json(json.get(name).unwrap_or(&Json::Null)).map_err(|error| error.in_field(name))
}

/// Checks that this is an object.
///
/// # Errors
/// If it is none.
#[doc(hidden)]
pub fn object(json: &Json) -> Result<(), DecodeError> {
    if let Json::Object(_) = json { Ok(()) } else { Err(DecodeError::expected("an object", json)) }
}

/// The items of a list of this length.
///
/// # Errors
/// If it is none, or longer or shorter.
#[doc(hidden)]
pub fn items(json: &Json, length: usize) -> Result<&[Json], DecodeError> {
    match json {
        Json::List(items) if items.len() == length => Ok(items),
        Json::List(items) => Err(DecodeError::new(format!("{length} items were expected, {} came", items.len()))),
        json => Err(DecodeError::expected("a list", json)),
    }
}

/// Reads an item of a list that [`items`] gave.
///
/// # Errors
/// If the value has not the item's shape.
#[doc(hidden)]
pub fn item<T: Data>(items: &[Json], index: usize) -> Result<T, DecodeError> {
    T::from_json(&items[index]).map_err(|error| error.in_item(index))
}

/// A file that a job hands on: it appears at this path, relative to the workspace, in the job that takes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct File {
    path: String,
}

/// A directory that a job hands on, with all that is in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Dir {
    path: String,
}

macro_rules! path_type {
    ($name:ident, $word:literal, $what:literal) => {
        impl $name {
            /// The one at this path, relative to the workspace.
            #[must_use]
            pub fn new(path: impl Into<String>) -> Self {
                Self { path: path.into() }
            }

            /// Where it is.
            #[must_use]
            pub fn path(&self) -> &std::path::Path {
                std::path::Path::new(&self.path)
            }
        }

        impl Data for $name {
            fn schema(schema: &mut Schema) {
                schema.file($word);
            }

            fn to_json(&self) -> Json {
                Json::Text(self.path.clone())
            }

            fn from_json(json: &Json) -> Result<Self, DecodeError> {
                json.as_str().map(Self::new).ok_or_else(|| DecodeError::expected($what, json))
            }

            fn visit_files(&mut self, visit: &mut dyn FnMut(&mut String)) {
                visit(&mut self.path);
            }
        }
    };
}

path_type!(File, "file", "the path of a file");
path_type!(Dir, "dir", "the path of a directory");

impl Data for () {
    fn schema(schema: &mut Schema) {
        schema.word("unit");
    }

    fn to_json(&self) -> Json {
        Json::Null
    }

    fn from_json(_: &Json) -> Result<Self, DecodeError> {
        Ok(())
    }
}

impl Fill for bool {
    const FIELD: FieldType = FieldType::Boolean;
}

impl Data for bool {
    fn schema(schema: &mut Schema) {
        schema.word("bool");
    }

    fn to_json(&self) -> Json {
        Json::Bool(*self)
    }

    fn from_json(json: &Json) -> Result<Self, DecodeError> {
        if let Json::Bool(flag) = json { Ok(*flag) } else { Err(DecodeError::expected("a boolean", json)) }
    }
}

impl Fill for String {
    const FIELD: FieldType = FieldType::Text;
}

impl Data for String {
    fn schema(schema: &mut Schema) {
        schema.word("text");
    }

    fn to_json(&self) -> Json {
        Json::Text(self.clone())
    }

    fn from_json(json: &Json) -> Result<Self, DecodeError> {
        json.as_str().map(str::to_owned).ok_or_else(|| DecodeError::expected("a string", json))
    }
}

macro_rules! integer {
    ($($kind:ident),*) => {$(
        impl Fill for $kind {
            const FIELD: FieldType = FieldType::Number;
        }

        impl Data for $kind {
            fn schema(schema: &mut Schema) {
                schema.word(stringify!($kind));
            }

            fn to_json(&self) -> Json {
                i64::try_from(*self).map_or_else(|_| Json::Text(self.to_string()), Json::from)
            }

            fn from_json(json: &Json) -> Result<Self, DecodeError> {
                let read = match json {
                    Json::Int(number) => Self::try_from(*number).ok(),
                    // What does not fit JSON's numbers travels as text.
                    Json::Text(text) => text.parse().ok(),
                    _ => None,
                };
                read.ok_or_else(|| DecodeError::expected(concat!("a whole number (", stringify!($kind), ")"), json))
            }
        }
    )*};
}

integer!(i8, i16, i32, i64, u8, u16, u32, u64, usize);

impl Fill for f64 {
    const FIELD: FieldType = FieldType::Number;
}

impl Data for f64 {
    fn schema(schema: &mut Schema) {
        schema.word("f64");
    }

    fn to_json(&self) -> Json {
        Json::Float(*self)
    }

    fn from_json(json: &Json) -> Result<Self, DecodeError> {
        match json {
            Json::Int(number) => Ok(*number as f64),
            Json::Float(number) => Ok(*number),
            _ => Err(DecodeError::expected("a number", json)),
        }
    }
}

impl<T: Data> Data for Option<T> {
    fn schema(schema: &mut Schema) {
        schema.word("?");
        T::schema(schema);
    }

    fn to_json(&self) -> Json {
        let Some(value) = self else { return Json::Null };
        match value.to_json() {
            // Wrapped, so that `Some(None)` is not `None`, nor a value like the wrapping the wrapping itself.
            inner if inner == Json::Null || some_of(&inner).is_some() => Json::object([("some", inner)]),
            inner => inner,
        }
    }

    fn from_json(json: &Json) -> Result<Self, DecodeError> {
        match json {
            Json::Null => Ok(None),
            json => T::from_json(some_of(json).unwrap_or(json)).map(Some),
        }
    }

    fn visit_files(&mut self, visit: &mut dyn FnMut(&mut String)) {
        self.iter_mut().for_each(|value| value.visit_files(visit));
    }
}

/// What is wrapped in `{"some": …}`.
fn some_of(json: &Json) -> Option<&Json> {
    if let [(name, inner)] = json.entries()
        && name == "some"
    {
        Some(inner)
    } else {
        None
    }
}

impl<T: Data> Data for Vec<T> {
    fn schema(schema: &mut Schema) {
        schema.word("[");
        T::schema(schema);
        schema.word("]");
    }

    fn to_json(&self) -> Json {
        Json::List(self.iter().map(Data::to_json).collect())
    }

    fn from_json(json: &Json) -> Result<Self, DecodeError> {
        let Json::List(items) = json else { return Err(DecodeError::expected("a list", json)) };
        let read = |(index, item)| T::from_json(item).map_err(|error| error.in_item(index));
        items.iter().enumerate().map(read).collect()
    }

    fn visit_files(&mut self, visit: &mut dyn FnMut(&mut String)) {
        self.iter_mut().for_each(|value| value.visit_files(visit));
    }
}

impl<T: Data> Data for BTreeMap<String, T> {
    fn schema(schema: &mut Schema) {
        schema.word("{*:");
        T::schema(schema);
        schema.word("}");
    }

    fn to_json(&self) -> Json {
        Json::Object(self.iter().map(|(name, value)| (name.clone(), value.to_json())).collect())
    }

    fn from_json(json: &Json) -> Result<Self, DecodeError> {
        let Json::Object(entries) = json else { return Err(DecodeError::expected("an object", json)) };
        let read = |(name, value): &(String, Json)| {
            let value = T::from_json(value).map_err(|error| error.in_field(name))?;
            Ok((name.clone(), value))
        };
        entries.iter().map(read).collect()
    }

    fn visit_files(&mut self, visit: &mut dyn FnMut(&mut String)) {
        self.values_mut().for_each(|value| value.visit_files(visit));
    }
}

impl<T: Fill> Fill for Box<T> {
    const FIELD: FieldType = T::FIELD;
}

impl<T: Data> Data for Box<T> {
    fn schema(schema: &mut Schema) {
        T::schema(schema);
    }

    fn to_json(&self) -> Json {
        T::to_json(self)
    }

    fn from_json(json: &Json) -> Result<Self, DecodeError> {
        T::from_json(json).map(Box::new)
    }

    fn visit_files(&mut self, visit: &mut dyn FnMut(&mut String)) {
        T::visit_files(self, visit);
    }
}

macro_rules! tuple {
    ($length:literal: $($name:ident $index:tt),+) => {
        impl<$($name: Data),+> Data for ($($name,)+) {
            fn schema(schema: &mut Schema) {
                schema.word("(");
                $(
                    $name::schema(schema);
                    schema.word(",");
                )+
                schema.word(")");
            }

            fn to_json(&self) -> Json {
                Json::List(vec![$(self.$index.to_json()),+])
            }

            fn from_json(json: &Json) -> Result<Self, DecodeError> {
                let items = items(json, $length)?;
                Ok(($(item::<$name>(items, $index)?,)+))
            }

            fn visit_files(&mut self, visit: &mut dyn FnMut(&mut String)) {
                $(self.$index.visit_files(visit);)+
            }
        }
    };
}

tuple!(1: A 0);
tuple!(2: A 0, B 1);
tuple!(3: A 0, B 1, C 2);
tuple!(4: A 0, B 1, C 2, D 3);
