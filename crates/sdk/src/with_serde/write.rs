//! Writes what serde can write as [`Json`], by the conventions of `serde_json`. What they would lose is an error.

use serde::Serialize;
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant, Serializer,
};

use crate::data::DecodeError;
use crate::json::Json;

type Written<T = Json> = Result<T, DecodeError>;

/// What writes one value.
pub(super) struct Writer;

/// A list being written; in a variant of this name.
pub(super) struct List {
    items: Vec<Json>,
    variant: Option<&'static str>,
}

/// An object being written; in a variant of this name.
pub(super) struct Object {
    entries: Vec<(String, Json)>,
    key: String,
    variant: Option<&'static str>,
}

fn wrapped(variant: Option<&'static str>, json: Json) -> Json {
    match variant {
        Some(variant) => Json::object([(variant, json)]),
        None => json,
    }
}

impl List {
    fn new(length: Option<usize>, variant: Option<&'static str>) -> Self {
        // What a type says of its length is no promise.
        Self { items: Vec::with_capacity(length.unwrap_or_default().min(1024)), variant }
    }

    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Written<()> {
        let item = value.serialize(Writer).map_err(|error| error.in_item(self.items.len()))?;
        self.items.push(item);
        Ok(())
    }

    fn written(self) -> Json {
        wrapped(self.variant, Json::List(self.items))
    }
}

impl Object {
    fn new(variant: Option<&'static str>) -> Self {
        Self { entries: Vec::new(), key: String::new(), variant }
    }

    fn entry<T: Serialize + ?Sized>(&mut self, name: String, value: &T) -> Written<()> {
        let value = value.serialize(Writer).map_err(|error| error.in_field(&name))?;
        self.entries.push((name, value));
        Ok(())
    }

    fn written(self) -> Json {
        wrapped(self.variant, Json::Object(self.entries))
    }
}

macro_rules! whole {
    ($($method:ident $kind:ty),*) => {$(
        fn $method(self, number: $kind) -> Written {
            Ok(Json::Int(number.into()))
        }
    )*};
}

impl Serializer for Writer {
    type Ok = Json;
    type Error = DecodeError;
    type SerializeSeq = List;
    type SerializeTuple = List;
    type SerializeTupleStruct = List;
    type SerializeTupleVariant = List;
    type SerializeMap = Object;
    type SerializeStruct = Object;
    type SerializeStructVariant = Object;

    whole!(
        serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64, serialize_i128 i128,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64
    );

    fn serialize_u128(self, number: u128) -> Written {
        let read = i128::try_from(number).map(Json::Int);
        read.map_err(|_| DecodeError::new(format!("{number}, which is more than the largest i128")))
    }

    fn serialize_bool(self, flag: bool) -> Written {
        Ok(Json::Bool(flag))
    }

    fn serialize_f32(self, number: f32) -> Written {
        Ok(Json::Float(number.into()))
    }

    fn serialize_f64(self, number: f64) -> Written {
        // Infinity and NaN are found in what is written, with their place.
        Ok(Json::Float(number))
    }

    fn serialize_char(self, letter: char) -> Written {
        Ok(Json::Text(letter.to_string()))
    }

    fn serialize_str(self, text: &str) -> Written {
        Ok(text.into())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Written {
        Ok(bytes.to_vec().into())
    }

    fn serialize_none(self) -> Written {
        Ok(Json::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        match value.serialize(Self)? {
            Json::Null => Err(DecodeError::new("a `Some` of what is `null` in JSON, which would be read as `None`")),
            json => Ok(json),
        }
    }

    fn serialize_unit(self) -> Written {
        Ok(Json::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Written {
        Ok(Json::Null)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Written {
        Ok(variant.into())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Written {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Written {
        let json = value.serialize(self).map_err(|error| error.in_field(variant))?;
        Ok(wrapped(Some(variant), json))
    }

    fn serialize_seq(self, length: Option<usize>) -> Written<List> {
        Ok(List::new(length, None))
    }

    fn serialize_tuple(self, length: usize) -> Written<List> {
        Ok(List::new(Some(length), None))
    }

    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Written<List> {
        Ok(List::new(Some(length), None))
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, variant: &'static str, length: usize) -> Written<List> {
        Ok(List::new(Some(length), Some(variant)))
    }

    fn serialize_map(self, _: Option<usize>) -> Written<Object> {
        Ok(Object::new(None))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Written<Object> {
        Ok(Object::new(None))
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, variant: &'static str, _: usize) -> Written<Object> {
        Ok(Object::new(Some(variant)))
    }
}

macro_rules! list {
    ($($kind:ident $method:ident),*) => {$(
        impl $kind for List {
            type Ok = Json;
            type Error = DecodeError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Written<()> {
                self.item(value)
            }

            fn end(self) -> Written {
                Ok(self.written())
            }
        }
    )*};
}

list!(
    SerializeSeq serialize_element, SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field
);

macro_rules! fields {
    ($($kind:ident),*) => {$(
        impl $kind for Object {
            type Ok = Json;
            type Error = DecodeError;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Written<()> {
                self.entry(name.to_owned(), value)
            }

            fn end(self) -> Written {
                Ok(self.written())
            }
        }
    )*};
}

fields!(SerializeStruct, SerializeStructVariant);

impl SerializeMap for Object {
    type Ok = Json;
    type Error = DecodeError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Written<()> {
        self.key = match key.serialize(Writer)? {
            Json::Text(text) => text,
            Json::Int(number) => number.to_string(),
            Json::Bool(flag) => flag.to_string(),
            _ => return Err(DecodeError::new("a map whose keys are neither texts nor whole numbers")),
        };
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Written<()> {
        let name = std::mem::take(&mut self.key);
        self.entry(name, value)
    }

    fn end(self) -> Written {
        Ok(self.written())
    }
}
