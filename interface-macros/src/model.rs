//! What a trait says of its interface, or every reason why it is none, each at its own place.

use proc_macro2::TokenStream;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, Expr, ExprLit, FnArg, GenericArgument, Ident, ItemTrait, Lit, LitInt, LitStr, Meta, Pat,
    PathArguments, ReceiverKind, ReturnType, Signature, TraitItem, TraitItemFn, Type,
};

use crate::attributes::{Class, InterfaceArguments, ItemArguments};

/// An interface.
pub(crate) struct Model {
    pub(crate) name: LitStr,
    pub(crate) version: LitStr,
    /// The trait without its items and our attributes.
    pub(crate) shell: ItemTrait,
    pub(crate) methods: Vec<Method>,
    pub(crate) notifications: Vec<Notification>,
}

/// A method of it.
pub(crate) struct Method {
    pub(crate) ident: Ident,
    pub(crate) name: LitStr,
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) description: Option<String>,
    pub(crate) is_async: bool,
    pub(crate) idempotent: bool,
    pub(crate) serial: bool,
    pub(crate) deadline_ms: Option<LitInt>,
    /// Whether it wants to know of its call, and by which name and type.
    pub(crate) context: Option<Argument>,
    /// Without the stream.
    pub(crate) arguments: Vec<Argument>,
    /// The stream that it takes, as its last argument.
    pub(crate) takes: Option<Streamed>,
    /// The items of the stream that it gives.
    pub(crate) gives: Option<Type>,
    pub(crate) output: Type,
}

/// An argument that is a stream.
pub(crate) struct Streamed {
    pub(crate) argument: Argument,
    pub(crate) item: Type,
}

/// An argument of a method.
pub(crate) struct Argument {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
}

/// A notification of it.
pub(crate) struct Notification {
    pub(crate) ident: Ident,
    pub(crate) name: LitStr,
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) description: Option<String>,
    pub(crate) class: Class,
    pub(crate) payload: Type,
}

/// Problems, told all at once.
#[derive(Default)]
struct Problems(Option<Error>);

impl Problems {
    fn add(&mut self, error: Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            None => self.0 = Some(error),
        }
    }

    fn at(&mut self, place: &impl Spanned, text: &str) {
        self.add(Error::new(place.span(), text));
    }

    fn note<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }
}

impl Model {
    pub(crate) fn read(arguments: TokenStream, item: TokenStream) -> syn::Result<Self> {
        let mut problems = Problems::default();
        let Ok(mut shell) = syn::parse2::<ItemTrait>(item.clone()) else {
            return Err(Error::new(item.span(), "an interface is made of a trait"));
        };
        let named = problems.note(InterfaceArguments::read(arguments));
        if !shell.generics.params.is_empty() {
            problems
                .at(&shell.generics, "an interface has no generics: plugin and application must mean the same types");
        }
        let (mut methods, mut notifications) = (Vec::new(), Vec::new());
        for item in std::mem::take(&mut shell.items) {
            let TraitItem::Fn(mut function) = item else {
                problems.at(&item, "an interface consists of methods and notifications only");
                continue;
            };
            let Some(arguments) = problems.note(ItemArguments::take(&mut function.attrs)) else { continue };
            if arguments.notification {
                notifications.extend(notification(function, arguments, &mut problems));
            } else {
                methods.extend(method(function, arguments, &mut problems));
            }
        }
        check_names(&methods, &notifications, &mut problems);
        match (named, problems.0) {
            (Some(InterfaceArguments { name, version }), None) => {
                Ok(Self { name, version, shell, methods, notifications })
            }
            (_, Some(error)) => Err(error),
            (None, None) => Err(Error::new(shell.span(), "the arguments of the attribute cannot be read")),
        }
    }
}

fn method(function: TraitItemFn, arguments: ItemArguments, problems: &mut Problems) -> Option<Method> {
    let TraitItemFn { attrs, sig, default, .. } = function;
    if let Some(class) = arguments.class {
        let text = format!("`{class:?}` is a class of notifications: `notification` is missing").to_lowercase();
        problems.at(&sig.ident, &text);
    }
    if let Some(body) = &default {
        problems.at(body, "a method of an interface has no body here: the plugin implements it");
    }
    refuse_modifiers(&sig, problems);
    let mut inputs = sig.inputs.iter();
    let takes_self = matches!(inputs.clone().next(), Some(FnArg::Receiver(receiver))
        if matches!(&receiver.kind, ReceiverKind::Reference(_, None, None)));
    if !takes_self {
        let text = "a method takes `&self`; a notification has no `self` and is marked `#[goplug(notification)]`";
        problems.at(&sig.ident, text);
        return None;
    }
    inputs.next();
    let mut given: Vec<_> = inputs.filter_map(|input| argument(input, problems)).collect();
    let is_context = given.first().is_some_and(|first| last_segment(&first.ty).is_some_and(|name| name == "Context"));
    let context = is_context.then(|| given.remove(0));
    let item = given.last().and_then(|last| items_of(&last.ty)).cloned();
    let takes = item.and_then(|item| Some(Streamed { argument: given.pop()?, item }));
    for argument in given.iter().filter(|argument| items_of(&argument.ty).is_some()) {
        problems.at(&argument.ty, "a stream is the last argument, and the only one");
    }
    let ReturnType::Type(_, output) = sig.output else {
        problems.at(&sig.ident, "a method returns a `Result`: a call may always fail");
        return None;
    };
    if last_segment(&output).is_none_or(|name| !name.to_string().ends_with("Result")) {
        problems.at(&output, "a method returns a `Result`: a call may always fail");
    }
    let gives = first_argument(&output).and_then(items_of).cloned();
    if (takes.is_some() || gives.is_some()) && sig.asyncness.is_none() {
        problems.at(&sig.ident, "a method that takes or gives a stream is `async fn`");
    }
    if takes.is_some() && arguments.idempotent {
        problems.at(&sig.ident, "a method that takes a stream is never repeated: what was read of it is gone");
    }
    Some(Method {
        takes,
        gives,
        name: arguments.name.unwrap_or_else(|| name_of(&sig.ident)),
        ident: sig.ident,
        description: first_line(&attrs),
        attributes: attrs,
        is_async: sig.asyncness.is_some(),
        idempotent: arguments.idempotent,
        serial: arguments.serial,
        deadline_ms: arguments.deadline_ms,
        context,
        arguments: given,
        output: *output,
    })
}

