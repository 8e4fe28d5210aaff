//! The functions an expression may call: what each is named and takes, and what the built-in ones do with text.

use std::ops::Range;
use std::sync::Arc;

use crate::syntax::Function;

/// A function that the language itself has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Builtin {
    Contains,
    StartsWith,
    EndsWith,
    Format,
    Join,
    ToJson,
    FromJson,
    Case,
}

impl Builtin {
    const ALL: [Builtin; 8] = [
        Builtin::Contains,
        Builtin::StartsWith,
        Builtin::EndsWith,
        Builtin::Format,
        Builtin::Join,
        Builtin::ToJson,
        Builtin::FromJson,
        Builtin::Case,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Builtin::Contains => "contains",
            Builtin::StartsWith => "startsWith",
            Builtin::EndsWith => "endsWith",
            Builtin::Format => "format",
            Builtin::Join => "join",
            Builtin::ToJson => "toJSON",
            Builtin::FromJson => "fromJSON",
            Builtin::Case => "case",
        }
    }

    /// How many arguments it takes. GitHub: `ExpressionConstants.WellKnownFunctions`.
    fn arity(self) -> Range<usize> {
        match self {
            Builtin::Contains | Builtin::StartsWith | Builtin::EndsWith => 2..3,
            Builtin::Join => 1..3,
            Builtin::ToJson | Builtin::FromJson => 1..2,
            Builtin::Format => 1..ARGUMENTS_MAX + 1,
            Builtin::Case => 3..ARGUMENTS_MAX + 1,
        }
    }
}

/// The most arguments any function takes.
const ARGUMENTS_MAX: usize = 255;

/// What a function of the [`Environment`](crate::Environment) is named and takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature<'s> {
    /// The name as `Environment::call` gets it; expressions may write it in any letter case.
    pub name: &'s str,
    /// The fewest arguments.
    pub arguments_min: u8,
    /// The most arguments.
    pub arguments_max: u8,
}

/// The functions that GitHub's workflows have besides the built-in ones, and `hash_files` as the native format spells it.
pub const WORKFLOW_FUNCTIONS: &[Signature<'static>] = &[
    Signature { name: "always", arguments_min: 0, arguments_max: 0 },
    Signature { name: "cancelled", arguments_min: 0, arguments_max: 0 },
    Signature { name: "failure", arguments_min: 0, arguments_max: 255 },
    Signature { name: "success", arguments_min: 0, arguments_max: 255 },
    Signature { name: "hashFiles", arguments_min: 1, arguments_max: 255 },
    Signature { name: "hash_files", arguments_min: 1, arguments_max: 255 },
];

/// Which names an expression may use. The built-in functions are always there.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'s> {
    /// The contexts, or `None` for any name: then an unknown one is an error of evaluation.
    pub contexts: Option<&'s [&'s str]>,
    /// The functions of the environment; an unknown one is an error of parsing.
    pub functions: &'s [Signature<'s>],
}

impl Default for Scope<'_> {
    /// Any context, and [`WORKFLOW_FUNCTIONS`].
    fn default() -> Self {
        Scope { contexts: None, functions: WORKFLOW_FUNCTIONS }
    }
}

impl Scope<'_> {
    pub(crate) fn has_context(&self, name: &str) -> bool {
        self.contexts.is_none_or(|known| known.iter().any(|context| context.eq_ignore_ascii_case(name)))
    }

    /// The function of that name and how many arguments it takes.
    pub(crate) fn function(&self, name: &str) -> Option<(Function, Range<usize>)> {
        if let Some(builtin) = Builtin::ALL.into_iter().find(|builtin| builtin.name().eq_ignore_ascii_case(name)) {
            return Some((Function::Builtin(builtin), builtin.arity()));
        }
        let signature = self.functions.iter().find(|signature| signature.name.eq_ignore_ascii_case(name))?;
        let arity = usize::from(signature.arguments_min)..usize::from(signature.arguments_max) + 1;
        Some((Function::Environment(Arc::from(signature.name)), arity))
    }
}

/// One piece of a format text.
#[derive(Debug, PartialEq)]
pub(crate) enum FormatPiece<'f> {
    Text(&'f str),
    /// The argument of that number, with what stood after a `:`, which is only legal when empty.
    Argument(usize, &'f str),
}

/// Cuts the first piece from a format text, which is not empty; gives it and the rest, or `None` if the text is invalid.
/// GitHub: `Format.EvaluateCore`. `{{` and `}}` stand for one brace.
pub(crate) fn next_format_piece(format: &str) -> Option<(FormatPiece<'_>, &str)> {
    let bytes = format.as_bytes();
    match memchr::memchr2(b'{', b'}', bytes) {
        None => Some((FormatPiece::Text(format), "")),
        Some(at) if bytes.get(at + 1) == Some(&bytes[at]) => {
            Some((FormatPiece::Text(&format[..=at]), &format[at + 2..]))
        }
        Some(0) => read_argument(format),
        Some(at) => Some((FormatPiece::Text(&format[..at]), &format[at..])),
    }
}

/// Reads `{0}` or `{0:specifiers}` at the beginning of the text.
fn read_argument(format: &str) -> Option<(FormatPiece<'_>, &str)> {
    let inside = format.strip_prefix('{')?;
    let digits = inside.bytes().take_while(u8::is_ascii_digit).count();
    let index: u8 = inside[..digits].parse().ok()?;
    let rest = &inside[digits..];
    if let Some(rest) = rest.strip_prefix('}') {
        return Some((FormatPiece::Argument(usize::from(index), ""), rest));
    }
    let rest = rest.strip_prefix(':')?;
    let mut end = 0;
    loop {
        end += rest[end..].find('}')?;
        if !rest[end + 1..].starts_with('}') {
            return Some((FormatPiece::Argument(usize::from(index), &rest[..end]), &rest[end + 1..]));
        }
        end += 2;
    }
}
