//! The verbs, one file each or one per family. Each is written once, against [`Target`](crate::target::Target).

mod bench;
mod body;
pub(crate) mod build;
pub(crate) mod daemon;
pub(crate) mod doctor;
mod events;
pub(crate) mod execute;
pub(crate) mod external;
mod grant;
pub(crate) mod index;
mod inspect;
mod install;
mod life;
pub(crate) mod lint;
mod list;
mod measure;
mod methods;
pub(crate) mod own;
pub(crate) mod pack;
mod ping;
mod process;
mod run;
mod source;
mod standing;
mod trust;
mod versions;
mod watch;
mod why;

pub(crate) use events::listen_to;

use crate::args::{TrustVerb, Verb};
use crate::failure::Failure;
use crate::session::Session;
use crate::target::Change;

/// Carries out a verb that works on a target.
///
/// # Errors
/// What ended it; failures of single plugins are told by the session and do not.
pub(crate) async fn run(session: &mut Session, verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::List(args) => list::list(session, args).await,
        Verb::Status(args) => list::status(session, args).await,
        Verb::Inspect(args) => inspect::inspect(session, args).await,
        Verb::Cat(args) => inspect::cat(session, args).await,
        Verb::Methods(args) => methods::methods(session, args).await,
        Verb::Callbacks(args) => methods::callbacks(session, args).await,
        Verb::Why(args) => why::why(session, args).await,
        Verb::Events(args) => events::events(session, args).await,
        Verb::IsDiscovered(args) => standing::is_discovered(session, args).await,
        Verb::IsLoaded(args) => standing::is_loaded(session, args).await,
        Verb::Wait(args) => standing::wait(session, args).await,
        Verb::Install(args) => install::install(session, args).await,
        Verb::Remove(args) => install::remove(session, args).await,
        Verb::Upgrade(args) => versions::upgrade(session, args).await,
        Verb::Rollback(args) => versions::rollback(session, args).await,
        Verb::Pin(args) => versions::pin(session, args).await,
        Verb::Diff(args) => versions::diff(session, args).await,
        Verb::Load(args) => life::load(session, args).await,
        Verb::Unload(args) => life::unload(session, args).await,
        Verb::Reload(args) => life::reload(session, args).await,
        Verb::Start(args) => process::change(session, args, Change::Start).await,
        Verb::Stop(args) => process::change(session, args, Change::Stop).await,
        Verb::Restart(args) => process::change(session, args, Change::Restart).await,
        Verb::Enable(args) => process::change(session, args, Change::Enable).await,
        Verb::Disable(args) => process::change(session, args, Change::Disable).await,
        Verb::Logs(args) => process::logs(session, args).await,
        Verb::Trust(TrustVerb::List(args)) if args.keys => trust::keys(session).await,
        Verb::Trust(TrustVerb::List(_)) => trust::list(session).await,
        Verb::Trust(TrustVerb::Add(args)) => trust::add(session, args).await,
        Verb::Trust(TrustVerb::Remove(args)) => trust::remove(session, args).await,
        Verb::Trust(TrustVerb::Show(args)) => trust::show(session, args).await,
        Verb::Trust(TrustVerb::Approve(args)) => trust::approve(session, args).await,
        Verb::Trust(TrustVerb::Revoke(args)) => trust::revoke(session, args).await,
        Verb::Rescan => life::rescan(session).await,
        Verb::Ping(args) => ping::ping(session, args).await,
        Verb::Execute(args) => execute::execute(session, args).await,
        Verb::Run(args) => run::run(session, args).await,
        Verb::Bench(args) => bench::bench(session, args).await,
        Verb::Listen(args) => events::listen(session, args).await,
        Verb::Doctor
        | Verb::Lint(_)
        | Verb::Pack(_)
        | Verb::Build(_)
        | Verb::Search(_)
        | Verb::Pull(_)
        | Verb::Push(_)
        | Verb::Daemon(_)
        | Verb::Completion(_)
        | Verb::Man(_)
        | Verb::Demo(_)
        | Verb::Version
        | Verb::Help(_)
        | Verb::External(_) => Ok(()),
    }
}
