//! The attribute of `goplug-interface`, which documents and re-exports it.
//!
//! In reading order: this file, `model` (what a trait says, and every way in which it may be wrong), `expand` (what is made
//! of it).

mod attributes;
mod expand;
mod model;

use proc_macro::TokenStream;

/// Makes an interface of a trait; see `goplug_interface`.
#[proc_macro_attribute]
pub fn interface(arguments: TokenStream, item: TokenStream) -> TokenStream {
    interface_of(arguments.into(), item.into()).unwrap_or_else(|error| error.into_compile_error()).into()
}

fn interface_of(
    arguments: proc_macro2::TokenStream,
    item: proc_macro2::TokenStream,
) -> syn::Result<proc_macro2::TokenStream> {
    Ok(expand::expand(&model::Model::read(arguments, item)?))
}

#[cfg(test)]
mod tests;
