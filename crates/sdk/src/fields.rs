//! Things that a person fills in: parameters of a manual start, fields of a gate.

use std::marker::PhantomData;

use crate::data::Data;
use crate::json::Json;

/// A value that a person can fill in, at a gate or before a manual start: a `String`, a number, a `bool`. `#[derive(Data)]` makes it of an
/// enum without fields, which gives its words, and of a tuple struct around one of these.
#[diagnostic::on_unimplemented(
    message = "a person cannot fill in a value of the type `{Self}`",
    label = "neither text, number, boolean nor choice",
    note = "take a `String`, a number, a `bool`, or a type with `#[derive(Data)]`: an enum without fields, or a tuple struct around one of these"
)]
pub trait Fill: Data {
    /// What is filled in.
    const FIELD: FieldType;
}

/// What a person may fill in for values of a type: [`Fill::FIELD`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// Any text.
    Text,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// One thing to fill in, of type `T`.
#[derive(Debug)]
pub struct Field<T> {
    name: String,
    default: Option<Json>,
    help: Option<String>,
    is: PhantomData<fn() -> T>,
}

/// A thing to fill in, under this name. Of what nobody can fill in there is no field:
///
/// ```compile_fail,E0277
/// let names = ropewalk::field::<Vec<String>>("names");
/// ```
#[must_use]
pub fn field<T: Fill>(name: impl Into<String>) -> Field<T> {
    Field { name: name.into(), default: None, help: None, is: PhantomData }
}

impl<T: Fill> Field<T> {
    /// Taken when nothing is filled in. Without it the field must be filled in.
    #[must_use]
    pub fn default(mut self, value: impl Into<T>) -> Self {
        self.default = Some(value.into().to_json());
        self
    }

    /// Shown beside the field.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// The name, and the field as the native format has it.
    pub(crate) fn entry(self) -> (String, Json) {
        (self.name, form(T::FIELD, self.default, self.help))
    }
}

/// A field as the native format has it.
pub(crate) fn form(kind: FieldType, default: Option<Json>, help: Option<String>) -> Json {
    let word = match kind {
        FieldType::Text => "string",
        FieldType::Number => "number",
        FieldType::Boolean => "boolean",
        FieldType::Choice(_) => "choice",
    };
    let mut entries = vec![("type".to_owned(), Json::from(word))];
    if let FieldType::Choice(options) = kind {
        entries.push(("options".to_owned(), options.to_vec().into()));
    }
    entries.extend(default.map(|value| ("default".to_owned(), value)));
    entries.extend(help.map(|text| ("help".to_owned(), text.into())));
    Json::Object(entries)
}
