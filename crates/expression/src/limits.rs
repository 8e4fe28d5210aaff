//! Every bound of the language, by name. At a bound, parsing or evaluation ends with [`ErrorKind::Limit`].
//!
//! [`ErrorKind::Limit`]: crate::ErrorKind::Limit

/// Depth of an expression's tree; `a && b && c` is one level, parentheses are none. GitHub: `ExpressionConstants.MaxDepth`.
pub const EXPRESSION_DEPTH_MAX: u32 = 50;

/// Length of one expression in UTF-16 units. GitHub: `ExpressionConstants.MaxLength`.
pub const EXPRESSION_LENGTH_MAX: usize = 21_000;

/// Bytes of one template's text.
pub const TEMPLATE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// `${{ }}` in one template.
pub const TEMPLATE_EXPRESSIONS_MAX: usize = 1_000;

/// Faults that one reading of a text tells of names; behind that many a template is not read on.
pub const FAULTS_MAX: usize = 100;

/// Bytes that one evaluation may hold in values it makes, strings counted in UTF-16 as GitHub does (10 MiB there too).
pub const MEMORY_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Steps of one evaluation: one for each node and each item looked at, and one for every 64 bytes of text read or written.
pub const STEPS_MAX: u64 = 4_000_000;

/// Nesting of a value that `toJSON` writes; `fromJSON` itself stops at 128.
pub const VALUE_DEPTH_MAX: usize = 256;

/// What one evaluation may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// See [`MEMORY_BYTES_MAX`].
    pub memory_bytes_max: usize,
    /// See [`STEPS_MAX`].
    pub steps_max: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { memory_bytes_max: MEMORY_BYTES_MAX, steps_max: STEPS_MAX }
    }
}
