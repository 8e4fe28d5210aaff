//! Lists without end, a page at a time: `?limit=` says how many, `?cursor=` where to go on.
//!
//! A cursor is opaque: it is the `next` of the page before and nothing else. What is added or removed meanwhile neither
//! repeats nor hides what stays.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many items a page has when nobody says.
pub const LIMIT_DEFAULT: u32 = 100;
/// The most items of a page; a larger wish is refused.
pub const LIMIT_MAX: u32 = 1000;
/// The longest cursor in bytes.
pub const CURSOR_BYTES_MAX: usize = 1024;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PageOf{T}")]
pub struct Page<T> {
    /// The items, in the order that the list is documented to have.
    pub items: Vec<T>,
    /// Where the next page begins: the `cursor` of the next call. Absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// All there is.
    #[must_use]
    pub fn whole(items: Vec<T>) -> Self {
        Self { items, next: None }
    }
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self::whole(Vec::new())
    }
}

/// The schema of `limit`.
pub fn limit_shape(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT })
}

/// The longest id of an object of a stream in bytes: it names every attempt that runs.
pub const ID_BYTES_MAX: usize = 64 * 1024;

/// The schema of the id of an object of a stream.
pub fn id_shape(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "maxLength": ID_BYTES_MAX })
}

/// The schema of `cursor`.
pub fn cursor_shape(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "maxLength": CURSOR_BYTES_MAX })
}
