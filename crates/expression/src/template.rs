//! Text with any number of `${{ }}` in it.

use std::ops::Range;

use crate::expression::read_in;
use crate::limits::{FAULTS_MAX, TEMPLATE_BYTES_MAX, TEMPLATE_EXPRESSIONS_MAX};
use crate::{ContextPath, Environment, Error, ErrorKind, Expression, Limits, Scope, Value};

/// Opens an expression in a text.
const OPEN: &str = "${{";

/// A text whose expressions are parsed.
#[derive(Clone, Debug)]
pub struct Template {
    // Without gaps: the ranges of all segments cover the text in order. At least one segment unless the text is empty.
    segments: Vec<Segment>,
}

/// A piece of a template.
#[derive(Clone, Debug)]
pub enum Segment {
    /// Text that stands for itself.
    Text {
        /// The text.
        text: String,
        /// Its bytes in the template.
        range: Range<usize>,
    },
    /// `${{ expression }}`.
    Expression {
        /// What stands inside, trimmed.
        expression: Expression,
        /// The bytes from `${{` to `}}`, both included.
        range: Range<usize>,
        /// Where in the template the expression's own text begins; its errors at evaluation count from there.
        offset: usize,
    },
}

impl Template {
    /// Parses a text with any contexts and GitHub's functions. Errors have ranges in this text.
    pub fn parse(text: &str) -> Result<Template, Error> {
        Template::parse_in(text, &Scope::default())
    }

    /// Parses a text whose expressions may use only the names of this scope.
    ///
    /// GitHub: `TemplateReader.ParseScalar`. An expression ends at the first `}}` outside `'…'`.
    pub fn parse_in(text: &str, scope: &Scope<'_>) -> Result<Template, Error> {
        let (template, faults) = Template::read(text, scope);
        faults.into_iter().next().map_or(Ok(template), Err)
    }

    /// What of a text can be read, with every fault in it, in order: of one expression all names that the scope does not have,
    /// and after a wrong expression those behind it. An expression that cannot be read at all stands in the template as
    /// text, and so does what stands behind a `${{` that is not closed, and behind [`FAULTS_MAX`] faults. With a fault among
    /// them the template is there to be asked what it reads, not to be evaluated.
    pub fn read(text: &str, scope: &Scope<'_>) -> (Template, Vec<Error>) {
        let mut segments = Vec::new();
        let mut faults = Vec::new();
        let mut offset = 0;
        let mut expressions = 0;
        for start in memchr::memmem::find_iter(text.as_bytes(), OPEN) {
            // One that lies inside the last expression, for example in a string.
            if start < offset {
                continue;
            }
            expressions += 1;
            if text.len() > TEMPLATE_BYTES_MAX || expressions > TEMPLATE_EXPRESSIONS_MAX {
                let message = format!(
                    "Exceeded max template size: {TEMPLATE_BYTES_MAX} bytes, {TEMPLATE_EXPRESSIONS_MAX} expressions"
                );
                faults.push(Error::plain(ErrorKind::Limit, message, start..text.len()));
                break;
            }
            let Some(length) = find_close(&text[start + OPEN.len()..]) else {
                faults.push(unclosed(text, start));
                break;
            };
            if offset < start {
                segments.push(Segment::Text { text: text[offset..start].to_owned(), range: offset..start });
            }
            offset = start + OPEN.len() + length;
            segments.push(read_segment(text, start..offset, scope, &mut faults));
            if faults.len() >= FAULTS_MAX {
                faults.truncate(FAULTS_MAX);
                break;
            }
        }
        if offset < text.len() {
            segments.push(Segment::Text { text: text[offset..].to_owned(), range: offset..text.len() });
        }
        (Template { segments }, faults)
    }

    /// Whether there is any `${{` in a text: one search, for callers that keep plain texts as they are.
    pub fn is_needed(text: &str) -> bool {
        memchr::memmem::find(text.as_bytes(), OPEN.as_bytes()).is_some()
    }

    /// The pieces in order; together they cover the text.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The text, if there is no expression in it.
    pub fn literal(&self) -> Option<&str> {
        match self.segments.as_slice() {
            [] => Some(""),
            [Segment::Text { text, .. }] => Some(text),
            _ => None,
        }
    }

