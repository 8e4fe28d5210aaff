//! `#[derive(Data)]`: how a type of a pipeline's program crosses from one job to another.
//!
//! Written without syn and quote, which would cost more than the rest of a cold build: [`read`] takes the item apart, [`write`]
//! puts the implementation together as text. Types keep the tokens of the user, so errors point at them.

mod read;
mod write;

use proc_macro::{Delimiter, Group, Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree};

/// Derives `ropewalk::Data` for a struct or an enum. All fields must be `Data`.
///
/// In JSON a struct is an object, one with unnamed fields a list, one with a single unnamed field that field. A variant without
/// fields is its name, another `{"NAME": fields}`. `#[data("word")]` on a field or variant gives it another name. An enum
/// whose variants have no fields can be filled in by a person: its names are the choices.
#[proc_macro_derive(Data, attributes(data))]
pub fn data(input: TokenStream) -> TokenStream {
    match read::item(input) {
        Ok(item) => write::implementation(&item),
        Err(fault) => fault.tokens(),
    }
}

/// Why there is no implementation, and where in the user's text.
struct Fault {
    message: String,
    span: Span,
}

impl Fault {
    fn new(message: impl Into<String>, span: Span) -> Self {
        Self { message: message.into(), span }
    }

    /// `::core::compile_error!("message");` with the span.
    fn tokens(self) -> TokenStream {
        let mut message = Literal::string(&self.message);
        message.set_span(self.span);
        let mut arguments = Group::new(Delimiter::Parenthesis, TokenTree::from(message).into());
        arguments.set_span(self.span);
        let punct = |sign, spacing| {
            let mut punct = Punct::new(sign, spacing);
            punct.set_span(self.span);
            TokenTree::from(punct)
        };
        let name = |name| TokenTree::from(Ident::new(name, self.span));
        let path = || [punct(':', Spacing::Joint), punct(':', Spacing::Alone)];
        let mut tokens: Vec<TokenTree> = path().into();
        tokens.push(name("core"));
        tokens.extend(path());
        tokens.extend([
            name("compile_error"),
            punct('!', Spacing::Alone),
            arguments.into(),
            punct(';', Spacing::Alone),
        ]);
        tokens.into_iter().collect()
    }
}