fn notification(function: TraitItemFn, arguments: ItemArguments, problems: &mut Problems) -> Option<Notification> {
    let TraitItemFn { attrs, sig, default, .. } = function;
    if let Some(body) = &default {
        problems.at(body, "a notification has no body: the plugin sends it, the application handles it");
    }
    if arguments.idempotent || arguments.serial || arguments.deadline_ms.is_some() {
        problems.at(&sig.ident, "`idempotent`, `serial` and `deadline_ms` are for methods, not for notifications");
    }
    refuse_modifiers(&sig, problems);
    if sig.asyncness.is_some() || !matches!(sig.output, ReturnType::Default) {
        problems.at(&sig.ident, "a notification is a plain `fn` that returns nothing");
    }
    let mut inputs = sig.inputs.iter();
    let (Some(FnArg::Typed(_)), 1) = (inputs.clone().next(), sig.inputs.len()) else {
        problems.at(&sig.ident, "a notification has no `self` and takes one argument, its payload");
        return None;
    };
    let payload = argument(inputs.next()?, problems)?.ty;
    if items_of(&payload).is_some() {
        problems.at(&payload, "a notification is one value: send one for each item");
    }
    Some(Notification {
        name: arguments.name.unwrap_or_else(|| name_of(&sig.ident)),
        ident: sig.ident,
        description: first_line(&attrs),
        attributes: attrs,
        class: arguments.class.unwrap_or(Class::Event),
        payload,
    })
}

fn refuse_modifiers(sig: &Signature, problems: &mut Problems) {
    if !sig.generics.params.is_empty() {
        problems.at(&sig.generics, "a method of an interface has no generics: both sides must mean the same types");
    }
    if let Some(word) = &sig.constness {
        problems.at(word, "a method of an interface is `fn` or `async fn`");
    }
    if let Some(word) = &sig.variadic {
        problems.at(word, "a method of an interface has a fixed number of arguments");
    }
}

fn argument(input: &FnArg, problems: &mut Problems) -> Option<Argument> {
    let FnArg::Typed(input) = input else {
        problems.at(input, "`self` is the first argument");
        return None;
    };
    let Pat::Ident(pattern) = &*input.pat else {
        problems.at(&input.pat, "an argument is a plain name: it is the name of a field on the wire");
        return None;
    };
    match &*input.ty {
        Type::Reference(_) => {
            let text = "an argument crosses a process boundary, so it cannot be a reference: use an owned type, such as \
                        `String` for `&str`";
            problems.at(&input.ty, text);
            return None;
        }
        Type::ImplTrait(_) => {
            problems.at(&input.ty, "an argument has a type of its own: both sides must mean the same");
            return None;
        }
        _ => {}
    }
    Some(Argument { ident: pattern.ident.clone(), ty: (*input.ty).clone() })
}

/// Names that would clash on the wire, or in what is generated.
fn check_names(methods: &[Method], notifications: &[Notification], problems: &mut Problems) {
    let mut seen = Vec::new();
    for (kind, name, ident) in methods
        .iter()
        .map(|method| ("method", &method.name, &method.ident))
        .chain(notifications.iter().map(|told| ("notification", &told.name, &told.ident)))
    {
        if seen.contains(&(kind, name.value())) {
            problems.at(name, &format!("{kind} `{}` is there twice", name.value()));
        }
        seen.push((kind, name.value()));
        let reserved: &[&str] = if kind == "method" { &["in_process"] } else { &["new", "of"] };
        if reserved.iter().any(|word| ident == word) {
            let text =
                format!("`{ident}` is a function that is generated: call it otherwise and say `name = \"{ident}\"`");
            problems.at(ident, &text);
        }
    }
    for told in notifications {
        for method in methods {
            if method.ident == format!("on_{}", told.ident) || method.ident == format!("on_{}_as", told.ident) {
                let text = format!("`{}` is generated for notification `{}`", method.ident, told.ident);
                problems.at(&method.ident, &text);
            }
        }
    }
}

fn name_of(ident: &Ident) -> LitStr {
    let text = ident.to_string();
    LitStr::new(text.strip_prefix("r#").unwrap_or(&text), ident.span())
}

pub(crate) fn last_segment(ty: &Type) -> Option<&Ident> {
    match ty {
        Type::Path(path) if path.qself.is_none() => path.path.segments.last().map(|segment| &segment.ident),
        _ => None,
    }
}

/// The items of a type that is written as `Stream<Item>`.
fn items_of(ty: &Type) -> Option<&Type> {
    if last_segment(ty)? == "Stream" { first_argument(ty) } else { None }
}

/// What stands first between the angle brackets of a type.
fn first_argument(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let PathArguments::AngleBracketed(arguments) = &path.path.segments.last()?.arguments else { return None };
    match arguments.args.first()? {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    }
}

/// The first line of a documentation comment.
fn first_line(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(meta) if meta.path.is_ident("doc") => match &meta.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => {
                Some(text.value().trim().trim_end_matches('.').to_owned()).filter(|text| !text.is_empty())
            }
            _ => None,
        },
        _ => None,
    })
}
