//! The function that replaces the annotated one.
//!
//! The annotated function is kept whole inside of the new one, with its signature and spans. So the
//! compiler's errors about its body and its return type point into the user's code, and a function
//! that calls itself still calls its own body.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, TokenStreamExt, quote, quote_spanned};
use syn::{AttrStyle, Error, Item, ItemFn, ReturnType, Safety, Type, spanned::Spanned};

use crate::options::Options;

/// The attribute that is expanded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    Main,
    Test,
}

impl Entry {
    fn attribute(self) -> &'static str {
        match self {
            Self::Main => "#[umcg::main]",
            Self::Test => "#[umcg::test]",
        }
    }
}

/// Expands the attribute on `item`. After a mistake in the options the result is the function
/// without these options, and the errors. After a mistake in the item it is the unchanged item, and
/// the errors. In both cases an editor still understands the rest of the file.
pub(crate) fn expand(entry: Entry, list: TokenStream, item: TokenStream) -> TokenStream {
    let function = match parse_function(entry, &item) {
        Ok(function) => function,
        Err(error) => return with_error(item, &error),
    };
    let (options, error) = Options::parse(list);
    let expanded = function_on_a_worker(entry, &function, &options);
    match error {
        Some(error) => with_error(expanded, &error),
        None => expanded,
    }
}

fn with_error(mut tokens: TokenStream, error: &Error) -> TokenStream {
    tokens.extend(error.to_compile_error());
    tokens
}

fn parse_function(entry: Entry, item: &TokenStream) -> Result<ItemFn, Error> {
    let attribute = entry.attribute();
    let function: ItemFn =
        syn::parse2(item.clone()).map_err(|error| match syn::parse2::<Item>(item.clone()) {
            Ok(other) => {
                Error::new_spanned(other, format!("{attribute} applies to functions only"))
            }
            Err(_) => error,
        })?;
    let signature = &function.sig;
    let refuse = |what: &dyn ToTokens, why: String| Err(Error::new_spanned(what, why));
    if !signature.inputs.is_empty() {
        return refuse(
            &signature.inputs,
            format!(
                "a function with {attribute} takes no arguments{}",
                match entry {
                    Entry::Main => "; the command line is in `std::env::args`",
                    Entry::Test => "",
                }
            ),
        );
    }
    if !signature.generics.params.is_empty() {
        return refuse(
            &signature.generics,
            format!("a function with {attribute} cannot be generic"),
        );
    }
    if let Some(constness) = &signature.constness {
        return refuse(
            constness,
            format!("a function with {attribute} cannot be const: it starts threads"),
        );
    }
    if let Safety::Unsafe(safety) = &signature.safety {
        return refuse(
            safety,
            format!(
                "a function with {attribute} cannot be unsafe: use an unsafe block in its body"
            ),
        );
    }
    if let Some(abi) = &signature.abi {
        return refuse(
            abi,
            format!("a function with {attribute} cannot have another ABI: remove `extern`"),
        );
    }
    let second_test = function.attrs.iter().find(|a| is_test_attribute(a.path()));
    if let (Entry::Test, Some(second)) = (entry, second_test) {
        return refuse(
            second,
            "with this attribute the test would run twice: remove it, #[umcg::test] is enough"
                .to_owned(),
        );
    }
    Ok(function)
}

/// `#[test]`, `#[core::prelude::v1::test]`, `#[tokio::test]`.
fn is_test_attribute(path: &syn::Path) -> bool {
    path.segments
        .last()
        .is_some_and(|last| last.ident == "test" && last.arguments.is_none())
}

