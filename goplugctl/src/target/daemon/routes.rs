//! Which route of the daemon's API each verb asks.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::StreamExt;
use goplug_pconf_schema::admin::{
    Activation, CallbackList, DaemonStatus, Diff, Installation, LogEntry, MethodList, Notification, Ping, Pinned,
    PluginDetail, PluginSummary, ProcessChange, RegistryEvent, Removal, Revocation, Trust, TrustEntry, TrustedKey,
    Unloaded, Upgraded, Why,
};
use goplug_pconf_schema::wire::call::{MAX_DEADLINE_MS, escape};
use goplug_pconf_schema::wire::event::Position;
use goplug_pconf_schema::wire::life::{DEFAULT_DRAIN_MS, STOP_GRACE_MS};
use goplug_pconf_schema::wire::sse::SseEvent;
use goplug_pconf_schema::{Code, Fault, PluginId, Sha256};
use hyper::Method;

use super::lines::Lines;
use super::{Ask, Daemon, GRACE, MAX_DOCUMENT_BYTES, MAX_REPLY_BYTES, PATIENCE, milliseconds};
use crate::notification;
use crate::target::{Against, Answer, Awaited, Call, Change, Install, Items, Target, Unload, Upgrade};

impl Target for Daemon {
    fn directories(&self) -> Answer<'_, Vec<String>> {
        async { Ok(self.document::<DaemonStatus>(Ask::get("/healthz")).await?.directories) }.boxed()
    }

    fn status(&self) -> Answer<'_, Option<DaemonStatus>> {
        async { self.document(Ask::get("/healthz")).await.map(Some) }.boxed()
    }

    fn known(&self) -> Answer<'_, Vec<PluginSummary>> {
        self.list()
    }

    fn list(&self) -> Answer<'_, Vec<PluginSummary>> {
        self.document(Ask::get("/v1/plugins")).boxed()
    }

    fn inspect<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, PluginDetail> {
        self.document(Ask::get(path(plugin, ""))).boxed()
    }

    fn methods<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, MethodList> {
        self.document(Ask::get(path(plugin, "/methods"))).boxed()
    }

    fn callbacks<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, CallbackList> {
        self.document(Ask::get(path(plugin, "/callbacks"))).boxed()
    }

    fn why<'a>(&'a self, subject: &'a str) -> Answer<'a, Why> {
        self.document(Ask::get(format!("/v1/why?subject={}", escape(subject)))).boxed()
    }

    fn install<'a>(&'a self, source: &'a Path, how: Install) -> Answer<'a, Installation> {
        async move {
            let body = serde_json::json!({
                "source": utf8(source)?,
                "allowUnsigned": how.allow_unsigned,
                "grant": how.grant,
                "dryRun": how.dry_run,
            });
            self.document(with_body("/v1/plugins".into(), &body)).await
        }
        .boxed()
    }

    fn remove<'a>(&'a self, plugin: &'a PluginId, version: Option<&'a str>, dry_run: bool) -> Answer<'a, Removal> {
        let version = version.map(|version| format!("&version={}", escape(version))).unwrap_or_default();
        let query = format!("?dryRun={dry_run}{version}");
        self.document(Ask { method: Method::DELETE, patience: 10 * PATIENCE, ..Ask::get(path(plugin, &query)) }).boxed()
    }

    fn upgrade<'a>(&'a self, plugin: &'a PluginId, how: Upgrade<'a>) -> Answer<'a, Upgraded> {
        async move {
            let body = serde_json::json!({
                "source": how.source.map(utf8).transpose()?,
                "rollbackOn": how.rollback_on.map(|rule| rule.to_string()),
                "downgrade": how.downgrade,
                "allowUnsigned": how.allow_unsigned,
                "grant": how.grant,
                "dryRun": how.dry_run,
            });
            self.document(with_body(path(plugin, "/upgrade"), &body)).await
        }
        .boxed()
    }

    fn rollback<'a>(&'a self, plugin: &'a PluginId, dry_run: bool) -> Answer<'a, Upgraded> {
        let body = serde_json::json!({ "dryRun": dry_run });
        async move { self.document(with_body(path(plugin, "/rollback"), &body)).await }.boxed()
    }

    fn pin<'a>(&'a self, plugin: &'a PluginId, range: Option<&'a str>) -> Answer<'a, Pinned> {
        let body = serde_json::json!({ "range": range });
        async move { self.document(with_body(path(plugin, "/pin"), &body)).await }.boxed()
    }

    fn diff<'a>(&'a self, plugin: &'a PluginId, against: Against<'a>) -> Answer<'a, Diff> {
        async move {
            let body = match against {
                Against::Newest => serde_json::json!({}),
                Against::Version(version) => serde_json::json!({ "version": version }),
                Against::Folder(folder) => serde_json::json!({ "source": utf8(folder)? }),
                Against::Unsigned(folder) => serde_json::json!({ "source": utf8(folder)?, "allowUnsigned": true }),
            };
            self.document(with_body(path(plugin, "/diff"), &body)).await
        }
        .boxed()
    }

    fn load<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, Activation> {
        self.document(Ask::post(path(plugin, "/load"))).boxed()
    }

    fn unload<'a>(&'a self, plugin: &'a PluginId, how: Unload) -> Answer<'a, Unloaded> {
        let mut body = serde_json::Map::new();
        body.insert("stop".into(), how.stop.into());
        if let Some(drain) = how.drain {
            body.insert("drainMs".into(), milliseconds(drain).into());
        }
        let drain = how.drain.unwrap_or(Duration::from_millis(DEFAULT_DRAIN_MS));
        self.document(Ask {
            body: serde_json::Value::Object(body).to_string().into(),
            content_type: Some("application/json"),
            patience: PATIENCE + drain + Duration::from_millis(STOP_GRACE_MS),
            ..Ask::post(path(plugin, "/unload"))
        })
        .boxed()
    }

    fn reload<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, Activation> {
        self.document(Ask::post(path(plugin, "/reload"))).boxed()
    }

    fn change<'a>(&'a self, plugin: &'a PluginId, change: Change) -> Answer<'a, ProcessChange> {
        let drain = Duration::from_millis(DEFAULT_DRAIN_MS + STOP_GRACE_MS);
        let ask = Ask { patience: PATIENCE + drain, ..Ask::post(path(plugin, &format!("/{}", change.as_str()))) };
        self.document(ask).boxed()
    }

    fn logs<'a>(&'a self, plugin: &'a PluginId, follow: bool) -> Answer<'a, Items<LogEntry>> {
        let lines = Lines::new(self.clone(), path(plugin, "/logs"), follow);
        async move { Ok(lines.open().await?.boxed()) }.boxed()
    }

    fn trusted(&self) -> Answer<'_, Vec<TrustEntry>> {
        self.document(Ask::get("/v1/trust")).boxed()
    }

    fn trust<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, Trust> {
        self.document(Ask::get(path(plugin, "/trust"))).boxed()
    }

    fn approve<'a>(&'a self, plugin: &'a PluginId, expected: Option<Sha256>) -> Answer<'a, Trust> {
        self.document(Ask {
            body: serde_json::json!({ "sha256": expected }).to_string().into(),
            content_type: Some("application/json"),
            ..Ask::post(path(plugin, "/trust/approve"))
        })
        .boxed()
    }

    fn revoke<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, Revocation> {
        self.document(Ask::post(path(plugin, "/trust/revoke"))).boxed()
    }

    fn trusted_keys(&self) -> Answer<'_, Vec<TrustedKey>> {
        self.document(Ask::get("/v1/trust/keys")).boxed()
    }

    fn trust_key<'a>(&'a self, key: &'a str, comment: &'a str) -> Answer<'a, TrustedKey> {
        let body = serde_json::json!({ "key": key, "comment": comment });
        async move { self.document(with_body("/v1/trust/keys".into(), &body)).await }.boxed()
    }

    fn distrust_key<'a>(&'a self, key: &'a str) -> Answer<'a, TrustedKey> {
        let path = format!("/v1/trust/keys?key={}", escape(key));
        self.document(Ask { method: Method::DELETE, ..Ask::get(path) }).boxed()
    }

    fn rescan(&self) -> Answer<'_, ()> {
        async { self.ask(Ask::post("/v1/rescan"), MAX_DOCUMENT_BYTES).await.map(drop) }.boxed()
    }

    fn ping<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, Ping> {
        self.document(Ask::post(path(plugin, "/ping"))).boxed()
    }

    fn execute<'a>(&'a self, plugin: &'a PluginId, method: &'a str, body: Bytes, how: Call) -> Answer<'a, Bytes> {
        let load = if how.load { "?load=true" } else { "" };
        let ask = Ask {
            body,
            content_type: how.content_type,
            deadline: how.deadline,
            patience: how.deadline.unwrap_or(Duration::from_millis(MAX_DEADLINE_MS)) + GRACE,
            ..Ask::post(path(plugin, &format!("/methods/{}{load}", escape(method))))
        };
        self.ask(ask, MAX_REPLY_BYTES).boxed()
    }

    fn listen<'a>(
        &'a self,
        plugin: &'a PluginId,
        callback: &'a str,
        after: Option<Position>,
    ) -> Answer<'a, Items<Notification>> {
        let query = after.map(|position| format!("?after={}", escape(&position.to_string()))).unwrap_or_default();
        let path = path(plugin, &format!("/callbacks/{}{query}", escape(callback)));
        async move {
            let (plugin, callback) = (plugin.clone(), callback.to_owned());
            let read = move |event: Result<SseEvent, Fault>| {
                event.and_then(|event| notification::of_stream(&plugin, &callback, event))
            };
            Ok(self.stream(path).await?.map(read).boxed())
        }
        .boxed()
    }

    fn events(&self, follow: bool) -> Answer<'_, Items<RegistryEvent>> {
        async move {
            let stream = self.stream(format!("/v1/events?after=0&follow={follow}")).await;
            let stream = match stream {
                // The oldest are forgotten: what is left is still worth showing.
                Err(fault) if fault.code == Code::NotFound => {
                    self.stream(format!("/v1/events?follow={follow}")).await?
                }
                other => other?,
            };
            let read = |event: SseEvent| {
                let wrong = |error| {
                    Fault::new(Code::ProtocolError, format!("an event of the daemon is not understood: {error}"))
                };
                serde_json::from_str(&event.data).map_err(wrong)
            };
            Ok(stream.map(move |event| event.and_then(read)).boxed())
        }
        .boxed()
    }

    fn wait<'a>(&'a self, plugin: &'a PluginId, what: &'a Awaited, timeout: Duration) -> Answer<'a, ()> {
        let what = match what {
            Awaited::Loaded => "loaded".to_owned(),
            Awaited::Discovered => "discovered".to_owned(),
            Awaited::Gone => "gone".to_owned(),
            Awaited::Callback(name) => format!("callback={name}"),
        };
        let query = format!("/wait?for={}&timeoutMs={}", escape(&what), milliseconds(timeout));
        let ask = Ask { patience: timeout + GRACE, ..Ask::get(path(plugin, &query)) };
        async { self.ask(ask, MAX_DOCUMENT_BYTES).await.map(drop) }.boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}

/// A question that may make the daemon copy and sync gigabytes, and start a process.
fn with_body(path: String, body: &serde_json::Value) -> Ask<'static> {
    Ask {
        body: body.to_string().into(),
        content_type: Some("application/json"),
        patience: 10 * PATIENCE,
        ..Ask::post(path)
    }
}

fn utf8(path: &Path) -> Result<&str, Fault> {
    let wrong = || format!("{} is no UTF-8, which a daemon can be told", path.display());
    path.to_str().ok_or_else(|| Fault::new(Code::InvalidArgument, wrong()))
}

fn path(plugin: &PluginId, rest: &str) -> String {
    let namespace = if plugin.namespace().is_empty() { "-" } else { plugin.namespace() };
    format!("/v1/plugins/{}/{}{rest}", escape(namespace), escape(plugin.name()))
}
