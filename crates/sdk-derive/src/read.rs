//! Takes the text of a type apart: its name, its parameters, its fields.

use std::iter::Peekable;

use proc_macro::{Delimiter, Group, Span, TokenStream, TokenTree, token_stream::IntoIter};

use crate::Fault;

/// A struct or an enum.
pub(crate) struct Item {
    pub name: String,
    pub parameters: Vec<Parameter>,
    /// What stands between `where` and the body.
    pub bounds: Vec<TokenTree>,
    pub body: Body,
}

/// A type parameter or a constant one.
pub(crate) struct Parameter {
    pub name: String,
    pub kind: ParameterKind,
    /// As it is declared, without a default: `T: Clone`.
    pub declaration: Vec<TokenTree>,
}

/// What a parameter is.
#[derive(PartialEq, Eq)]
pub(crate) enum ParameterKind {
    /// `T`
    Type,
    /// `const N: usize`
    Const,
}

/// What is inside.
pub(crate) enum Body {
    Struct(Fields),
    Enum(Vec<Variant>),
}

/// A variant of an enum.
pub(crate) struct Variant {
    /// In Rust.
    pub name: String,
    /// In JSON.
    pub word: String,
    pub fields: Fields,
}

/// Fields of a struct or a variant.
pub(crate) enum Fields {
    Unit,
    Unnamed(Vec<Vec<TokenTree>>),
    Named(Vec<Named>),
}

/// A field with a name.
pub(crate) struct Named {
    /// In Rust, perhaps `r#type`.
    pub name: String,
    /// In JSON.
    pub word: String,
    pub kind: Vec<TokenTree>,
}

type Tokens = Peekable<IntoIter>;

/// Reads an item.
pub(crate) fn item(input: TokenStream) -> Result<Item, Fault> {
    let mut tokens = input.into_iter().peekable();
    attributes(&mut tokens)?;
    visibility(&mut tokens);
    let keyword = tokens.next();
    let span = keyword.as_ref().map_or_else(Span::call_site, TokenTree::span);
    let keyword = keyword.map(|token| token.to_string()).unwrap_or_default();
    let name = tokens.next().map(|token| token.to_string()).unwrap_or_default();
    let parameters = parameters(&mut tokens)?;
    let mut bounds = Vec::new();
    take_bounds(&mut tokens, &mut bounds);
    let body = match (keyword.as_str(), tokens.next()) {
        ("enum", Some(TokenTree::Group(group))) => Body::Enum(variants(&group)?),
        ("struct", Some(TokenTree::Group(group))) => Body::Struct(fields(&group)?),
        ("struct", _) => Body::Struct(Fields::Unit),
        ("union", _) => {
            return Err(Fault::new(
                "a union cannot be `Data`: nothing says which of its fields is set; take an enum",
                span,
            ));
        }
        _ => return Err(Fault::new("only a struct or an enum can be `Data`", span)),
    };
    // After the fields of a tuple struct.
    take_bounds(&mut tokens, &mut bounds);
    Ok(Item { name, parameters, bounds, body })
}

fn is_punct(token: Option<&TokenTree>, sign: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == sign)
}

/// Passes over attributes; gives the word of `#[data("word")]`.
fn attributes(tokens: &mut Tokens) -> Result<Option<String>, Fault> {
    let mut word = None;
    while is_punct(tokens.peek(), '#') {
        tokens.next();
        if let Some(TokenTree::Group(group)) = tokens.next() {
            let mut inner = group.stream().into_iter();
            if matches!(inner.next(), Some(TokenTree::Ident(name)) if name.to_string() == "data") {
                word = Some(word_of(inner.next(), group.span())?);
            }
        }
    }
    Ok(word)
}

fn word_of(arguments: Option<TokenTree>, span: Span) -> Result<String, Fault> {
    let text = match arguments {
        Some(TokenTree::Group(group)) => group.stream().to_string(),
        _ => String::new(),
    };
    let word = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    match word.filter(|word| !word.is_empty() && !word.contains(['\\', '"'])) {
        Some(word) => Ok(word.to_owned()),
        None => Err(Fault::new("expected the name in JSON: `#[data(\"word\")]`", span)),
    }
}

fn visibility(tokens: &mut Tokens) {
    if matches!(tokens.peek(), Some(TokenTree::Ident(word)) if word.to_string() == "pub") {
        tokens.next();
        if matches!(tokens.peek(), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis) {
            tokens.next();
        }
    }
}

