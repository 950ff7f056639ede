//! `goplug-so --shared-object FOLDER`: the process of a plugin that is a shared object.
//!
//! A host starts it as it starts any other plugin, and what happens in it happens to nobody else. In reading order: this file (what
//! is served), `values` (what a call carries), `turn` (when the function is called, and what follows when it does not return).

mod turn;
mod values;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use goplug_pconf_schema::manifest::{Folder, MANIFEST_NAME, METHOD_EXECUTE};
use goplug_pconf_schema::{MAX_PCONF_BYTES, Manifest};
use goplug_plugin_impl::{Context, Error, Method, Plugin, PluginBuilder};
use goplug_shared_object::boundary::Library;

use crate::SHARED_OBJECT;

use turn::Executor;
use values::{Reply, Request};

/// What a thread of C code expects to have, as the first thread of a process has it.
const STACK_BYTES: usize = 8 << 20;

/// Opens the shared object of the plugin in `folder` and serves it until it is told to stop.
pub(crate) fn run(folder: Option<OsString>) -> ExitCode {
    match serve(folder.map(PathBuf::from)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn serve(folder: Option<PathBuf>) -> Result<(), String> {
    let folder = folder.ok_or_else(|| format!("`{SHARED_OBJECT}` takes the folder of a plugin"))?;
    let folder = std::path::absolute(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let manifest = manifest(&folder)?;
    // Before there are other threads: what it runs when it is opened may not expect any.
    let library = Library::open(&folder.join(&manifest.source.path)).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    let executor = Executor::new(library, &manifest.shared_object, runtime.handle().clone())?;
    let plugin = plugin(&folder, &manifest, &Arc::new(executor)).build().map_err(|fault| fault.message)?;
    let served = runtime.block_on(plugin.run()).map_err(|fault| fault.message);
    // A call that goes on although nobody waits for it must not keep the process.
    runtime.shutdown_background();
    served
}

fn manifest(folder: &Path) -> Result<Manifest, String> {
    let path = folder.join(MANIFEST_NAME);
    let shown = path.display();
    let length = std::fs::metadata(&path).map_err(|error| format!("{shown}: {error}"))?.len();
    if usize::try_from(length).is_ok_and(|length| length > MAX_PCONF_BYTES) {
        return Err(format!("{shown} is {length} bytes, the limit is {MAX_PCONF_BYTES}"));
    }
    let bytes = std::fs::read(&path).map_err(|error| format!("{shown}: {error}"))?;
    Manifest::parse(&bytes, Folder::default()).map_err(|error| format!("{shown}: {error}"))
}

/// One method for each label, and one for any.
fn plugin(folder: &Path, manifest: &Manifest, executor: &Arc<Executor>) -> PluginBuilder {
    let mut builder = Plugin::builder(folder)
        .publish(false)
        .name(manifest.id.name())
        .namespace(manifest.id.namespace())
        .version(&manifest.version.to_string());
    if let Some(description) = &manifest.description {
        builder = builder.description(description);
    }
    let labels = manifest.labels().into_iter().map(|label| (label, Some(label.to_owned())));
    for (name, label) in labels.chain([(METHOD_EXECUTE, None)]) {
        let method = match &label {
            Some(label) => Method::new(name).description(format!("Execute with the label `{label}`")),
            None => Method::new(name).description("Execute with any label"),
        };
        let method = if manifest.shared_object.concurrent { method } else { method.serial() };
        let executor = Arc::clone(executor);
        builder = builder.typed_async(method, move |cx: Context, request: Option<Request>| {
            let (executor, label) = (Arc::clone(&executor), label.clone());
            async move { call(&executor, cx, label, request.unwrap_or_default()).await }
        });
    }
    builder
}

async fn call(executor: &Executor, cx: Context, label: Option<String>, request: Request) -> Result<Reply, Error> {
    let label = request.label(label.as_deref())?;
    let values = request.into_values()?;
    executor.execute(cx, label, values).await
}
