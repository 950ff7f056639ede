//! What is made of an interface: the trait for plugins, its description, a client, a server and a notifier.
//!
//! As little as possible: everything that does not depend on the trait is a function of `goplug-interface`. What only a
//! client or only a plugin needs stands inside a macro of that crate, which is empty without its feature.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{GenericArgument, Ident, PathArguments, Type, parse_quote};

use crate::attributes::Class;
use crate::model::{Argument, Method, Model, Notification, Streamed, last_segment};

pub(crate) fn expand(model: &Model) -> TokenStream {
    let names = Names::of(model);
    let implemented = implemented_trait(model);
    let description = description(model, &names);
    let bodies = model.methods.iter().filter_map(|method| body_struct(method, &names));
    let (client_type, client) = client(model, &names);
    let (server_types, server) = server(model, &names);
    let in_process = in_process(model, &names);
    let Names { interface, .. } = &names;
    let vis = &model.shell.vis;
    let doc = format!("Interface `{}`, version {}.", model.name.value(), model.version.value());
    quote! {
        #implemented

        #[doc = #doc]
        #[allow(dead_code)]
        #[derive(Debug, Clone, Copy)]
        #vis struct #interface;

        ::goplug_interface::__if_client! { #client_type }
        ::goplug_interface::__if_plugin! { #server_types }

        const _: () = {
            use ::goplug_interface::__private as __goplug;
            #(#bodies)*
            #description
            ::goplug_interface::__if_client! { #client }
            ::goplug_interface::__if_plugin! { #server }
            ::goplug_interface::__if_both! { #in_process }
        };
    }
}

/// The names of what is generated.
struct Names {
    interface: Ident,
    client: Ident,
    server: Ident,
    notifier: Ident,
}

impl Names {
    fn of(model: &Model) -> Self {
        let of = |role: &str| format_ident!("{}{role}", model.shell.ident);
        Self { interface: of("Interface"), client: of("Client"), server: of("Server"), notifier: of("Notifier") }
    }
}

/// The trait that the plugin implements: futures are `Send`, and what implements it may be shared.
fn implemented_trait(model: &Model) -> TokenStream {
    let mut shell = model.shell.clone();
    for bound in [parse_quote!(::core::marker::Send), parse_quote!(::core::marker::Sync), parse_quote!('static)] {
        shell.supertraits.push(bound);
    }
    for method in &model.methods {
        let Method { attributes, ident, output, .. } = method;
        let stream = method.takes.iter().map(|takes| &takes.argument);
        let arguments = method.context.iter().chain(&method.arguments).chain(stream);
        let arguments = arguments.map(|Argument { ident, ty }| quote!(#ident: #ty));
        let output = if method.is_async {
            quote!(impl ::core::future::Future<Output = #output> + ::core::marker::Send)
        } else {
            quote!(#output)
        };
        shell
            .items
            .push(syn::TraitItem::Verbatim(quote! { #(#attributes)* fn #ident(&self, #(#arguments),*) -> #output; }));
    }
    shell.colon_token = Some(Default::default());
    // Nobody implements it where there are only callers.
    quote! {
        #[allow(dead_code)]
        #shell
    }
}

fn description(model: &Model, names: &Names) -> TokenStream {
    let Names { interface, .. } = names;
    let Model { name, version, .. } = model;
    let methods = model.methods.iter().map(|method| {
        let Method { name, idempotent, serial, .. } = method;
        let (input, (reply, error)) = (input_type(method, names), outcome(&method.output));
        let description = optional(method.description.as_ref());
        let deadline = optional(method.deadline_ms.as_ref());
        let reply = if method.gives.is_some() { quote!(()) } else { reply };
        let mut info =
            quote! { __goplug::method::<#input, #reply, #error>(#name, #description, #idempotent, #serial, #deadline) };
        if let Some(Streamed { item, .. }) = &method.takes {
            let alone = method.arguments.is_empty();
            info = quote! { __goplug::taking::<#item>(#info, #alone) };
        }
        if let Some(item) = &method.gives {
            info = quote! { __goplug::giving::<#item>(#info) };
        }
        info
    });
    let callbacks = model.notifications.iter().map(|told| {
        let Notification { name, payload, .. } = told;
        let description = optional(told.description.as_ref());
        let class = match told.class {
            Class::Event => quote!(Event),
            Class::State => quote!(State),
            Class::Lossy => quote!(Lossy),
        };
        quote! { __goplug::callback::<#payload>(#name, #description, __goplug::Class::#class) }
    });
    quote! {
        impl ::goplug_interface::Interface for #interface {
            const NAME: &'static str = #name;
            const VERSION: &'static str = #version;

            fn describe() -> ::goplug_interface::Description {
                ::goplug_interface::Description {
                    name: Self::NAME.into(),
                    version: Self::VERSION.into(),
                    methods: ::std::vec![#(#methods),*],
                    callbacks: ::std::vec![#(#callbacks),*],
                }
            }
        }
    }
}

fn client(model: &Model, names: &Names) -> (TokenStream, TokenStream) {
    let Names { client, interface, .. } = names;
    let vis = &model.shell.vis;
    let doc = format!("Calls a plugin that implements interface `{}`.", model.name.value());
    let client_type = quote! {
        #[doc = #doc]
        #[allow(dead_code)]
        #[derive(Debug, Clone)]
        #vis struct #client {
            caller: ::goplug_interface::Caller,
        }
    };
    let methods = model.methods.iter().map(|method| {
        let Method { ident, name, attributes, .. } = method;
        let docs = attributes.iter().filter(|attribute| attribute.path().is_ident("doc"));
        let arguments = method.arguments.iter().map(|Argument { ident, ty }| quote!(#ident: #ty));
        let stream = method.takes.iter().map(|Streamed { argument: Argument { ident, .. }, item }| {
            quote!(#ident: impl ::core::convert::Into<::goplug_interface::Stream<#item>>)
        });
        let arguments = arguments.chain(stream);
        let (reply, error) = outcome(&method.output);
        let body = match &*method.arguments {
            [] => quote!(&()),
            [Argument { ident, .. }] => quote!(&#ident),
            several => {
                let body = body_name(method, names);
                let fields = several.iter().map(|argument| &argument.ident);
                quote!(&#body { #(#fields),* })
            }
        };
        let input = if method.arguments.is_empty() { quote!(None::<&()>) } else { quote!(Some(#body)) };
        let call = match (&method.takes, &method.gives) {
            (None, None) => quote!(call::<_, #reply, #error>(#name, #body)),
            (None, Some(item)) => quote!(call_giving::<_, #item, #error>(#name, #body)),
            (Some(Streamed { argument: Argument { ident, .. }, item }), None) => {
                quote!(call_taking::<_, #item, #reply, #error>(#name, #input, #ident.into()))
            }
            (Some(Streamed { argument: Argument { ident, .. }, item }), Some(given)) => {
                quote!(call_taking_and_giving::<_, #item, #given, #error>(#name, #input, #ident.into()))
            }
        };
        quote! {
            #(#docs)*
            ///
            /// # Errors
            /// The method's own error, or why the call failed.
            #vis async fn #ident(
                &self, #(#arguments),*
            ) -> ::core::result::Result<#reply, <#error as __goplug::Failure>::Seen> {
                self.caller.#call.await
            }
        }
    });
    let handlers = model.notifications.iter().map(|told| {
        let Notification { ident, name, payload, .. } = told;
        let (on, on_as) = (format_ident!("on_{ident}"), format_ident!("on_{ident}_as"));
        let doc =
            format!("Runs `handler` for every `{}`; it is acknowledged when the handler has returned.", name.value());
        let doc_as = format!("As `{on}`, under a name that gives the application its place back after a restart.");
        quote! {
            #[doc = #doc]
            ///
            /// # Errors
            /// As `Registry::register_callback`.
            #vis async fn #on<H, F>(
                &self, handler: H
            ) -> ::core::result::Result<::goplug_interface::Subscription, ::goplug_interface::Error>
            where
                H: FnMut(::goplug_interface::Notified<#payload>) -> F + Send + 'static,
                F: ::core::future::Future<Output = ::core::result::Result<(), String>> + Send + 'static,
            {
                self.caller.on(#name, None, handler).await
            }

            #[doc = #doc_as]
            ///
            /// # Errors
            /// As `Registry::register_callback`.
            #vis async fn #on_as<H, F>(
                &self, subscription: &str, handler: H
            ) -> ::core::result::Result<::goplug_interface::Subscription, ::goplug_interface::Error>
            where
                H: FnMut(::goplug_interface::Notified<#payload>) -> F + Send + 'static,
                F: ::core::future::Future<Output = ::core::result::Result<(), String>> + Send + 'static,
            {
                self.caller.on(#name, Some(subscription), handler).await
            }
        }
    });
    let implementation = quote! {
        impl ::goplug_interface::Client for #client {
            type Interface = #interface;

            fn from_caller(caller: ::goplug_interface::Caller) -> Self {
                Self { caller }
            }

            fn caller(&self) -> &::goplug_interface::Caller {
                &self.caller
            }
        }

        #[allow(dead_code)]
        impl #client {
            #(#methods)*
            #(#handlers)*
        }
    };
    (client_type, implementation)
}

fn server(model: &Model, names: &Names) -> (TokenStream, TokenStream) {
    let Names { server, interface, .. } = names;
    let (vis, implemented) = (&model.shell.vis, &model.shell.ident);
    let doc =
        format!("Lets a plugin answer interface `{}` with an implementation of `{implemented}`.", model.name.value());
    let (notifier_type, notifier) = notifier(model, names);
    let types = quote! {
        #[doc = #doc]
        #[allow(dead_code)]
        #[derive(Debug)]
        #vis struct #server<T>(::std::sync::Arc<T>);
        #notifier_type
    };
    let methods = model.methods.iter().enumerate().map(|(at, method)| {
        let Method { ident, .. } = method;
        let input = input_type(method, names);
        let inputs = match &*method.arguments {
            [] => vec![],
            [_] => vec![quote!(input)],
            several => several.iter().map(|Argument { ident, .. }| quote!(input.#ident)).collect(),
        };
        if let Some(Streamed { item, .. }) = &method.takes {
            let context = method.context.iter().map(|_| quote!(context));
            let arguments = context.chain(inputs).chain([quote!(items)]);
            let alone = method.arguments.is_empty();
            let answer = match &method.gives {
                Some(_) => quote!(answer_taking_and_giving),
                None => quote!(answer_taking),
            };
            quote! {
                let builder = {
                    let this = ::std::sync::Arc::clone(&self.0);
                    let answer = move |context, input: #input, items: ::goplug_interface::Stream<#item>| {
                        let this = ::std::sync::Arc::clone(&this);
                        async move { <T as #implemented>::#ident(&*this, #(#arguments),*).await }
                    };
                    __goplug::#answer(builder, &description, #at, #alone, answer)
                };
            }
        } else if method.is_async {
            let answer = match &method.gives {
                Some(_) => quote!(answer_giving),
                None => quote!(answer_async),
            };
            let context = method.context.iter().map(|_| quote!(context));
            let arguments = context.chain(inputs);
            quote! {
                let builder = {
                    let this = ::std::sync::Arc::clone(&self.0);
                    __goplug::#answer(builder, &description, #at, move |context, input: #input| {
                        let this = ::std::sync::Arc::clone(&this);
                        async move { <T as #implemented>::#ident(&*this, #(#arguments),*).await }
                    })
                };
            }
        } else {
            let context = method.context.iter().map(|_| quote!(::core::clone::Clone::clone(context)));
            let arguments = context.chain(inputs);
            quote! {
                let builder = {
                    let this = ::std::sync::Arc::clone(&self.0);
                    __goplug::answer_blocking(builder, &description, #at, move |context, input: #input| {
                        <T as #implemented>::#ident(&*this, #(#arguments),*)
                    })
                };
            }
        }
    });
    let implementation = quote! {
        #[allow(dead_code)]
        impl<T: #implemented> #server<T> {
            /// A server that asks `implementation`.
            #vis fn new(implementation: T) -> Self {
                Self(::std::sync::Arc::new(implementation))
            }
        }

        impl<T: #implemented> ::goplug_interface::Serve for #server<T> {
            #[allow(unused_variables)]
            fn serve(self, builder: ::goplug_interface::PluginBuilder) -> ::goplug_interface::PluginBuilder {
                let description = <#interface as ::goplug_interface::Interface>::describe();
                let builder = __goplug::declare(builder, &description);
                #(#methods)*
                builder
            }
        }

        #notifier
    };
    (types, implementation)
}

fn notifier(model: &Model, names: &Names) -> (TokenStream, TokenStream) {
    if model.notifications.is_empty() {
        return (TokenStream::new(), TokenStream::new());
    }
    let Names { notifier, .. } = names;
    let vis = &model.shell.vis;
    let doc = format!("Sends the notifications of interface `{}`.", model.name.value());
    let notifier_type = quote! {
        #[doc = #doc]
        #[allow(dead_code)]
        #[derive(Debug, Clone)]
        #vis struct #notifier(::goplug_interface::Notifier);
    };
    let sent = quote!(::core::result::Result<::goplug_interface::Position, ::goplug_interface::Error>);
    let notifications = model.notifications.iter().map(|told| {
        let Notification { ident, name, payload, attributes, .. } = told;
        let docs: Vec<_> = attributes.iter().filter(|attribute| attribute.path().is_ident("doc")).collect();
        match told.class {
            Class::Event => {
                let (acked, at_once) = (format_ident!("{ident}_acked"), format_ident!("try_{ident}"));
                let blocking = format_ident!("{ident}_blocking");
                quote! {
                    #(#docs)*
                    ///
                    /// Waits while the window is full.
                    ///
                    /// # Errors
                    /// As `Notifier::notify`.
                    #vis async fn #ident(&self, payload: &#payload) -> #sent {
                        self.0.notify(#name, __goplug::payload(#name, payload)?).await
                    }

                    #(#docs)*
                    ///
                    /// Waits until every subscription has acknowledged it.
                    ///
                    /// # Errors
                    /// As `Notifier::notify_acked`.
                    #vis async fn #acked(&self, payload: &#payload) -> #sent {
                        self.0.notify_acked(#name, __goplug::payload(#name, payload)?).await
                    }

                    #(#docs)*
                    ///
                    /// Never waits.
                    ///
                    /// # Errors
                    /// As `Notifier::try_notify`.
                    #vis fn #at_once(&self, payload: &#payload) -> #sent {
                        self.0.try_notify(#name, __goplug::payload(#name, payload)?)
                    }

                    #(#docs)*
                    ///
                    /// Blocks its thread while the window is full.
                    ///
                    /// # Errors
                    /// As `Notifier::notify_blocking`.
                    #vis fn #blocking(&self, payload: &#payload) -> #sent {
                        self.0.notify_blocking(#name, __goplug::payload(#name, payload)?)
                    }
                }
            }
            Class::State => quote! {
                #(#docs)*
                ///
                /// Sets the value of `key`; never waits.
                ///
                /// # Errors
                /// As `Notifier::notify_key`.
                #vis fn #ident(&self, key: &str, payload: &#payload) -> #sent {
                    self.0.notify_key(#name, key, __goplug::payload(#name, payload)?)
                }
            },
            Class::Lossy => quote! {
                #(#docs)*
                ///
                /// Never waits.
                ///
                /// # Errors
                /// As `Notifier::try_notify`.
                #vis fn #ident(&self, payload: &#payload) -> #sent {
                    self.0.try_notify(#name, __goplug::payload(#name, payload)?)
                }
            },
        }
    });
    let implementation = quote! {
        #[allow(dead_code)]
        impl #notifier {
            /// Sends by way of `notifier`, which may declare more than this interface has.
            #vis fn new(notifier: ::goplug_interface::Notifier) -> Self {
                Self(notifier)
            }

            /// Sends for the plugin that a call came to.
            #vis fn of(context: &::goplug_interface::Context) -> Self {
                Self(context.notifier().clone())
            }

            #(#notifications)*
        }
    };
    (notifier_type, implementation)
}

fn in_process(model: &Model, names: &Names) -> TokenStream {
    let Names { client, server, .. } = names;
    let (vis, implemented) = (&model.shell.vis, &model.shell.ident);
    quote! {
        #[allow(dead_code)]
        impl #client {
            /// A client of a plugin inside this process, for tests: it goes the whole way over a socket of its own, and
            /// is gone with the last clone of the client.
            ///
            /// # Errors
            /// When the plugin cannot be built or cannot listen.
            #vis async fn in_process(
                implementation: impl #implemented
            ) -> ::core::result::Result<Self, ::goplug_interface::Error> {
                ::goplug_interface::in_process(#server::new(implementation)).await
            }
        }
    }
}

/// The body of a method with several arguments: an object with their names. Generic, so that a type that cannot travel is
/// told where it stands in the trait and not in what is derived here.
fn body_struct(method: &Method, names: &Names) -> Option<TokenStream> {
    if method.arguments.len() < 2 {
        return None;
    }
    let (name, title) = (body_name(method, names), method.name.value());
    let parameters: Vec<_> = (0..method.arguments.len()).map(|at| format_ident!("T{at}")).collect();
    let fields = method.arguments.iter().zip(&parameters).map(|(Argument { ident, .. }, ty)| quote!(#ident: #ty));
    let types = method.arguments.iter().map(|argument| &argument.ty);
    Some(quote! {
        #[derive(__goplug::serde::Serialize, __goplug::serde::Deserialize, __goplug::schemars::JsonSchema)]
        #[serde(crate = "::goplug_interface::__private::serde")]
        #[schemars(crate = "::goplug_interface::__private::schemars", rename = #title)]
        struct #name<#(#parameters),*> { #(#fields),* }
        const _: () = { #(__goplug::travels::<#types>();)* };
    })
}

fn input_type(method: &Method, names: &Names) -> TokenStream {
    match &*method.arguments {
        [] => quote!(()),
        [Argument { ty, .. }] => quote!(#ty),
        several => {
            let (body, types) = (body_name(method, names), several.iter().map(|argument| &argument.ty));
            quote!(#body<#(#types),*>)
        }
    }
}

fn body_name(method: &Method, names: &Names) -> Ident {
    let text = method.ident.to_string();
    let words = text.trim_start_matches("r#").split('_');
    let camel: String = words
        .flat_map(|word| {
            let mut letters = word.chars();
            letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect::<Vec<_>>()
        })
        .collect();
    format_ident!("{}{camel}Body", names.interface)
}

/// Reply and error of a method: what stands in `Result<Reply, Error>`, or what an alias of it means.
fn outcome(output: &Type) -> (TokenStream, TokenStream) {
    if let Type::Path(path) = output
        && last_segment(output).is_some_and(|name| name == "Result")
        && let Some(PathArguments::AngleBracketed(arguments)) = path.path.segments.last().map(|last| &last.arguments)
    {
        let mut arguments = arguments.args.iter();
        if let (Some(GenericArgument::Type(reply)), Some(GenericArgument::Type(error)), None) =
            (arguments.next(), arguments.next(), arguments.next())
        {
            return (quote!(#reply), quote!(#error));
        }
    }
    (quote!(<#output as __goplug::Outcome>::Reply), quote!(<#output as __goplug::Outcome>::Error))
}

fn optional(value: Option<&impl quote::ToTokens>) -> TokenStream {
    value.map_or_else(|| quote!(None), |value| quote!(Some(#value)))
}
