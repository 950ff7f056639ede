//! `ping`: the way to a plugin and back.

use std::time::Duration;

use crate::args::PingArgs;
use crate::duration;
use crate::failure::Failure;
use crate::output::{Format, escape};
use crate::session::Session;

pub(super) async fn ping(session: &mut Session, args: &PingArgs) -> Result<(), Failure> {
    let picked = session.several("cannot ping", &args.plugins).await?;
    let format = session.out.format();
    // One document at the end, or a line as each answer comes.
    let at_once = !matches!(format, Format::Json | Format::Yaml);
    let mut pings = Vec::new();
    for plugin in &picked.plugins {
        for _ in 0..args.count {
            match session.target.ping(plugin).await {
                Ok(ping) if at_once => {
                    let time = duration::show(Duration::from_nanos(ping.round_trip_ns));
                    let text = format!("{} {time}", escape(plugin.as_str()));
                    session.out.item(format, &ping, || plugin.to_string(), |_| text)?;
                }
                Ok(ping) => pings.push(ping),
                Err(fault) => session.failed(Failure::new(format!("cannot ping `{plugin}`"), fault).about(plugin))?,
            }
        }
    }
    let one = picked.one && args.count == 1;
    if at_once || (one && pings.is_empty()) {
        return Ok(());
    }
    Ok(session.out.show(&pings, one, Vec::new, |_, _| String::new())?)
}
