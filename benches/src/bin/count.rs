//! `goplug-count WORK COUNT`: does one small thing COUNT times on one core's worth of threads, and nothing else, so that
//! `cargo xtask callgrind` can count its instructions: two runs with different COUNTs, and what begins and ends cancels out.

use std::hint::black_box;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use goplug_pconf_schema::wire::frame::{HEADER_BYTES, Header, Kind, Meta};
use goplug_plugin_impl::Plugin;
use goplug_registry::{Latency, Registry};

/// The body of every frame and call.
const BODY: [u8; 64] = [7; 64];
const ID: &str = "Count/Echo";
const USAGE: &str = "usage: goplug-count encode|decode|frames|http COUNT";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (work, count) = (args.next().context(USAGE)?, args.next().context(USAGE)?);
    let count: u64 = count.parse().context(USAGE)?;
    match work.as_str() {
        "encode" => {
            encode(count);
            Ok(())
        }
        "decode" => decode(count),
        "frames" => call(count, true),
        "http" => call(count, false),
        _ => Err(anyhow::anyhow!(USAGE)),
    }
}

/// A request as a registry that names itself sends it.
fn meta() -> Meta<'static> {
    Meta { caller: Some("application"), content_type: Some("application/json"), ..Meta::default() }
}

fn one_frame(id: u64, buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.extend_from_slice(&[0; HEADER_BYTES]);
    let meta_bytes = black_box(meta()).encode(buffer);
    let new = Header::new(Kind::Request, id);
    let header = Header { end: true, index: 3, arg: 30_000, meta_bytes, payload_bytes: BODY.len(), ..new };
    buffer[..HEADER_BYTES].copy_from_slice(&black_box(header).encode());
    buffer.extend_from_slice(black_box(&BODY));
}

fn encode(count: u64) {
    let mut buffer = Vec::with_capacity(1024);
    for id in 0..count {
        one_frame(id, &mut buffer);
        black_box(&buffer);
    }
}

fn decode(count: u64) -> Result<()> {
    let mut buffer = Vec::new();
    one_frame(1, &mut buffer);
    for _ in 0..count {
        let bytes = black_box(&buffer);
        let head = bytes.first_chunk().context("a frame is longer than a header")?;
        let header = Header::decode(head)?;
        black_box(Meta::decode(&bytes[HEADER_BYTES..HEADER_BYTES + header.meta_bytes])?);
        black_box(header);
    }
    Ok(())
}

/// One caller, one call at a time, registry and plugin in this process.
fn call(count: u64, fast_paths: bool) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (namespace, name) = ID.split_once('/').context("no namespace")?;
        let plugin = Plugin::builder(dir.path()).namespace(namespace).name(name);
        let running = plugin.method_async("echo", |_cx, body: Bytes| async move { Ok(body) }).build()?.start().await?;
        // A reader that looked for a while before it sleeps would look more often on a faster machine.
        let registry = Registry::builder(dir.path()).fast_paths(fast_paths).latency(Latency::Frugal);
        let registry = registry.auto_discover(false).open().await?;
        registry.load(ID).await?;
        let handle = registry.get(ID)?;
        for _ in 0..count {
            let reply = handle.execute("echo", Bytes::from_static(&BODY)).await?;
            ensure!(reply.len() == BODY.len(), "another reply");
        }
        registry.close().await;
        drop(running);
        Ok(())
    })
}
