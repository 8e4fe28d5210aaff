//! What an expression sees of the world: contexts by name, and functions that the language does not have itself.

use std::fmt;

use crate::{Value, letter_case};

/// Gives an evaluation its contexts and functions. An implementation must answer the same question in the same way
/// during one evaluation: the language compares objects by identity.
pub trait Environment {
    /// The context of that name, which is in lower case; `None` if there is none here, which is an error to the user.
    fn context(&self, name: &str) -> Option<Value>;

    /// The result of a function of the [`Scope`](crate::Scope), named as in its signature.
    fn call(&self, function: &str, arguments: &[Value]) -> Result<Value, CallError>;
}

/// Why a function gave no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// It cannot be called here, for example `hashFiles` before there is a checkout.
    Unavailable,
    /// It failed; the text says why.
    Failed(String),
}

type BoxedFunction = Box<dyn Fn(&[Value]) -> Result<Value, CallError> + Send + Sync>;

/// An environment of ready values and closures. Names are taken without regard to letter case.
#[derive(Default)]
pub struct Contexts {
    contexts: Vec<(String, Value)>,
    functions: Vec<(String, BoxedFunction)>,
}

impl Contexts {
    /// An environment without contexts and functions.
    pub fn new() -> Contexts {
        Contexts::default()
    }

    /// Adds a context, or replaces the one of that name.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Contexts {
        self.contexts.retain(|(known, _)| !letter_case::equal(known, name));
        self.contexts.push((name.to_owned(), value));
        self
    }

    /// Adds a function, or replaces the one of that name.
    #[must_use]
    pub fn with_function(
        mut self,
        name: &str,
        function: impl Fn(&[Value]) -> Result<Value, CallError> + Send + Sync + 'static,
    ) -> Contexts {
        self.functions.retain(|(known, _)| !letter_case::equal(known, name));
        self.functions.push((name.to_owned(), Box::new(function)));
        self
    }
}

impl Environment for Contexts {
    fn context(&self, name: &str) -> Option<Value> {
        let found = self.contexts.iter().find(|(known, _)| letter_case::equal(known, name))?;
        Some(found.1.clone())
    }

    fn call(&self, function: &str, arguments: &[Value]) -> Result<Value, CallError> {
        match self.functions.iter().find(|(known, _)| letter_case::equal(known, function)) {
            Some((_, body)) => body(arguments),
            None => Err(CallError::Unavailable),
        }
    }
}

impl fmt::Debug for Contexts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let functions: Vec<&str> = self.functions.iter().map(|(name, _)| name.as_str()).collect();
        formatter.debug_struct("Contexts").field("contexts", &self.contexts).field("functions", &functions).finish()
    }
}
