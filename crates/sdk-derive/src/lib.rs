//! `#[derive(Data)]`: how a type of a pipeline's program crosses from one job to another.

use proc_macro::TokenStream;

/// Derives `ropewalk::Data` for a struct or an enum.
#[proc_macro_derive(Data)]
pub fn data(_input: TokenStream) -> TokenStream {
    TokenStream::new()
}
