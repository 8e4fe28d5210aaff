//! What can be wrong with an expression, in GitHub's own words, with the place.

use std::fmt;
use std::ops::Range;

/// What kind of fault it is: [`Lex`](ErrorKind::Lex) and [`Parse`](ErrorKind::Parse) are found without any data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A run of characters is no word of the language.
    Lex,
    /// The words are legal but not in this order, or a name or a number of arguments is not known.
    Parse,
    /// The data does not fit, or the environment refused.
    Evaluate,
    /// A bound of [`limits`](crate::limits) was reached.
    Limit,
}

/// A fault in an expression or template, or in its evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The kind of fault.
    pub kind: ErrorKind,
    /// What is wrong, in GitHub's words; for syntax it ends with the position and the expression, as users know it.
    pub message: String,
    /// What is wrong in a few words without the place, for a diagnostic that shows the line itself.
    pub cause: String,
    /// Where, in bytes of the text that was given to `parse`; on character boundaries and within the text.
    pub range: Range<usize>,
}

impl Error {
    /// The byte at which the fault begins, in the text that was given to `parse`.
    pub fn offset(&self) -> usize {
        self.range.start
    }

    /// An error about one word of the expression, in GitHub's form. `Position` there is 1-based in UTF-16 units.
    pub(crate) fn at_word(kind: ErrorKind, description: &str, text: &str, range: Range<usize>) -> Error {
        let word = &text[range.clone()];
        let position = text[..range.start].encode_utf16().count() + 1;
        Error {
            kind,
            message: format!("{description}: '{word}'. Located at position {position} within expression: {text}"),
            cause: format!("{}: '{word}'", lower_first(description)),
            range,
        }
    }

    /// An error whose text names no place.
    pub(crate) fn plain(kind: ErrorKind, message: impl Into<String>, range: Range<usize>) -> Error {
        let message = message.into();
        Error { kind, cause: lower_first(message.trim_end_matches('.')), message, range }
    }

    /// The same error for a text in which the expression begins at `offset`.
    pub(crate) fn shifted(mut self, offset: usize) -> Error {
        self.range = self.range.start + offset..self.range.end + offset;
        self
    }
}

fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
