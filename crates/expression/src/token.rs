//! An expression's text cut into words, each checked against the word before it.
//!
//! A word that may not follow the one before is already an error here, so the parser never sees an illegal order. This is
//! how GitHub's `LexicalAnalyzer` works, and what decides which word its messages name.

use std::ops::Range;
use std::sync::Arc;

use crate::{Error, ErrorKind, number};

/// One word with its place.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) range: Range<usize>,
}

#[derive(Clone, Debug)]
pub(crate) enum TokenKind {
    /// `(` around an expression.
    StartGroup,
    EndGroup,
    /// `(` after a function's name.
    StartArguments,
    EndArguments,
    StartIndex,
    EndIndex,
    Separator,
    Dereference,
    /// `*` after `[`.
    Wildcard,
    /// `*` after `.`.
    PropertyWildcard,
    Not,
    Binary(Binary),
    Null,
    Bool(bool),
    Number(f64),
    String(Arc<str>),
    PropertyName,
    Function,
    Context,
}

/// An operator between two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What the last word allows to come next.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// At the beginning, after an operator, `(` of a group, or `,`.
    Operand,
    /// After `[`: an operand or `*`.
    Index,
    /// After a function's `(`: an operand or `)`.
    Arguments,
    /// After a function's name: its `(`.
    Function,
    /// After `.`: a property's name or `*`.
    Property,
    /// After a literal: it may end here, but cannot be indexed.
    Literal,
    /// After anything that can be indexed.
    Value,
}

impl Place {
    fn wants_operand(self) -> bool {
        matches!(self, Place::Operand | Place::Index | Place::Arguments)
    }

