//! `install` and `remove`: folders in, folders out.

use goplug_pconf_schema::admin::{Installation, Removal};
use goplug_pconf_schema::{Code, Fault};

use crate::args::{InstallArgs, RemoveArgs};
use crate::failure::Failure;
use crate::output::escape;
use crate::session::Session;
use crate::target::Change;

pub(super) async fn install(session: &mut Session, args: &InstallArgs) -> Result<(), Failure> {
    let what = format!("cannot install {}", escape(&args.source.display().to_string()));
    let failed = |fault: Fault| {
        let hint = match fault.code {
            Code::InvalidArgument => Some(format!("goplugctl lint {}", escape(&args.source.display().to_string()))),
            Code::Conflict => Some("goplugctl list".to_owned()),
            _ => None,
        };
        let failure = Failure::new(&what, fault);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    };
    // A daemon may stand in another folder.
    let source = std::path::absolute(&args.source)
        .map_err(|error| failed(Fault::new(Code::InvalidArgument, error.to_string())))?;
    let answer = session.target.install(&source, args.dry_run).await.map_err(failed)?;
    let names = vec![answer.plugin.to_string()];
    if !args.dry_run {
        return Ok(session.out.changed(&[answer], true, &names)?);
    }
    let Installation { plugin, version, folder, files, bytes, .. } = &answer;
    let folder = escape(folder);
    let text = format!("{plugin} {version} would be installed in {folder}: {files} files, {bytes} bytes\n");
    Ok(session.out.show(std::slice::from_ref(&answer), true, || names, |_, _| text)?)
}

pub(super) async fn remove(session: &mut Session, args: &RemoveArgs) -> Result<(), Failure> {
    let picked = session.several("cannot remove", &args.plugins).await?;
    let asks = !picked.one && !args.dry_run;
    if asks && !session.confirm(&format!("remove {} plugins?", picked.plugins.len())).await? {
        return Ok(());
    }
    let (mut names, mut done) = (Vec::new(), Vec::new());
    for plugin in &picked.plugins {
        if args.stop && !args.dry_run {
            // Whether it runs on is told by the removal.
            _ = session.target.change(plugin, Change::Stop).await;
        }
        match session.target.remove(plugin, args.dry_run).await {
            Ok(removal) => {
                names.push(plugin.to_string());
                done.push(removal);
            }
            Err(fault) => {
                session.failed(Failure::new(format!("cannot remove `{plugin}`"), fault).about(plugin))?;
            }
        }
    }
    if picked.one && done.is_empty() {
        return Ok(());
    }
    if args.dry_run {
        let line = |Removal { plugin, version, folder, .. }: &Removal| {
            format!("{plugin} {version} would be removed from {}\n", escape(folder))
        };
        let text = |_, _| done.iter().map(line).collect();
        return Ok(session.out.show(&done, picked.one, || names, text)?);
    }
    Ok(session.out.changed(&done, picked.one, &names)?)
}
