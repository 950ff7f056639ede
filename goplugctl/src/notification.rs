//! Notifications as `listen` prints them, from a feed of the library or from a stream of the daemon.

use goplug_pconf_schema::admin::Notification;
use goplug_pconf_schema::wire::event::{EpochChange, Gap, Message, from_base64, to_base64};
use goplug_pconf_schema::wire::sse::SseEvent;
use goplug_pconf_schema::{Code, Fault, PluginId};
use goplug_registry::FeedItem;
use serde::de::DeserializeOwned;

/// What a feed of the library says.
pub(crate) fn of_feed(plugin: &PluginId, callback: &str, item: FeedItem) -> Notification {
    let told = |kind: &str, detail: String| Notification { detail: Some(detail), ..empty(plugin, callback, kind) };
    match item {
        FeedItem::Message(notice) => Notification {
            position: notice.position.map(|position| position.to_string()),
            key: notice.key,
            dropped: notice.dropped,
            ..with_data(empty(plugin, callback, "message"), &notice.data)
        },
        FeedItem::Gap(gap) => told("gap", gap_text(&gap)),
        FeedItem::Epoch(change) => told("epoch", epoch_text(&change)),
        FeedItem::Replaced => told("replaced", "another reader took this place".into()),
        FeedItem::Lost(why) => told("lost", why),
    }
}

/// What an event of the daemon's stream says.
///
/// # Errors
/// `protocol_error`: its data is not what its kind demands.
pub(crate) fn of_stream(plugin: &PluginId, callback: &str, event: SseEvent) -> Result<Notification, Fault> {
    let told = |kind: &str, detail: String| Notification { detail: Some(detail), ..empty(plugin, callback, kind) };
    Ok(match event.event.as_str() {
        "message" | "" => {
            let message: Message = read(&event)?;
            let data = from_base64(&message.data_base64).map_err(|why| wrong(&event, &why))?;
            Notification {
                position: Some(event.id).filter(|id| !id.is_empty()),
                key: message.key,
                dropped: message.dropped,
                ..with_data(empty(plugin, callback, "message"), &data)
            }
        }
        "gap" => told("gap", gap_text(&read::<Gap>(&event)?)),
        "epoch" => told("epoch", epoch_text(&read::<EpochChange>(&event)?)),
        kind => told(kind, event.data.clone()),
    })
}

/// The notification in one line for people; nothing in it drives a terminal.
pub(crate) fn text(notification: &Notification) -> String {
    let position = notification.position.as_deref().and_then(|position| position.split_once(':'));
    let mut words = vec![match position {
        Some((_, seq)) => seq.to_owned(),
        None => notification.kind.clone(),
    }];
    words.extend(notification.key.as_ref().map(|key| format!("[{key}]")));
    words.extend((notification.dropped > 0).then(|| format!("({} dropped)", notification.dropped)));
    match (&notification.data, &notification.data_base64) {
        (Some(data), _) => words.push(data.clone()),
        (None, Some(data)) => words.push(format!("base64:{data}")),
        (None, None) => {}
    }
    words.extend(notification.detail.clone());
    crate::output::escape(&words.join(" "))
}

/// The payload's bytes, if it is a message.
pub(crate) fn payload(notification: &Notification) -> Option<Vec<u8>> {
    notification.data_base64.as_deref().and_then(|data| from_base64(data).ok())
}

fn empty(plugin: &PluginId, callback: &str, kind: &str) -> Notification {
    Notification {
        plugin: plugin.clone(),
        callback: callback.to_owned(),
        kind: kind.to_owned(),
        position: None,
        key: None,
        dropped: 0,
        data: None,
        data_base64: None,
        detail: None,
    }
}

fn with_data(notification: Notification, data: &[u8]) -> Notification {
    let text = std::str::from_utf8(data).ok().map(str::to_owned);
    Notification { data: text, data_base64: Some(to_base64(data)), ..notification }
}

fn gap_text(gap: &Gap) -> String {
    format!("missed {} to {}", gap.from, gap.to)
}

fn epoch_text(change: &EpochChange) -> String {
    format!("another process: epoch {}, before {}", change.epoch, change.previous)
}

fn read<T: DeserializeOwned>(event: &SseEvent) -> Result<T, Fault> {
    serde_json::from_str(&event.data).map_err(|error| wrong(event, &error.to_string()))
}

fn wrong(event: &SseEvent, why: &str) -> Fault {
    let kind = goplug_pconf_schema::printable(&event.event);
    Fault::new(Code::ProtocolError, format!("an event `{kind}` of the stream is not understood: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: &str = "0123456789abcdef0123456789abcdef";

    fn stream(kind: &str, id: &str, data: &str) -> Result<Notification, Fault> {
        let event = SseEvent { id: id.into(), event: kind.into(), data: data.into() };
        of_stream(&PluginId::parse("Test/Do").unwrap(), "tick", event)
    }

    #[test]
    fn messages_of_a_stream_are_read() {
        let id = format!("{EPOCH}:7");
        let message = stream("message", &id, r#"{"dataBase64":"aGk=","key":"k","dropped":2}"#).unwrap();
        assert_eq!((message.position.as_deref(), message.data.as_deref()), (Some(id.as_str()), Some("hi")));
        assert_eq!(text(&message), "7 [k] (2 dropped) hi");
        assert_eq!(payload(&message).unwrap(), b"hi");
        let bytes = stream("message", "", r#"{"dataBase64":"/w=="}"#).unwrap();
        assert_eq!((bytes.data.clone(), bytes.position.clone()), (None, None));
        assert_eq!(text(&bytes), "message base64:/w==");
    }

    #[test]
    fn what_is_no_message_is_told_and_nonsense_is_refused() {
        let gap = stream("gap", "", &format!(r#"{{"from":"{EPOCH}:1","to":"{EPOCH}:9"}}"#)).unwrap();
        assert_eq!(gap.detail.unwrap(), format!("missed {EPOCH}:1 to {EPOCH}:9"));
        let epoch = stream("epoch", "", r#"{"epoch":"b","previous":"a"}"#).unwrap();
        assert_eq!(epoch.kind, "epoch");
        assert_eq!(stream("replaced", "", "{}").unwrap().kind, "replaced");
        for (kind, data) in [("message", "{}"), ("message", r#"{"dataBase64":"?"}"#), ("gap", "[]")] {
            assert_eq!(stream(kind, "", data).unwrap_err().code, Code::ProtocolError, "{kind} {data}");
        }
    }

    #[test]
    fn hostile_payloads_are_shown_not_obeyed() {
        let message = stream("message", "", &format!(r#"{{"dataBase64":"{}"}}"#, to_base64(b"\x1b[2J\nx"))).unwrap();
        assert_eq!(text(&message), "message \\u{1b}[2J\\nx");
    }
}