    fn ends_operand(self) -> bool {
        matches!(self, Place::Literal | Place::Value)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Unclosed {
    Group,
    Arguments,
    Index,
}

/// The words of one text, in order.
pub(crate) struct Lexer<'t> {
    text: &'t str,
    offset: usize,
    place: Place,
    unclosed: Vec<Unclosed>,
    last: Option<Range<usize>>,
}

impl<'t> Lexer<'t> {
    pub(crate) fn new(text: &'t str) -> Lexer<'t> {
        Lexer { text, offset: 0, place: Place::Operand, unclosed: Vec::new(), last: None }
    }

    /// The next word, or `None` at the end of a text that may end there.
    pub(crate) fn next(&mut self) -> Result<Option<Token>, Error> {
        let rest = &self.text[self.offset..];
        self.offset += rest.len() - rest.trim_start().len();
        if self.offset == self.text.len() {
            return self.end();
        }
        let (kind, length) = self.read()?;
        let range = self.offset..self.offset + length;
        self.place = self.place_after(&kind).ok_or_else(|| self.unexpected(ErrorKind::Parse, range.clone()))?;
        match kind {
            TokenKind::StartGroup => self.unclosed.push(Unclosed::Group),
            TokenKind::StartArguments => self.unclosed.push(Unclosed::Arguments),
            TokenKind::StartIndex => self.unclosed.push(Unclosed::Index),
            TokenKind::EndGroup | TokenKind::EndArguments | TokenKind::EndIndex => {
                self.unclosed.pop();
            }
            _ => {}
        }
        self.offset = range.end;
        self.last = Some(range.clone());
        Ok(Some(Token { kind, range }))
    }

    /// Checks that the text may end here. An empty text is a legal expression.
    fn end(&self) -> Result<Option<Token>, Error> {
        match &self.last {
            Some(last) if !self.place.ends_operand() || !self.unclosed.is_empty() => {
                Err(Error::at_word(ErrorKind::Parse, "Unexpected end of expression", self.text, last.clone()))
            }
            _ => Ok(None),
        }
    }

    fn unexpected(&self, kind: ErrorKind, range: Range<usize>) -> Error {
        Error::at_word(kind, "Unexpected symbol", self.text, range)
    }

    /// Where we are after this word, or `None` if it may not stand here.
    fn place_after(&self, kind: &TokenKind) -> Option<Place> {
        let place = self.place;
        let innermost = self.unclosed.last().copied();
        let (is_legal, after) = match kind {
            TokenKind::StartGroup | TokenKind::Not => (place.wants_operand(), Place::Operand),
            TokenKind::StartArguments => (place == Place::Function, Place::Arguments),
            TokenKind::StartIndex => (place == Place::Value, Place::Index),
            TokenKind::EndGroup => (place.ends_operand() && innermost == Some(Unclosed::Group), Place::Value),
            TokenKind::EndArguments => (place.ends_operand() || place == Place::Arguments, Place::Value),
            TokenKind::EndIndex => (place.ends_operand() && innermost == Some(Unclosed::Index), Place::Value),
            TokenKind::Separator => (place.ends_operand() && innermost == Some(Unclosed::Arguments), Place::Operand),
            TokenKind::Dereference => (place == Place::Value, Place::Property),
            TokenKind::Wildcard => (place == Place::Index, Place::Value),
            TokenKind::PropertyWildcard => (place == Place::Property, Place::Value),
            TokenKind::Binary(_) => (place.ends_operand(), Place::Operand),
            TokenKind::Null | TokenKind::Bool(_) | TokenKind::Number(_) | TokenKind::String(_) => {
                (place.wants_operand(), Place::Literal)
            }
            TokenKind::PropertyName => (place == Place::Property, Place::Value),
            TokenKind::Function => (place.wants_operand(), Place::Function),
            TokenKind::Context => (place.wants_operand(), Place::Value),
        };
        is_legal.then_some(after)
    }

    /// Reads the word at the offset, which is not white space: its kind and its length in bytes.
    fn read(&self) -> Result<(TokenKind, usize), Error> {
        let rest = &self.text[self.offset..];
        let single = |kind| Ok((kind, 1));
        match rest.as_bytes()[0] {
            b'(' if self.place == Place::Function => single(TokenKind::StartArguments),
            b'(' => single(TokenKind::StartGroup),
            b')' if self.unclosed.last() == Some(&Unclosed::Arguments) => single(TokenKind::EndArguments),
            b')' => single(TokenKind::EndGroup),
            b'[' => single(TokenKind::StartIndex),
            b']' => single(TokenKind::EndIndex),
            b',' => single(TokenKind::Separator),
            b'*' if self.place == Place::Property => single(TokenKind::PropertyWildcard),
            b'*' => single(TokenKind::Wildcard),
            b'.' if !self.place.wants_operand() => single(TokenKind::Dereference),
            b'\'' => self.read_string(rest),
            b'!' | b'>' | b'<' | b'=' | b'&' | b'|' => self.read_operator(rest),
            b'.' | b'-' | b'+' | b'0'..=b'9' => self.read_number(rest),
            _ => self.read_keyword(rest),
        }
    }

    fn read_string(&self, rest: &str) -> Result<(TokenKind, usize), Error> {
        let bytes = rest.as_bytes();
        let mut end = 1;
        loop {
            match memchr::memchr(b'\'', &bytes[end..]) {
                None => return Err(self.unexpected(ErrorKind::Lex, self.offset..self.text.len())),
                Some(distance) if bytes.get(end + distance + 1) == Some(&b'\'') => end += distance + 2,
                Some(distance) => {
                    end += distance;
                    break;
                }
            }
        }
        let inside = &rest[1..end];
        let content = if inside.contains('\'') { inside.replace("''", "'").into() } else { inside.into() };
        Ok((TokenKind::String(content), end + 1))
    }

    fn read_operator(&self, rest: &str) -> Result<(TokenKind, usize), Error> {
        let bytes = rest.as_bytes();
        let kind = match (bytes[0], bytes.get(1)) {
            (b'!', Some(b'=')) => TokenKind::Binary(Binary::NotEqual),
            (b'=', Some(b'=')) => TokenKind::Binary(Binary::Equal),
            (b'<', Some(b'=')) => TokenKind::Binary(Binary::LessOrEqual),
            (b'>', Some(b'=')) => TokenKind::Binary(Binary::GreaterOrEqual),
            (b'&', Some(b'&')) => TokenKind::Binary(Binary::And),
            (b'|', Some(b'|')) => TokenKind::Binary(Binary::Or),
            (b'!', _) => return Ok((TokenKind::Not, 1)),
            (b'<', _) => return Ok((TokenKind::Binary(Binary::Less), 1)),
            (b'>', _) => return Ok((TokenKind::Binary(Binary::Greater), 1)),
            _ => {
                let length = 1 + length_to_boundary(&rest[1..]);
                return Err(self.unexpected(ErrorKind::Lex, self.offset..self.offset + length));
            }
        };
        Ok((kind, 2))
    }

    fn read_number(&self, rest: &str) -> Result<(TokenKind, usize), Error> {
        let length = 1 + rest[1..].find(|c| c != '.' && is_boundary(c)).unwrap_or(rest.len() - 1);
        let number = number::parse(&rest[..length]);
        if number.is_nan() {
            return Err(self.unexpected(ErrorKind::Lex, self.offset..self.offset + length));
        }
        Ok((TokenKind::Number(number), length))
    }

    fn read_keyword(&self, rest: &str) -> Result<(TokenKind, usize), Error> {
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let length = first + length_to_boundary(&rest[first..]);
        let word = &rest[..length];
        if !is_name(word) {
            return Err(self.unexpected(ErrorKind::Lex, self.offset..self.offset + length));
        }
        let kind = match word {
            _ if self.place == Place::Property => TokenKind::PropertyName,
            "null" => TokenKind::Null,
            "true" => TokenKind::Bool(true),
            "false" => TokenKind::Bool(false),
            "NaN" => TokenKind::Number(f64::NAN),
            "Infinity" => TokenKind::Number(f64::INFINITY),
            _ if rest[length..].trim_start().starts_with('(') => TokenKind::Function,
            _ => TokenKind::Context,
        };
        Ok((kind, length))
    }
}

fn length_to_boundary(text: &str) -> usize {
    text.find(is_boundary).unwrap_or(text.len())
}

fn is_boundary(character: char) -> bool {
    matches!(character, '(' | ')' | '[' | ']' | ',' | '.' | '!' | '>' | '<' | '=' | '&' | '|')
        || character.is_whitespace()
}

/// Whether a word is a legal name: a letter or `_`, then letters, digits, `_` and `-`.
fn is_name(word: &str) -> bool {
    let bytes = word.as_bytes();
    matches!(bytes.first(), Some(b'a'..=b'z' | b'A'..=b'Z' | b'_'))
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}