    /// The expression, if the text is exactly one `${{ }}`: then its value keeps its kind.
    pub fn single(&self) -> Option<&Expression> {
        match self.segments.as_slice() {
            [Segment::Expression { expression, .. }] => Some(expression),
            _ => None,
        }
    }

    /// The expressions in order.
    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Expression { expression, .. } => Some(expression),
            Segment::Text { .. } => None,
        })
    }

    /// Every read of a context, in the order of the text.
    pub fn context_paths(&self) -> Vec<ContextPath> {
        self.expressions().flat_map(Expression::context_paths).collect()
    }

    /// The functions its expressions call, sorted, no duplicates.
    pub fn functions(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.expressions().flat_map(Expression::functions).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The text with every expression replaced by its value as text.
    pub fn evaluate(&self, environment: &dyn Environment) -> Result<String, Error> {
        self.evaluate_within(environment, Limits::default())
    }

    /// The text with every expression replaced. Steps are counted over all of them; memory for each, and for the whole text.
    pub fn evaluate_within(&self, environment: &dyn Environment, limits: Limits) -> Result<String, Error> {
        let mut result = String::new();
        let mut steps = 0;
        for segment in &self.segments {
            let (value, text, range) = match segment {
                Segment::Text { text, range } => (Value::Null, text.as_str(), range),
                Segment::Expression { expression, range, offset } => {
                    let value = expression.evaluate_after(environment, limits, &mut steps);
                    (value.map_err(|error| error.shifted(*offset))?, "", range)
                }
            };
            let inserted = value.to_text();
            if result.len() + text.len() + inserted.len() > limits.memory_bytes_max {
                return Err(Error::plain(ErrorKind::Limit, crate::evaluation::MEMORY_EXCEEDED, range.clone()));
            }
            result.push_str(text);
            result.push_str(&inserted);
        }
        Ok(result)
    }

    /// The value of a text that is exactly one `${{ }}`, of any kind; of any other text, the text.
    pub fn evaluate_value(&self, environment: &dyn Environment) -> Result<Value, Error> {
        match self.segments.as_slice() {
            [Segment::Expression { expression, offset, .. }] => {
                expression.evaluate(environment).map_err(|error| error.shifted(*offset))
            }
            _ => self.evaluate(environment).map(Value::from),
        }
    }
}

/// The end of the first `}}` outside a string.
fn find_close(inside: &str) -> Option<usize> {
    let bytes = inside.as_bytes();
    let mut offset = 0;
    loop {
        offset += memchr::memchr2(b'\'', b'}', &bytes[offset..])?;
        if bytes[offset] == b'\'' {
            // An escaped quote closes one string and opens the next, which comes to the same.
            offset += 1 + memchr::memchr(b'\'', &bytes[offset + 1..])? + 1;
        } else if bytes.get(offset + 1) == Some(&b'}') {
            return Some(offset + 2);
        } else {
            offset += 1;
        }
    }
}

/// The expression of this range; the text of the range if there is none that can be read.
fn read_segment(text: &str, range: Range<usize>, scope: &Scope<'_>, faults: &mut Vec<Error>) -> Segment {
    let inside = &text[range.start + OPEN.len()..range.end - 2];
    let trimmed = inside.trim();
    let offset = range.start + OPEN.len() + (inside.len() - inside.trim_start().len());
    let mut found = Vec::new();
    let expression = match trimmed.is_empty() {
        true => {
            faults.push(Error::plain(ErrorKind::Parse, "An expression was expected", range.clone()));
            None
        }
        false => read_in(trimmed, scope, &mut found),
    };
    faults.extend(found.into_iter().map(|error| error.shifted(offset)));
    match expression {
        Some(expression) => Segment::Expression { expression, range, offset },
        None => Segment::Text { text: text[range.clone()].to_owned(), range },
    }
}

fn unclosed(text: &str, start: usize) -> Error {
    let message =
        "The expression is not closed. An unescaped ${{ sequence was found, but the closing }} sequence was not found.";
    let mut error = Error::plain(ErrorKind::Lex, message, start..text.len());
    error.cause = "the `${{` has no closing `}}`".to_owned();
    error
}
