//! The list of options in the parentheses of the attributes, and errors that say what to write
//! instead of an option that does not exist.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{
    Error, Expr, ExprLit, ExprPath, Lit, LitStr, Meta, Path, Token, parse::Parser,
    punctuated::Punctuated, spanned::Spanned,
};

/// The kind of value that an option takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ValueKind {
    /// A whole number that is at least this.
    Number(u64),
    Duration,
    Text,
    Bool,
    Provider,
    CratePath,
}

/// The options: their name, the method of the builder that they call, and the kind of their value.
///
/// Two options with the same method are two spellings of one option.
const OPTIONS: &[(&str, &str, ValueKind)] = &[
    ("servers", "servers", ValueKind::Number(1)),
    ("max_workers", "max_workers", ValueKind::Number(1)),
    ("min_idle_workers", "min_idle_workers", ValueKind::Number(0)),
    ("keep_alive", "keep_alive", ValueKind::Duration),
    ("name", "thread_name", ValueKind::Text),
    ("thread_name", "thread_name", ValueKind::Text),
    (
        "thread_stack_size",
        "thread_stack_size",
        ValueKind::Number(1),
    ),
    ("provider", "provider", ValueKind::Provider),
    ("pin", "pin", ValueKind::Bool),
    ("crate", "crate", ValueKind::CratePath),
];

/// Names that other runtimes use for an option, and what to write here instead.
const FOREIGN: &[(&[&str], &str)] = &[
    (
        &["flavor", "basic_scheduler", "threaded_scheduler"],
        "umcg has one kind of runtime, in which every task may block: remove this option. \
         `servers = 1` runs one task at a time",
    ),
    (
        &[
            "worker_threads",
            "core_threads",
            "num_threads",
            "threads",
            "pool_size",
            "workers",
        ],
        "the number of tasks that run at the same time is `servers = N`; the limit on threads, \
         blocked ones included, is `max_workers = N`",
    ),
    (
        &["max_blocking_threads", "max_threads"],
        "tasks that block and others share the same threads, whose limit is `max_workers = N`",
    ),
    (
        &["thread_keep_alive", "keep_alive_secs"],
        "write `keep_alive = std::time::Duration::from_secs(N)`",
    ),
    (&["stack_size"], "write `thread_stack_size = N`, in bytes"),
    (
        &["pinned", "pinning", "core_affinity"],
        "write `pin = true` (the default) or `pin = false`",
    ),
    (
        &["start_paused"],
        "time cannot be paused, since tasks may sleep in the kernel: remove this option, and have \
         the test wait for conditions",
    ),
    (
        &["unhandled_panic"],
        "the panic of a task always goes to its `JoinHandle`: remove this option, and check for a \
         `JoinError`",
    ),
    (
        &["enable_all", "enable_io", "enable_time"],
        "there is nothing to enable: remove this option",
    ),
    (
        &["global_queue_interval", "event_interval"],
        "the scheduler has no such interval: remove this option",
    ),
];

/// The options of one attribute.
#[derive(Clone)]
pub(crate) struct Options {
    /// The path of the crate `umcg`.
    pub(crate) krate: Path,
    /// The calls of the builder's methods, with their argument, in the order in which the options
    /// were written. No method is called twice.
    pub(crate) calls: Vec<(Ident, TokenStream)>,
}

impl Options {
    fn new() -> Self {
        Self {
            krate: syn::parse_quote!(::umcg),
            calls: Vec::new(),
        }
    }

    /// Parses the list. Options with a mistake are left out, so that the function can still be
    /// expanded, and all mistakes are reported together.
    pub(crate) fn parse(list: TokenStream) -> (Self, Option<Error>) {
        let mut options = Self::new();
        let metas = match Punctuated::<Meta, Token![,]>::parse_terminated.parse2(list) {
            Ok(metas) => metas,
            Err(error) => return (options, Some(error)),
        };
        let mut seen: Vec<&str> = Vec::new();
        let mut errors: Option<Error> = None;
        for meta in &metas {
            if let Err(error) = options.add(meta, &mut seen) {
                match &mut errors {
                    Some(errors) => errors.combine(error),
                    None => errors = Some(error),
                }
            }
        }
        (options, errors)
    }

    fn add(&mut self, meta: &Meta, seen: &mut Vec<&'static str>) -> Result<(), Error> {
        let name = match meta.path().get_ident() {
            Some(name) => name.to_string(),
            None => return Err(Error::new_spanned(meta.path(), unknown("this"))),
        };
        let Some(&(option, method, kind)) = OPTIONS.iter().find(|(known, ..)| *known == name)
        else {
            let foreign = FOREIGN
                .iter()
                .find(|(names, _)| names.contains(&name.as_str()));
            let message = match foreign {
                Some((_, answer)) => format!("`{name}` is not an option of umcg: {answer}"),
                None => unknown(&format!("`{name}`")),
            };
            return Err(Error::new_spanned(meta.path(), message));
        };
        let Meta::NameValue(pair) = meta else {
            return Err(Error::new_spanned(meta, kind.sentence(option)));
        };
        if seen.contains(&method) {
            return Err(Error::new_spanned(
                meta.path(),
                format!("`{option}` is set twice"),
            ));
        }
        seen.push(method);
        if kind == ValueKind::CratePath {
            self.krate = crate_path(&pair.value)?;
            return Ok(());
        }
        let value = kind.value(option, &pair.value)?;
        self.calls
            .push((Ident::new(method, pair.path.span()), value));
        Ok(())
    }
}

