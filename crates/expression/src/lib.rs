//! The `${{ }}` language, with GitHub's semantics.
//!
//! Three things can be read: an [`Expression`] (what stands between `${{` and `}}`), a [`Template`] (text with any number
//! of them), and a [`Condition`] (what stands after `if:`). Each is parsed once, tells which contexts and functions it
//! names, and is evaluated as often as wanted against an [`Environment`].
//!
//! ```
//! use ropewalk_expression::{Contexts, Template, Value};
//!
//! let template = Template::parse("v${{ needs.build.outputs.version || '0' }}")?;
//! assert_eq!(template.context_paths()[0].to_string(), "needs.build.outputs.version");
//!
//! let contexts = Contexts::new().with("needs", Value::from_json(r#"{"build": {"outputs": {"version": 7}}}"#)?);
//! assert_eq!(template.evaluate(&contexts)?, "v7");
//! # Ok::<(), ropewalk_expression::Error>(())
//! ```
//!
//! Nothing here does I/O, reads a clock or panics on what a user wrote. Every loop over foreign text or data has a bound
//! from [`limits`]. Where GitHub's own two implementations differ, the one that runs workflows (.NET) is followed.

pub mod limits;

mod json;
mod letter_case;
mod number;
mod value;

mod environment;
mod error;
mod evaluation;
mod expression;
mod functions;
mod syntax;
mod token;

mod condition;
mod template;

pub use condition::Condition;
pub use environment::{CallError, Contexts, Environment};
pub use error::{Error, ErrorKind};
pub use expression::{ContextPath, Expression, PathKey, parse, parse_in};
pub use functions::{Scope, Signature, WORKFLOW_FUNCTIONS};
pub use limits::Limits;
pub use template::{Segment, Template};
pub use value::{Array, Object, Value, ValueKind};
