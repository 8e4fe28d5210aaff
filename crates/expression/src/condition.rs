//! What stands after `if:`: an expression with or without `${{ }}` around it.

use crate::evaluation::call_fault;
use crate::expression::read_in;
use crate::{ContextPath, Environment, Error, ErrorKind, Expression, Scope, Segment, Template, Value};

/// A condition of a job or step.
#[derive(Clone, Debug)]
pub struct Condition {
    form: Form,
    /// Where in the given text the expression's own text begins.
    offset: usize,
}

#[derive(Clone, Debug)]
enum Form {
    /// Nothing is asked beyond the implied `success()`.
    Empty,
    Expression(Expression),
    /// Text around `${{ }}`: the whole is a string, and true unless it is empty. Surely not what its writer meant.
    Text(Template),
}

impl Condition {
    /// Parses a condition with any contexts and GitHub's functions. Errors have ranges in this text.
    pub fn parse(text: &str) -> Result<Condition, Error> {
        Condition::parse_in(text, &Scope::default())
    }

    /// Parses a condition that may use only the names of this scope; see [`Condition::read`].
    pub fn parse_in(text: &str, scope: &Scope<'_>) -> Result<Condition, Error> {
        let (condition, faults) = Condition::read(text, scope);
        faults.into_iter().next().map_or(Ok(condition), Err)
    }

    /// What of a condition can be read, with every fault in it, in order, as [`Template::read`] gives it; an expression without `${{ }}`
    /// that cannot be read is the empty condition. With a fault among them the condition is there to be asked what it reads, not to be decided.
    ///
    /// A text without `${{` is an expression; one that is exactly `${{ }}` (white space around it aside) is what stands
    /// inside; white space alone is the empty condition.
    pub fn read(text: &str, scope: &Scope<'_>) -> (Condition, Vec<Error>) {
        let trimmed = text.trim();
        let offset = text.len() - text.trim_start().len();
        let mut faults = Vec::new();
        let (form, inner) = if trimmed.is_empty() {
            (Form::Empty, 0)
        } else if Template::is_needed(trimmed) {
            let (template, found) = Template::read(trimmed, scope);
            faults = found;
            match template.segments() {
                [Segment::Expression { expression, offset: inner, .. }] => {
                    (Form::Expression(expression.clone()), *inner)
                }
                _ => (Form::Text(template), 0),
            }
        } else {
            (read_in(trimmed, scope, &mut faults).map_or(Form::Empty, Form::Expression), 0)
        };
        let faults = faults.into_iter().map(|error| error.shifted(offset)).collect();
        (Condition { form, offset: offset + inner }, faults)
    }

    /// The expression, if it is one.
    pub fn expression(&self) -> Option<&Expression> {
        match &self.form {
            Form::Expression(expression) => Some(expression),
            Form::Empty | Form::Text(_) => None,
        }
    }

    /// Whether text stands around `${{ }}`: the condition is then a string that is true whatever the expression says.
    /// GitHub accepts it and warns; callers should too.
    pub fn is_text(&self) -> bool {
        matches!(self.form, Form::Text(_))
    }

    /// Whether it calls `success`, `failure`, `cancelled` or `always`. If not, `success()` is implied.
    pub fn calls_status_function(&self) -> bool {
        match &self.form {
            Form::Empty => false,
            Form::Expression(expression) => expression.calls_status_function(),
            Form::Text(template) => template.expressions().any(Expression::calls_status_function),
        }
    }

    /// Every read of a context, in the order of the text.
    pub fn context_paths(&self) -> Vec<ContextPath> {
        match &self.form {
            Form::Empty => Vec::new(),
            Form::Expression(expression) => expression.context_paths(),
            Form::Text(template) => template.context_paths(),
        }
    }

    /// The functions it calls, sorted, no duplicates; an implied `success` is not among them.
    pub fn functions(&self) -> Vec<&str> {
        match &self.form {
            Form::Empty => Vec::new(),
            Form::Expression(expression) => expression.functions(),
            Form::Text(template) => template.functions(),
        }
    }

    /// Whether what is written holds, without the implied `success()`. The empty condition holds.
    pub fn is_true(&self, environment: &dyn Environment) -> Result<bool, Error> {
        let value = match &self.form {
            Form::Empty => Ok(Value::Bool(true)),
            Form::Expression(expression) => expression.evaluate(environment),
            Form::Text(template) => template.evaluate(environment).map(Value::from),
        };
        value.map(|value| value.is_truthy()).map_err(|error| error.shifted(self.offset))
    }

    /// Whether the job or step should run: `success() && (condition)` unless the condition calls a status function itself.
    /// The environment must have `success`.
    pub fn is_met(&self, environment: &dyn Environment) -> Result<bool, Error> {
        if !self.calls_status_function() {
            // What is wrong with the implied call has no place in the text.
            let is_success = environment
                .call("success", &[])
                .map_err(|error| Error::plain(ErrorKind::Evaluate, call_fault("success", error), 0..0))?;
            if !is_success.is_truthy() {
                return Ok(false);
            }
        }
        self.is_true(environment)
    }
}