impl ValueKind {
    /// Says what the option takes, with an example.
    fn sentence(self, option: &str) -> String {
        match self {
            Self::Number(least) => {
                format!("`{option}` takes a number that is {least} or more: `{option} = 4`")
            }
            Self::Duration => format!(
                "`{option}` takes a duration: `{option} = std::time::Duration::from_secs(10)`"
            ),
            Self::Text => format!("`{option}` takes a string: `{option} = \"io\"`"),
            Self::Bool => {
                format!("`{option}` takes a boolean: `{option} = true` or `{option} = false`")
            }
            Self::Provider => format!(
                "`{option}` takes one of three strings: `{option} = \"auto\"`, `{option} = \"emulated\"` \
                 or `{option} = \"device\"`"
            ),
            Self::CratePath => format!("`{option}` takes a path: `{option} = \"my::umcg\"`"),
        }
    }

    /// The argument for the builder's method. Literals are checked here. The type of any other
    /// expression is checked by the compiler, whose error points at it.
    fn value(self, option: &str, value: &Expr) -> Result<TokenStream, Error> {
        let wrong = || Error::new_spanned(value, self.sentence(option));
        if let Self::Provider = self {
            let choice = match value {
                Expr::Lit(ExprLit {
                    lit: Lit::Str(text),
                    ..
                }) => match text.value().as_str() {
                    "auto" => "Auto",
                    "emulated" => "Emulated",
                    "device" => "Device",
                    _ => return Err(wrong()),
                },
                _ => return Err(wrong()),
            };
            let choice = Ident::new(choice, Span::call_site());
            // `expand` puts the path of the crate's private module in front.
            return Ok(quote_spanned!(value.span()=> ProviderChoice::#choice));
        }
        if let Expr::Lit(ExprLit { lit, .. }) = value {
            let right = match (self, lit) {
                (Self::Number(least), Lit::Int(number)) => {
                    number.base10_parse::<u64>().is_ok_and(|n| n >= least)
                }
                (Self::Text, Lit::Str(_)) | (Self::Bool, Lit::Bool(_)) => true,
                _ => false,
            };
            if !right {
                return Err(wrong());
            }
        }
        Ok(quote!(#value))
    }
}

fn crate_path(value: &Expr) -> Result<Path, Error> {
    match value {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) => parse_path(text),
        Expr::Path(ExprPath {
            qself: None, path, ..
        }) => Ok(path.clone()),
        _ => Err(Error::new_spanned(
            value,
            ValueKind::CratePath.sentence("crate"),
        )),
    }
}

fn parse_path(text: &LitStr) -> Result<Path, Error> {
    text.parse_with(Path::parse_mod_style)
        .map_err(|_| Error::new_spanned(text, ValueKind::CratePath.sentence("crate")))
}

/// The error for an option that neither umcg nor another runtime has. It suggests the option with
/// the nearest spelling, or else names all options.
fn unknown(name: &str) -> String {
    let bare = name.trim_matches('`');
    let near = OPTIONS
        .iter()
        .map(|(option, ..)| (distance(option, bare), *option))
        .min()
        .filter(|(distance, option)| *distance <= 2 && *distance < option.len());
    match near {
        Some((_, option)) => format!("{name} is not an option of umcg; did you mean `{option}`?"),
        None => {
            let all: Vec<String> = OPTIONS
                .iter()
                .map(|(option, ..)| format!("`{option}`"))
                .collect();
            format!(
                "{name} is not an option of umcg. The options are {}",
                all.join(", ")
            )
        }
    }
}

/// The Levenshtein distance of two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(list: TokenStream) -> Vec<String> {
        let (_, errors) = Options::parse(list);
        errors.map_or(Vec::new(), |e| {
            e.into_iter().map(|e| e.to_string()).collect()
        })
    }

    #[test]
    fn every_option_is_understood() {
        let (options, errors) = Options::parse(quote! {
            servers = 2, max_workers = 64, min_idle_workers = 0,
            keep_alive = Duration::from_secs(1), name = "io", thread_stack_size = 1 << 20,
            provider = "emulated", pin = false, crate = "a::b",
        });
        assert!(errors.is_none(), "{errors:?}");
        let methods: Vec<String> = options.calls.iter().map(|(m, _)| m.to_string()).collect();
        assert_eq!(
            methods,
            [
                "servers",
                "max_workers",
                "min_idle_workers",
                "keep_alive",
                "thread_name",
                "thread_stack_size",
                "provider",
                "pin"
            ]
        );
        let krate = &options.krate;
        assert_eq!(quote!(#krate).to_string(), "a :: b");
    }

    #[test]
    fn options_of_other_runtimes_are_answered_with_ours() {
        for (list, answer) in [
            (quote!(worker_threads = 4), "`servers = N`"),
            (quote!(flavor = "current_thread"), "`servers = 1`"),
            (quote!(max_blocking_threads = 4), "`max_workers = N`"),
            (quote!(start_paused = true), "cannot be paused"),
            (quote!(unhandled_panic = "shutdown_runtime"), "`JoinError`"),
            (quote!(thread_keep_alive = 1), "`keep_alive ="),
        ] {
            let said = errors(list);
            assert_eq!(said.len(), 1);
            assert!(said[0].contains(answer), "{said:?}");
        }
    }

    #[test]
    fn a_misspelt_option_is_answered_with_the_nearest() {
        assert_eq!(
            errors(quote!(server = 4)),
            ["`server` is not an option of umcg; did you mean `servers`?"]
        );
        assert!(errors(quote!(colour = "red"))[0].contains("The options are `servers`"));
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        assert_eq!(
            errors(quote!(
                servers = 0,
                pin = 1,
                max_workers,
                provider = "cloud"
            ))
            .len(),
            4
        );
    }

    #[test]
    fn the_two_spellings_of_the_name_are_one_option() {
        assert_eq!(
            errors(quote!(name = "a", thread_name = "b")),
            ["`thread_name` is set twice"]
        );
    }
}
