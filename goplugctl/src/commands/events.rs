//! `events` and `listen`: what happens, as it happens.

use futures_util::StreamExt;
use goplug_pconf_schema::admin::{Notification, RegistryEvent};
use goplug_pconf_schema::{Code, Fault, PluginId, check_call_name};

use super::methods::{needs_load, speaks_v0};
use crate::args::{EventsArgs, ListenArgs};
use crate::failure::Failure;
use crate::notification;
use crate::output::style::{Paint, of_state};
use crate::output::{Format, Style, escape};
use crate::session::Session;
use crate::target::Items;

pub(super) async fn events(session: &mut Session, args: &EventsArgs) -> Result<(), Failure> {
    let failed = |fault| Failure::new("cannot show events", fault);
    let mut items = session.target.events(args.follow).await.map_err(failed)?;
    if !args.follow && session.out.format() == Format::Json {
        let mut all = Vec::new();
        while let Some(event) = items.next().await {
            all.push(event.map_err(failed)?);
        }
        return Ok(session.out.show(&all, false, Vec::new, |_, _| String::new())?);
    }
    let format = session.out.format();
    while let Some(event) = items.next().await {
        let event = event.map_err(failed)?;
        let name = || event.plugin.as_ref().map_or_else(|| "-".to_owned(), PluginId::to_string);
        session.out.item(format, &event, name, |style| event_text(&event, style))?;
    }
    Ok(())
}

pub(super) async fn listen(session: &mut Session, args: &ListenArgs) -> Result<(), Failure> {
    let what = |plugin: &str| format!("cannot listen to `{}` of `{plugin}`", args.callback);
    let plugin = session.one(&what(&args.plugin), &args.plugin).await?;
    check_call_name("callback", &args.callback)
        .map_err(|error| Failure::new(what(plugin.as_str()), Fault::new(Code::InvalidArgument, error.to_string())))?;
    let listening = session.target.listen(&plugin, &args.callback, args.after.clone());
    let items = match listening.await {
        Ok(items) => items,
        Err(fault) => return Err(cannot_listen(session, what(plugin.as_str()), fault, &plugin).await),
    };
    if speaks_v0(session, &plugin).await {
        session.say(&format!(
            "note: `{}` speaks v0: a notification that comes between two polls is lost\n",
            escape(plugin.as_str())
        ));
    }
    listen_to(session, args, &plugin, items).await
}

/// Says what helps: to load the plugin, or to look at what there is.
async fn cannot_listen(session: &Session, what: String, fault: Fault, plugin: &PluginId) -> Failure {
    let known = if fault.code == Code::NotFound { session.target.known().await } else { Ok(Vec::new()) };
    let is_known = known.unwrap_or_default().iter().any(|summary| summary.id().as_ref() == Some(plugin));
    match is_known {
        // The plugin is there, its callback is not.
        true => {
            Failure::new(what, fault).hint(format!("goplugctl callbacks {}", escape(plugin.as_str()))).about(plugin)
        }
        false => needs_load(what, fault, plugin),
    }
}

/// Prints a stream that is open.
///
/// # Errors
/// The stream broke, or the output cannot be written.
pub(crate) async fn listen_to(
    session: &mut Session,
    args: &ListenArgs,
    plugin: &PluginId,
    mut items: Items<Notification>,
) -> Result<(), Failure> {
    let broken = |fault| {
        Failure::new(format!("cannot listen to `{}` of `{plugin}` any longer", args.callback), fault).about(plugin)
    };
    let format = session.out.asked().unwrap_or(Format::Jsonl);
    let mut left = args.count;
    while left != Some(0) {
        let item = items.next().await.unwrap_or_else(|| Err(Fault::new(Code::Unavailable, "the stream ended")));
        let notification = item.map_err(broken)?;
        let payload = notification::payload(&notification);
        match (&payload, args.raw) {
            (Some(payload), true) => session.out.bytes(payload)?,
            (None, true) => session.say(&format!("{}\n", notification::text(&notification))),
            (_, false) => {
                session.out.item(format, &notification, || plugin.to_string(), |_| notification::text(&notification))?
            }
        }
        if payload.is_some() {
            left = left.map(|left| left - 1);
        }
    }
    Ok(())
}

fn event_text(event: &RegistryEvent, style: Style) -> String {
    let kind = serde_json::to_value(event.kind).ok();
    let kind = kind.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
    let mut words = vec![style.paint(Paint::Faint, &escape(&event.time)), kind.to_owned()];
    words.extend(event.plugin.as_ref().map(|plugin| escape(plugin.as_str())));
    words.extend(event.state.map(|state| style.paint(of_state(state), state.as_str())));
    words.extend(event.detail.as_deref().map(escape));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use goplug_pconf_schema::admin::{EventKind, State};

    use super::*;

    #[test]
    fn an_event_is_one_line_and_hostile_text_is_escaped() {
        let event = RegistryEvent {
            seq: 1,
            time: "2026-01-01T00:00:00.000Z".into(),
            kind: EventKind::StreamLost,
            plugin: Some(PluginId::parse("Test/Do").unwrap()),
            state: Some(State::Backoff),
            detail: Some("a\n\u{1b}[2Jb".into()),
        };
        assert_eq!(
            event_text(&event, Style::Plain),
            "2026-01-01T00:00:00.000Z stream_lost Test/Do backoff a\\n\\u{1b}[2Jb"
        );
    }
}
