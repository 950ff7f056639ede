//! `run`: one call of a plugin that has one thing to do, with values in JSON.

use goplug_pconf_schema::{Code, PluginId};

use crate::args::{BodyArgs, ExecuteArgs, RunArgs};
use crate::failure::Failure;
use crate::session::Session;

use super::execute::execute;

/// What a plugin of szlabs/go-plugin has.
const EXECUTE: &str = "Execute";

pub(super) async fn run(session: &mut Session, args: &RunArgs) -> Result<(), Failure> {
    let what = format!("cannot run `{}`", args.plugin);
    let plugin = session.one(&what, &args.plugin).await?;
    let method = match &args.method {
        Some(method) => method.clone(),
        None => only(session, &what, &plugin).await?,
    };
    let body = BodyArgs { data: Some(args.values.clone()), json: true, hex: false, base64: false };
    let plugin = args.plugin.clone();
    execute(session, &ExecuteArgs { plugin, method, body, load: true, raw: false, count: 1, parallel: 1 }).await
}

/// The method that is meant when none is named.
async fn only(session: &mut Session, what: &str, plugin: &PluginId) -> Result<String, Failure> {
    let failed = |fault| Failure::new(what, fault).about(plugin);
    let methods = match session.target.methods(plugin).await {
        // Nobody has asked it yet.
        Err(fault) if fault.code == Code::WrongState => {
            session.target.load(plugin).await.map_err(failed)?;
            session.target.methods(plugin).await.map_err(failed)?
        }
        methods => methods.map_err(failed)?,
    };
    let names: Vec<_> = methods.methods.iter().map(|method| method.name.as_str()).collect();
    match names.as_slice() {
        [only] => Ok((*only).to_owned()),
        _ if names.contains(&EXECUTE) => Ok(EXECUTE.to_owned()),
        _ => Err(Failure::usage(what, format!("name one of its methods with --method: {}", names.join(", ")))
            .hint(format!("goplugctl methods {plugin}"))),
    }
}
