//! Values of types that know serde and not [`Data`]: the feature `serde`, off unless a package asks for it.
//!
//! ```toml
//! ropewalk = { path = ".sdk/ropewalk", features = ["serde"] }
//! ```

mod read;
mod shape;
mod write;

use std::ops::{Deref, DerefMut};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::data::{Data, DecodeError, Schema};
use crate::json::Json;

/// A value of a type that serde can write and read, such as one of another crate: whole, or as a field of a type with `#[derive(Data)]`.
///
/// ```
/// use ropewalk::{Ci, Data, Serde};
///
/// #[derive(Data)]
/// struct Plan {
///     budget: Serde<std::time::Duration>,
/// }
///
/// fn ci(ci: &Ci) {
///     let plan = ci.job("plan").run_fn(|_, ()| Ok(Plan { budget: Serde(std::time::Duration::from_secs(90)) }));
///     ci.job("use").inputs(&plan).run_fn(|_, plan: Plan| {
///         println!("{} s", plan.budget.as_secs());
///         Ok(())
///     });
/// }
/// ```
///
/// It is JSON as `serde_json` has it, and every number is exact. What that would lose fails the function which returned it: NaN, a `Some` of
/// what is `null`, a map whose keys are no texts or numbers.
///
/// **Schema.** serde tells no shape of a type. What crosses with a value is the digest of the type's path and of all that its
/// `Deserialize` asks for when it is shown made-up values: names of fields and variants, kinds of numbers, down to the leaves. So
/// another build, in which one of these differs, refuses. The look ends where a `Deserialize` refuses a made-up value
/// (a text that must be a date) or asks for anything at all (`untagged`, `flatten`, `tag`): a change behind such a place is not
/// seen, and is found only if the value then does not read. Give the type another name where that matters.
///
/// Fields of the value are no outputs of their own, and files inside it are not handed on: that needs `#[derive(Data)]`. A `HashMap` is written in
/// another order each time, so jobs that take it are not reused: a `BTreeMap` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serde<T>(pub T);

impl<T> Deref for Serde<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Serde<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> From<T> for Serde<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T: Serialize + DeserializeOwned + 'static> Data for Serde<T> {
    fn schema(schema: &mut Schema) {
        schema.word("serde ");
        schema.word(std::any::type_name::<T>());
        schema.word(&shape::of::<T>());
    }

    fn to_json(&self) -> Json {
        self.0.serialize(write::Writer).unwrap_or_else(|error| Json::Unsayable(error.to_string()))
    }

    fn from_json(json: &Json) -> Result<Self, DecodeError> {
        T::deserialize(json).map(Self)
    }
}

impl serde::ser::Error for DecodeError {
    fn custom<M: std::fmt::Display>(message: M) -> Self {
        Self::new(message.to_string())
    }
}

impl serde::de::Error for DecodeError {
    fn custom<M: std::fmt::Display>(message: M) -> Self {
        Self::new(message.to_string())
    }
}

#[cfg(test)]
mod tests;