/// Splits at commas that stand in no brackets, angled ones included. An empty last part is left out.
fn parts(stream: impl IntoIterator<Item = TokenTree>) -> Vec<Vec<TokenTree>> {
    let mut parts = vec![Vec::new()];
    let mut depth = 0_usize;
    let mut is_arrow = false;
    for token in stream {
        if let TokenTree::Punct(punct) = &token {
            match punct.as_char() {
                '<' => depth += 1,
                '>' if !is_arrow => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    parts.push(Vec::new());
                    continue;
                }
                _ => {}
            }
            is_arrow = punct.as_char() == '-';
        }
        if let Some(part) = parts.last_mut() {
            part.push(token);
        }
    }
    if parts.last().is_some_and(Vec::is_empty) {
        parts.pop();
    }
    parts
}

/// What stands between `<` and `>` after the name.
fn parameters(tokens: &mut Tokens) -> Result<Vec<Parameter>, Fault> {
    if !is_punct(tokens.peek(), '<') {
        return Ok(Vec::new());
    }
    tokens.next();
    let mut inner = Vec::new();
    let mut depth = 1_usize;
    for token in tokens.by_ref() {
        if let TokenTree::Punct(punct) = &token {
            match punct.as_char() {
                '<' => depth += 1,
                '>' => depth -= 1,
                _ => {}
            }
        }
        if depth == 0 {
            break;
        }
        inner.push(token);
    }
    parts(inner).into_iter().map(parameter).collect()
}

fn parameter(part: Vec<TokenTree>) -> Result<Parameter, Fault> {
    let equals = part.iter().position(|token| is_punct(Some(token), '=')).unwrap_or(part.len());
    let declaration = part[..equals].to_vec();
    let kind = match declaration.first() {
        Some(TokenTree::Punct(punct)) => {
            return Err(Fault::new(
                "a type with a lifetime cannot be `Data`: it must own all that it holds",
                punct.span(),
            ));
        }
        Some(TokenTree::Ident(word)) if word.to_string() == "const" => ParameterKind::Const,
        _ => ParameterKind::Type,
    };
    let name = declaration.get(usize::from(kind == ParameterKind::Const)).map(ToString::to_string).unwrap_or_default();
    Ok(Parameter { name, kind, declaration })
}

fn take_bounds(tokens: &mut Tokens, bounds: &mut Vec<TokenTree>) {
    if !matches!(tokens.peek(), Some(TokenTree::Ident(word)) if word.to_string() == "where") {
        return;
    }
    tokens.next();
    let is_end = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        token => is_punct(Some(token), ';'),
    };
    while let Some(token) = tokens.next_if(|token| !is_end(token)) {
        bounds.push(token);
    }
}

fn fields(group: &Group) -> Result<Fields, Fault> {
    let parts = parts(group.stream());
    match group.delimiter() {
        Delimiter::Brace => parts.into_iter().map(named).collect::<Result<_, _>>().map(Fields::Named),
        _ => parts.into_iter().map(unnamed).collect::<Result<_, _>>().map(Fields::Unnamed),
    }
}

fn unnamed(part: Vec<TokenTree>) -> Result<Vec<TokenTree>, Fault> {
    let mut tokens = part.into_iter().collect::<TokenStream>().into_iter().peekable();
    attributes(&mut tokens)?;
    visibility(&mut tokens);
    Ok(tokens.collect())
}

fn named(part: Vec<TokenTree>) -> Result<Named, Fault> {
    let mut tokens = part.into_iter().collect::<TokenStream>().into_iter().peekable();
    let word = attributes(&mut tokens)?;
    visibility(&mut tokens);
    let name = tokens.next().map(|token| token.to_string()).unwrap_or_default();
    // The colon.
    tokens.next();
    let word = word.unwrap_or_else(|| plain(&name));
    Ok(Named { name, word, kind: tokens.collect() })
}

/// The name without `r#`.
fn plain(name: &str) -> String {
    name.strip_prefix("r#").unwrap_or(name).to_owned()
}

fn variants(group: &Group) -> Result<Vec<Variant>, Fault> {
    let mut variants: Vec<Variant> = Vec::new();
    for part in parts(group.stream()) {
        let mut tokens = part.into_iter().collect::<TokenStream>().into_iter().peekable();
        let word = attributes(&mut tokens)?;
        let name = tokens.next();
        let span = name.as_ref().map_or_else(Span::call_site, TokenTree::span);
        let name = name.map(|token| token.to_string()).unwrap_or_default();
        let fields = match tokens.next() {
            Some(TokenTree::Group(group)) => fields(&group)?,
            // Nothing, or a discriminant.
            _ => Fields::Unit,
        };
        let word = word.unwrap_or_else(|| plain(&name));
        if variants.iter().any(|other| other.word == word) {
            return Err(Fault::new(format!("two variants are named `{word}` in JSON"), span));
        }
        variants.push(Variant { name, word, fields });
    }
    Ok(variants)
}
