//! Typed fields that a person fills in: parameters of a manual start, answers at a gate.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One field of a form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// What may be filled in.
    #[serde(flatten)]
    pub kind: FieldKind,
    /// Taken when nothing is filled in; without it the field must be filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Shown beside the field.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
}

/// The type of a field's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FieldKind {
    /// Any text.
    String,
    /// A JSON number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// One of these texts; at least one.
    Choice {
        /// What may be chosen, in the order shown.
        options: Vec<String>,
    },
}

impl Field {
    /// Turns what a person typed (`key=value`) into the field's value.
    ///
    /// # Errors
    /// A sentence that says what the field takes.
    pub fn parse(&self, typed: &str) -> Result<Value, String> {
        match &self.kind {
            FieldKind::String => Ok(Value::from(typed)),
            FieldKind::Number => serde_json::from_str::<serde_json::Number>(typed)
                .map(Value::Number)
                .map_err(|_| format!("takes a number, not `{typed}`")),
            FieldKind::Boolean => match typed {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => Err(format!("takes `true` or `false`, not `{typed}`")),
            },
            FieldKind::Choice { options } if options.iter().any(|option| option == typed) => Ok(Value::from(typed)),
            FieldKind::Choice { options } => Err(format!("takes one of {}, not `{typed}`", options.join(", "))),
        }
    }

    /// Whether `value` is of the field's type.
    #[must_use]
    pub fn admits(&self, value: &Value) -> bool {
        match (&self.kind, value) {
            (FieldKind::String, Value::String(_))
            | (FieldKind::Number, Value::Number(_))
            | (FieldKind::Boolean, Value::Bool(_)) => true,
            (FieldKind::Choice { options }, Value::String(value)) => options.contains(value),
            _ => false,
        }
    }
}