fn function_on_a_worker(entry: Entry, function: &ItemFn, options: &Options) -> TokenStream {
    let (inner_attributes, outer_attributes): (Vec<_>, Vec<_>) = function
        .attrs
        .iter()
        .partition(|attribute| matches!(attribute.style, AttrStyle::Inner(_)));
    let ItemFn {
        vis, sig, block, ..
    } = function;
    let mut original = sig.to_token_stream();
    block.brace_token.surround(&mut original, |inside| {
        inside.append_all(inner_attributes);
        inside.append_all(&block.stmts);
    });

    let krate = &options.krate;
    let name = &sig.ident;
    // An error about the returned type points at the type after the arrow.
    let span = match &sig.output {
        ReturnType::Default => sig.ident.span(),
        ReturnType::Type(_, output) => output.span(),
    };
    let path = respanned(quote!(#krate), span);
    let private = quote_spanned!(span=> #path::__private);
    let function = Ident::new(&name.to_string(), span);
    let body = if sig.asyncness.is_some() {
        quote_spanned!(span=> || #path::block_on(#function()))
    } else {
        quote!(#function)
    };
    let builder = builder(entry, options);

    // In an executable's `main` only: the symbols may be defined once.
    let managed_calls = (entry == Entry::Main && name == "main")
        .then(|| quote_spanned!(Span::call_site()=> #krate::managed_calls!();));
    let (test, output, run) = match entry {
        Entry::Main if name == "main" => (
            None,
            quote!(-> ::std::process::ExitCode),
            quote_spanned!(span=> #private::run_main),
        ),
        Entry::Main => (
            None,
            sig.output.to_token_stream(),
            quote_spanned!(span=> #private::run_function),
        ),
        // `#[should_panic]` requires a function that returns nothing.
        Entry::Test if returns_unit(&sig.output) => (
            Some(quote!(#[::core::prelude::v1::test])),
            quote!(),
            quote_spanned!(span=> #private::run_function),
        ),
        Entry::Test => (
            Some(quote!(#[::core::prelude::v1::test])),
            quote!(-> ::std::process::ExitCode),
            quote_spanned!(span=> #private::run_test),
        ),
    };
    let call = quote_spanned!(span=> #run(#builder, #body));
    quote! {
        #managed_calls
        #(#outer_attributes)*
        #test
        #vis fn #name() #output {
            #original
            #call
        }
    }
}

/// The path with `span` on each of its tokens.
fn respanned(path: TokenStream, span: Span) -> TokenStream {
    path.into_iter()
        .map(|mut token| {
            token.set_span(span);
            token
        })
        .collect()
}

fn returns_unit(output: &ReturnType) -> bool {
    match output {
        ReturnType::Default => true,
        ReturnType::Type(_, output) => {
            matches!(&**output, Type::Tuple(tuple) if tuple.elems.is_empty())
        }
    }
}

fn builder(entry: Entry, options: &Options) -> TokenStream {
    let krate = &options.krate;
    let mut builder = match entry {
        Entry::Main => quote!(#krate::Builder::new()),
        Entry::Test => quote!(#krate::__private::test_builder()),
    };
    for (method, value) in &options.calls {
        let value = if method == "provider" {
            quote!(#krate::__private::#value)
        } else {
            value.clone()
        };
        builder.extend(quote!(.#method(#value)));
    }
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(entry: Entry, list: TokenStream, item: TokenStream) -> String {
        expand(entry, list, item).to_string()
    }

    #[test]
    fn an_async_main_is_awaited_on_a_worker() {
        let got = expanded(
            Entry::Main,
            quote!(servers = 2, provider = "emulated"),
            quote! {
                #[allow(unused)]
                async fn main() -> Result<(), Oops> { work().await }
            },
        );
        let want = quote! {
            ::umcg::managed_calls!();
            #[allow(unused)]
            fn main() -> ::std::process::ExitCode {
                async fn main() -> Result<(), Oops> { work().await }
                ::umcg::__private::run_main(
                    ::umcg::Builder::new()
                        .servers(2)
                        .provider(::umcg::__private::ProviderChoice::Emulated),
                    || ::umcg::block_on(main())
                )
            }
        };
        assert_eq!(got, want.to_string());
    }

    #[test]
    fn a_plain_main_is_called_on_a_worker() {
        let got = expanded(
            Entry::Main,
            quote!(crate = "a::b"),
            quote!(
                fn main() {
                    #![allow(unused)]
                    work()
                }
            ),
        );
        let want = quote! {
            a::b::managed_calls!();
            fn main() -> ::std::process::ExitCode {
                fn main() { #![allow(unused)] work() }
                a::b::__private::run_main(a::b::Builder::new(), main)
            }
        };
        assert_eq!(got, want.to_string());
    }

    #[test]
    fn another_function_keeps_its_result() {
        let got = expanded(
            Entry::Main,
            quote!(),
            quote!(
                pub(crate) async fn answer() -> u32 {
                    42
                }
            ),
        );
        let want = quote! {
            pub(crate) fn answer() -> u32 {
                async fn answer() -> u32 { 42 }
                ::umcg::__private::run_function(
                    ::umcg::Builder::new(),
                    || ::umcg::block_on(answer())
                )
            }
        };
        assert_eq!(got, want.to_string());
    }

    #[test]
    fn a_test_has_its_own_defaults_and_keeps_its_attributes() {
        let got = expanded(
            Entry::Test,
            quote!(),
            quote! {
                #[should_panic(expected = "no")]
                #[ignore = "slow"]
                fn fails() { panic!("no") }
            },
        );
        let want = quote! {
            #[should_panic(expected = "no")]
            #[ignore = "slow"]
            #[::core::prelude::v1::test]
            fn fails() {
                fn fails() { panic!("no") }
                ::umcg::__private::run_function(::umcg::__private::test_builder(), fails)
            }
        };
        assert_eq!(got, want.to_string());
    }

    #[test]
    fn a_test_with_a_result_reports_it() {
        let got = expanded(
            Entry::Test,
            quote!(servers = 3),
            quote!(
                async fn t() -> Result<(), Oops> {
                    Ok(())
                }
            ),
        );
        assert!(got.contains("-> :: std :: process :: ExitCode"), "{got}");
        assert!(got.contains("__private :: run_test"), "{got}");
        assert!(got.contains("test_builder () . servers (3)"), "{got}");
    }

    #[test]
    fn wrong_options_do_not_take_the_function_away() {
        let got = expanded(
            Entry::Main,
            quote!(flavor = "x"),
            quote!(
                async fn main() {}
            ),
        );
        assert!(got.contains("run_main"), "{got}");
        assert!(got.contains("compile_error"), "{got}");
    }

    #[test]
    fn a_wrong_item_is_left_as_it_was() {
        for item in [
            quote!(
                struct Main;
            ),
            quote!(
                fn main(x: u8) {}
            ),
            quote!(
                unsafe fn main() {}
            ),
            quote!(fn main() { let x = ; }),
            quote!(
                fn t<T>() {}
            ),
        ] {
            let got = expanded(Entry::Main, quote!(), item.clone());
            assert!(got.starts_with(&item.to_string()), "{got}");
            assert!(got.contains("compile_error"), "{got}");
        }
    }
}
