//! `methods` and `callbacks`: what a plugin offers.

use goplug_pconf_schema::admin::{CallbackList, MethodList};
use goplug_pconf_schema::wire::event::{Class, SubscriptionStatus};
use goplug_pconf_schema::{Code, Fault, PluginId};

use crate::args::OnePlugin;
use crate::failure::Failure;
use crate::output::{Style, Table, escape};
use crate::session::Session;

pub(super) async fn methods(session: &mut Session, args: &OnePlugin) -> Result<(), Failure> {
    let what = |plugin: &str| format!("cannot list the methods of `{plugin}`");
    let plugin = session.one(&what(&args.plugin), &args.plugin).await?;
    let list =
        session.target.methods(&plugin).await.map_err(|fault| needs_load(what(plugin.as_str()), fault, &plugin))?;
    let names = || list.methods.iter().map(|method| method.name.clone()).collect();
    Ok(session.out.show(std::slice::from_ref(&list), true, names, |style, wide| methods_text(&list, style, wide))?)
}

pub(super) async fn callbacks(session: &mut Session, args: &OnePlugin) -> Result<(), Failure> {
    let what = |plugin: &str| format!("cannot list the callbacks of `{plugin}`");
    let plugin = session.one(&what(&args.plugin), &args.plugin).await?;
    let list =
        session.target.callbacks(&plugin).await.map_err(|fault| needs_load(what(plugin.as_str()), fault, &plugin))?;
    if list.callbacks.is_empty() && speaks_v0(session, &plugin).await {
        let shown = escape(plugin.as_str());
        session.say(&format!(
            "note: `{shown}` speaks v0, which does not tell its callbacks; `goplugctl listen {shown} NAME` hears one, and misses \
             what comes between two polls\n"
        ));
    }
    let names = || list.callbacks.iter().map(|callback| callback.name.clone()).collect();
    Ok(session.out.show(std::slice::from_ref(&list), true, names, |style, _| callbacks_text(&list, style))?)
}

/// Whether it is known of the plugin, which is loaded, that it speaks v0 and so may lose notifications, and whoever asks wants
/// to hear it.
pub(super) async fn speaks_v0(session: &Session, plugin: &PluginId) -> bool {
    !session.out.is_quiet() && session.target.methods(plugin).await.is_ok_and(|list| list.protocol == 0)
}

/// A class as it is written everywhere.
pub(super) fn class_word(class: Class) -> &'static str {
    match class {
        Class::Event => "event",
        Class::State => "state",
        Class::Lossy => "lossy",
    }
}

/// A failure that loading the plugin would mend says so.
pub(super) fn needs_load(what: String, fault: Fault, plugin: &PluginId) -> Failure {
    let load = || (fault.code == Code::WrongState).then(|| format!("goplugctl load {}", escape(plugin.as_str())));
    let hint = if fault.reason.is_none() { load() } else { None };
    let failure = Failure::new(what, fault);
    match hint {
        Some(hint) => failure.hint(hint).about(plugin),
        None => failure.about(plugin),
    }
}

fn methods_text(list: &MethodList, style: Style, wide: bool) -> String {
    let mut head = vec!["METHOD", "BODY", "REPEATABLE", "DESCRIPTION"];
    if wide {
        head.extend(["DEADLINE", "SERIAL", "INPUT", "OUTPUT"]);
    }
    let mut table = Table::new(head);
    let schema =
        |schema: &Option<serde_json::Value>| schema.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    for method in &list.methods {
        let yes = |is: bool| if is { "yes" } else { "-" }.to_owned();
        let mut row = vec![
            method.name.clone(),
            method.content_type.clone().unwrap_or_else(|| "bytes".into()),
            yes(method.idempotent),
            method.description.clone().unwrap_or_default(),
        ];
        if wide {
            row.push(method.deadline_ms.map_or_else(|| "-".into(), |ms| format!("{ms} ms")));
            let either = |whole: &Option<_>, item: &Option<_>| match item {
                Some(_) => format!("stream of {}", schema(item)),
                None => schema(whole),
            };
            row.extend([
                yes(method.serial),
                either(&method.input, &method.input_item),
                either(&method.output, &method.output_item),
            ]);
        }
        table.plain(row);
    }
    table.render(style)
}

fn callbacks_text(list: &CallbackList, style: Style) -> String {
    let mut table = Table::new(["CALLBACK", "CLASS", "OBSERVERS", "SUBSCRIPTIONS"]);
    let subscription = |subscription: &SubscriptionStatus| {
        let attached = if subscription.attached { "attached" } else { "detached" };
        let caller = subscription.caller.as_ref().map(|caller| format!(", {caller}")).unwrap_or_default();
        format!(
            "{} ({attached}, acknowledged {}, pending {}{caller})",
            subscription.name, subscription.acknowledged, subscription.pending
        )
    };
    for callback in &list.callbacks {
        let subscriptions: Vec<_> = callback.subscriptions.iter().map(subscription).collect();
        let observers = callback.observers.to_string();
        table.plain([callback.name.clone(), class_word(callback.class).into(), observers, subscriptions.join(", ")]);
    }
    table.render(style)
}
