//! The shape of a type, as far as its `Deserialize` shows it: it is run on made-up values, and what it asks for is written down.
//!
//! An enum is shown another of its variants each time, so a type is looked at several times. All that is bounded, by what
//! is asked for and by how deep it stands.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

use crate::data::DecodeError;

/// The most times that a type is looked at.
const LOOKS_MAX: usize = 64;
/// The most values that are asked for in one look.
const ASKED_MAX: usize = 4096;
/// How deep they may stand in one another.
const DEPTH_MAX: usize = 48;

type Read<T> = Result<T, DecodeError>;

/// An enum, by its name and its variants.
type Enum = (&'static str, &'static [&'static str]);

/// What was asked for, look by look; a look that shows nothing new is left out.
pub(super) fn of<T: DeserializeOwned>() -> String {
    let mut turns = BTreeMap::new();
    let mut looks: Vec<String> = Vec::new();
    for _ in 0..LOOKS_MAX {
        let mut look = Look { turns, open: Vec::new(), asked: String::new(), n_asked: 0, depth: 0 };
        // A type may panic on a value that nobody gave it.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| T::deserialize(&mut look).map(drop)));
        turns = look.turns;
        if !looks.contains(&look.asked) {
            looks.push(look.asked);
        }
        if turns.iter().all(|((_, variants), turn)| *turn >= variants.len()) {
            break;
        }
    }
    looks.join("|")
}

struct Look {
    /// Which variant of each enum is shown next.
    turns: BTreeMap<Enum, usize>,
    /// Types that are being asked for, by name, outermost first.
    open: Vec<&'static str>,
    asked: String,
    n_asked: usize,
    depth: usize,
}

impl Look {
    /// Writes down that this was asked for.
    fn note(&mut self, word: &str) -> Read<()> {
        self.n_asked += 1;
        if self.n_asked > ASKED_MAX || self.depth > DEPTH_MAX {
            return Err(DecodeError::new("more than is looked at"));
        }
        self.asked.push_str(word);
        Ok(())
    }

    /// Whether the innermost type stands in itself: then it is not filled again.
    fn is_again(&self) -> bool {
        self.open.split_last().is_some_and(|(last, others)| others.contains(last))
    }

    /// What is inside `begin` and `end`.
    fn inside<T>(&mut self, begin: &str, end: &str, ask: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        self.note(begin)?;
        self.depth += 1;
        let asked = ask(self);
        self.depth -= 1;
        self.asked.push_str(end);
        asked
    }

    /// What is inside the type of this name.
    fn named<T>(&mut self, name: &'static str, ask: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        self.open.push(name);
        let asked = self.inside(name, "", ask);
        self.open.pop();
        asked
    }
}

macro_rules! plain {
    ($($method:ident $word:literal $visit:ident $value:expr),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
            self.note(concat!($word, ","))?;
            visitor.$visit($value)
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Look {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.note("any,")?;
        visitor.visit_unit()
    }

    plain!(
        deserialize_bool "bool" visit_bool false,
        // One, since there are numbers that are not zero.
        deserialize_i8 "i8" visit_i8 1,
        deserialize_i16 "i16" visit_i16 1,
        deserialize_i32 "i32" visit_i32 1,
        deserialize_i64 "i64" visit_i64 1,
        deserialize_i128 "i128" visit_i128 1,
        deserialize_u8 "u8" visit_u8 1,
        deserialize_u16 "u16" visit_u16 1,
        deserialize_u32 "u32" visit_u32 1,
        deserialize_u64 "u64" visit_u64 1,
        deserialize_u128 "u128" visit_u128 1,
        deserialize_f32 "f32" visit_f32 1.0,
        deserialize_f64 "f64" visit_f64 1.0,
        deserialize_char "char" visit_char 'a',
        deserialize_str "text" visit_str "",
        deserialize_string "text" visit_str "",
        deserialize_bytes "bytes" visit_bytes &[],
        deserialize_byte_buf "bytes" visit_bytes &[],
        deserialize_identifier "name" visit_str "",
    );

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.note("unit,")?;
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Read<V::Value> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.note("?")?;
        if self.is_again() { visitor.visit_none() } else { self.inside("", "", |look| visitor.visit_some(look)) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Read<V::Value> {
        self.named(name, |look| look.inside("(", ")", |look| visitor.visit_newtype_struct(look)))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        let left = usize::from(!self.is_again());
        self.inside("[", "]", |look| visitor.visit_seq(Items { look, left }))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Read<V::Value> {
        self.inside("(", ")", |look| visitor.visit_seq(Items { look, left: length }))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Read<V::Value> {
        self.named(name, |look| look.deserialize_tuple(length, visitor))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        let left = usize::from(!self.is_again());
        self.inside("{*", "}", |look| visitor.visit_map(Entries { look, left }))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        self.named(name, |look| look.fields(fields, visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        self.named(name, |look| {
            look.note(&format!("<{}>", variants.join(",")))?;
            let turn = look.turns.entry((name, variants)).or_default();
            let Some(variant) = variants.get(*turn % variants.len().max(1)) else {
                return Err(DecodeError::new("an enum without variants"));
            };
            *turn += 1;
            look.inside(variant, ";", |look| visitor.visit_enum(Variant { look, variant }))
        })
    }
}

impl Look {
    fn fields<'de, V: Visitor<'de>>(&mut self, fields: &'static [&'static str], visitor: V) -> Read<V::Value> {
        // All names first, since a field that refuses its value ends the look.
        self.inside(&format!("{{{}:", fields.join(",")), "}", |look| visitor.visit_map(Fields { look, fields, at: 0 }))
    }
}

struct Items<'a> {
    look: &'a mut Look,
    left: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = DecodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Read<Option<S::Value>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.look).map(Some)
    }
}

struct Entries<'a> {
    look: &'a mut Look,
    left: usize,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = DecodeError;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Read<Option<S::Value>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.look).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Read<S::Value> {
        seed.deserialize(&mut *self.look)
    }
}

struct Fields<'a> {
    look: &'a mut Look,
    fields: &'static [&'static str],
    at: usize,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = DecodeError;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Read<Option<S::Value>> {
        let Some(name) = self.fields.get(self.at) else { return Ok(None) };
        self.at += 1;
        let name: StrDeserializer<'_, DecodeError> = name.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Read<S::Value> {
        seed.deserialize(&mut *self.look)
    }
}

struct Variant<'a> {
    look: &'a mut Look,
    variant: &'static str,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = DecodeError;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Read<(S::Value, Self)> {
        let name: StrDeserializer<'_, DecodeError> = self.variant.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = DecodeError;

    fn unit_variant(self) -> Read<()> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Read<S::Value> {
        seed.deserialize(self.look)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Read<V::Value> {
        self.look.deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Read<V::Value> {
        self.look.fields(fields, visitor)
    }
}
