//! What stands in the attributes: of the trait its name and version, of a method what its callers may rely on.

use proc_macro2::TokenStream;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Expr, ExprLit, Lit, LitInt, LitStr, Meta, Token};

/// `#[interface(name = "…", version = "…")]`.
pub(crate) struct InterfaceArguments {
    pub(crate) name: LitStr,
    pub(crate) version: LitStr,
}

/// What a notification promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    Event,
    State,
    Lossy,
}

/// `#[goplug(…)]` of one item.
#[derive(Default)]
pub(crate) struct ItemArguments {
    pub(crate) name: Option<LitStr>,
    pub(crate) idempotent: bool,
    pub(crate) serial: bool,
    pub(crate) deadline_ms: Option<LitInt>,
    pub(crate) notification: bool,
    pub(crate) class: Option<Class>,
}

const LONGEST_NAME: usize = 128;

impl InterfaceArguments {
    pub(crate) fn read(arguments: TokenStream) -> syn::Result<Self> {
        let example =
            "an interface has a name and a version: `#[interface(name = \"demo.math\", version = \"1.0.0\")]`";
        let all = arguments.span();
        let (mut name, mut version) = (None, None);
        for meta in Punctuated::<Meta, Token![,]>::parse_terminated.parse2(arguments)? {
            if meta.path().is_ident("name") {
                name = Some(checked_name(text(&meta)?)?);
            } else if meta.path().is_ident("version") {
                version = Some(checked_version(text(&meta)?)?);
            } else {
                return Err(Error::new(meta.path().span(), "no such argument; there are `name` and `version`"));
            }
        }
        match (name, version) {
            (Some(name), Some(version)) => Ok(Self { name, version }),
            _ => Err(Error::new(all, example)),
        }
    }
}

impl ItemArguments {
    /// Reads and removes the `#[goplug(…)]` among `attributes`.
    pub(crate) fn take(attributes: &mut Vec<Attribute>) -> syn::Result<Self> {
        let mut arguments = Self::default();
        let mut problem: Option<Error> = None;
        attributes.retain(|attribute| {
            if !attribute.path().is_ident("goplug") {
                return true;
            }
            if let Err(error) = arguments.add(attribute) {
                match &mut problem {
                    Some(problem) => problem.combine(error),
                    None => problem = Some(error),
                }
            }
            false
        });
        problem.map_or(Ok(arguments), Err)
    }

    fn add(&mut self, attribute: &Attribute) -> syn::Result<()> {
        for meta in attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)? {
            let word = meta.path().get_ident().map(ToString::to_string).unwrap_or_default();
            match word.as_str() {
                "name" => self.name = Some(checked_name(text(&meta)?)?),
                "deadline_ms" => self.deadline_ms = Some(milliseconds(&meta)?),
                "idempotent" => self.idempotent = flag(&meta)?,
                "serial" => self.serial = flag(&meta)?,
                "notification" => self.notification = flag(&meta)?,
                "state" if flag(&meta)? => self.class = Some(Class::State),
                "lossy" if flag(&meta)? => self.class = Some(Class::Lossy),
                _ => {
                    let known = "no such word; a method has `idempotent`, `serial`, `deadline_ms = …` and `name = \"…\"`, \
                                 a notification has `notification`, `state`, `lossy` and `name = \"…\"`";
                    return Err(Error::new(meta.path().span(), known));
                }
            }
        }
        Ok(())
    }
}

fn flag(meta: &Meta) -> syn::Result<bool> {
    meta.require_path_only().map(|_| true)
}

fn text(meta: &Meta) -> syn::Result<LitStr> {
    match &meta.require_name_value()?.value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Ok(text.clone()),
        other => Err(Error::new(other.span(), "a text in quotes is expected")),
    }
}

fn milliseconds(meta: &Meta) -> syn::Result<LitInt> {
    let value = &meta.require_name_value()?.value;
    let number = match value {
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => Some(number.clone()),
        _ => None,
    };
    let in_range = |number: &LitInt| number.base10_parse::<u64>().is_ok_and(|ms| (1..=86_400_000).contains(&ms));
    number.filter(in_range).ok_or_else(|| Error::new(value.span(), "a deadline is 1 to 86400000 milliseconds"))
}

fn checked_name(name: LitStr) -> syn::Result<LitStr> {
    let text = name.value();
    let fits = (1..=LONGEST_NAME).contains(&text.len()) && !text.chars().any(char::is_control);
    if fits && text != "." && text != ".." {
        return Ok(name);
    }
    Err(Error::new(name.span(), "a name is 1 to 128 bytes without control characters, and not `.` or `..`"))
}

fn checked_version(version: LitStr) -> syn::Result<LitStr> {
    let text = version.value();
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let is_number = |part: &str| part.parse::<u64>().is_ok() && (part == "0" || !part.starts_with(['0', '+']));
    if core.split('.').count() == 3 && core.split('.').all(is_number) {
        return Ok(version);
    }
    Err(Error::new(version.span(), "a version is three numbers, such as `1.2.0` (SemVer)"))
}
