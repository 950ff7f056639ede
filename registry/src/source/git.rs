//! A repository is fetched by `git`: one commit of it, without its history, and nothing of it is run.

use goplug_pconf_schema::locator::Repository;
use goplug_pconf_schema::wire::host::Stream;
use goplug_pconf_schema::{Code, Fault, printable};

use super::listing::Listing;
use super::plan::{NETWORK, Program, SSH_AGENT, Scratch};
use super::run::{Ran, passed_on, run};
use super::{Progress, Tell, plan};
use crate::options::Builder;

/// Fetches what the repository's reference names, and writes the files of that commit to the folder `plugin` of the scratch
/// folder; the commit.
///
/// # Errors
/// `not_found` for a repository or a reference that is not there, and without `git`; `unavailable`, `denied`,
/// `deadline_exceeded` when it cannot be had; `invalid_argument` for what cannot be installed; `too_large`.
///
/// # Cancel safety
/// Dropping the future ends what it started.
pub(super) async fn fetch(
    options: &Builder,
    repository: &Repository,
    scratch: &Scratch,
    tell: Tell<'_>,
) -> Result<String, Fault> {
    let git = Git { options, repository, scratch };
    tell(Progress::Cloning);
    for program in plan::fetch_commit(repository, scratch) {
        git.run(program).await?;
    }
    let said = git.run(plan::name_commit(scratch)).await?;
    let commit = said.first_line().filter(|text| plan::is_commit(text)).unwrap_or_default().to_owned();
    if commit.is_empty() {
        return Err(git.failed(&said));
    }
    git.list(&commit).await?.check().map_err(|fault| git.about(fault))?;
    for program in plan::write_files(&commit, scratch) {
        git.run(program).await?;
    }
    Ok(commit)
}

/// Writes the files of the commit once more, to the folder that it is built in.
pub(super) async fn write_source(options: &Builder, repository: &Repository, scratch: &Scratch) -> Result<(), Fault> {
    Git { options, repository, scratch }.run(plan::write_source(scratch)).await.map(drop)
}

struct Git<'a> {
    options: &'a Builder,
    repository: &'a Repository,
    scratch: &'a Scratch,
}

impl Git<'_> {
    async fn run(&self, program: Program) -> Result<Ran, Fault> {
        let ran =
            run(self.options, self.with_environment(program), |_| ()).await.map_err(|fault| self.missing(fault))?;
        if ran.succeeded() { Ok(ran) } else { Err(self.failed(&ran)) }
    }

    /// What the commit holds, before anything of it is written.
    async fn list(&self, commit: &str) -> Result<Listing, Fault> {
        let mut listing = Listing::default();
        let program = self.with_environment(plan::list_files(commit, self.scratch));
        let ran = run(self.options, program, |line| match line.stream {
            Stream::Stdout => listing.add(line.number, &line.text),
            Stream::Stderr => {}
        });
        let ran = ran.await.map_err(|fault| self.missing(fault))?;
        if ran.succeeded() { Ok(listing) } else { Err(self.failed(&ran)) }
    }

    fn with_environment(&self, program: Program) -> Program {
        let mut names = NETWORK.to_vec();
        names.push(SSH_AGENT);
        Program { env: plan::git_environment(self.repository, self.scratch, passed_on(&names)), ..program }
    }

    fn missing(&self, fault: Fault) -> Fault {
        match fault.code {
            Code::NotFound => {
                Fault::new(Code::NotFound, "there is no `git` in PATH, by which repositories are fetched: install it")
            }
            Code::DeadlineExceeded => {
                self.about(Fault::new(Code::DeadlineExceeded, "it took too long, and was given up"))
            }
            _ => fault,
        }
    }

    fn about(&self, fault: Fault) -> Fault {
        Fault { message: format!("{}: {}", self.repository, fault.message), ..fault }
    }

    /// What git says for people, which is all that it says.
    fn failed(&self, ran: &Ran) -> Fault {
        let said = ran.lines.iter().map(|line| line.text.trim()).find(|text| text.starts_with("fatal: "));
        let said = said.map(|text| text.trim_start_matches("fatal: ").to_owned());
        let said = said.unwrap_or_else(|| ran.last_word());
        let reference = self.repository.reference.as_deref().unwrap_or("HEAD");
        let has = |part: &str| ran.lines.iter().any(|line| line.text.contains(part));
        let (code, text) = if has("couldn't find remote ref") || has("not our ref") || has("Server does not allow") {
            (Code::NotFound, format!("there is no branch, tag or commit `{}`", printable(reference)))
        } else if has("does not appear to be a git repository") || has("not found") || has("Repository not found") {
            (Code::NotFound, "there is no such repository, or it is not shown to us".to_owned())
        } else if has("dubious ownership") {
            (Code::Denied, "it belongs to another user, and its configuration is not believed".to_owned())
        } else if has("could not read Username") || has("Permission denied") || has("Authentication failed") {
            (Code::Denied, "the server wants to know who we are, and nobody is asked here".to_owned())
        } else if has("not allowed") {
            (Code::Denied, printable(&said))
        } else if ran.exit.signal == Some(super::FILE_TOO_LARGE) || has("File too large") {
            (Code::TooLarge, format!("it is larger than {} bytes", plan::MAX_FETCH_BYTES))
        } else {
            (Code::Unavailable, format!("it cannot be fetched: {}", printable(&said)))
        };
        self.about(Fault::new(code, text))
    }
}
