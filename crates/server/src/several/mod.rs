//! What the archiver runs: Walden's own archive module alone, or Walden as the host of several archive modules
//! (`walden.archive_libraries`).
//!
//! Guarantees: a file counts as archived once every module of the list has said so; each module is loaded,
//! asked whether it is configured and called as the server would do it for that one; one that fails, is not
//! configured or cannot be loaded is named in the log and keeps no file from the others; a module that has
//! taken a file is not handed it again while the archiver lives. (Two exceptions: Walden's own module is, when its
//! settings have changed, for the file may have to be in another archive now; and after a panic in Walden itself the
//! host starts afresh. Every archive module must stand being handed a file again anyway.)
//!
//! Leaves to [`crate::archiver`] Walden's own work, to [`crate::loader`] the calls into other libraries, and to
//! the server when to try a file again.

mod member;
mod taken;

use crate::archiver::Archiver;
use crate::failure;
use crate::settings;
use crate::status;
use crate::status::archiver::calling;
use member::Member;
use module::{ArchiveModule, Archived, Failure, Level, Module, Process, Report, WalFileName};
use std::path::Path;
use taken::Taken;

/// The archiver's modules.
pub(crate) struct Archivers {
    /// `walden.archive_libraries` when this archiver began.
    list: String,
    who: Who,
}

enum Who {
    /// No list: Walden's own module, and nothing between it and the server.
    Walden(Box<Archiver>),
    /// Those of the list, in its order.
    Several { members: Vec<Member>, taken: Taken },
    /// A list that cannot be used. Nothing is archived: taking Walden alone instead would have files
    /// acknowledged that others were to have too.
    Unusable(Failure),
}

impl Module for Archivers {
    fn startup(process: Process) -> Result<Self, Failure> {
        let list = settings::archive_libraries(process);
        let who = match archive::parameter::libraries(&list) {
            Ok(names) if names.is_empty() => Who::Walden(Box::new(Archiver::startup(process)?)),
            Ok(names) => Who::Several {
                members: names
                    .into_iter()
                    .map(|name| Member::new(process, name))
                    .collect::<Result<_, _>>()?,
                taken: Taken::default(),
            },
            // There is no check hook that refuses a bad list: at the server's start a refused value is replaced by the default
            // (guc.c, `define_custom_variable`, 15 to 18), and the default is Walden alone.
            Err(error) => {
                let name = settings::archive_libraries_name();
                let what = format!("\"{name}\" cannot be used");
                Who::Unusable(failure::while_doing(&what, &error))
            }
        };
        Ok(Self { list, who })
    }

    /// The other libraries are told by the server itself (`loader::archive`).
    fn shutdown(self, process: Process) {
        match self.who {
            Who::Walden(walden) => walden.shutdown(process),
            Who::Several { members, .. } => {
                members
                    .into_iter()
                    .for_each(|member| member.shutdown(process));
            }
            Who::Unusable(_) => {}
        }
    }
}

impl ArchiveModule for Archivers {
    fn loaded(process: Process) {
        status::archiver::loaded(process);
    }

    /// A library cannot be unloaded, so another list takes another process.
    fn restart(&mut self, process: Process) -> Option<Report> {
        (settings::archive_libraries(process) != self.list).then(|| {
            let name = settings::archive_libraries_name();
            let message =
                format!("restarting archiver process because value of \"{name}\" was changed");
            Report::new(Level::Log, message)
        })
    }

    /// With several modules, one that is configured is enough to go on: it shall have the file.
    fn check_configured(&mut self, process: Process) -> Result<(), Failure> {
        match &mut self.who {
            Who::Walden(walden) => {
                let _in_call = calling(process, wire::OWN_LIBRARY, None);
                walden.check_configured(process)
            }
            Who::Unusable(why) => {
                status::archiver::not_configured(why);
                Err(why.clone())
            }
            Who::Several { members, taken } => {
                for (number, member) in members.iter_mut().enumerate() {
                    if member.check(process) {
                        taken.forget_module(number);
                    }
                }
                if members.iter().all(|member| member.why_not().is_some()) {
                    let why = none_takes_files(members);
                    status::archiver::not_configured(&why);
                    return Err(why);
                }
                for member in members {
                    member.report_why_not(process);
                }
                Ok(())
            }
        }
    }

    fn archive_file(
        &mut self,
        process: Process,
        file: &WalFileName,
        path: &Path,
    ) -> Result<Archived, Failure> {
        match &mut self.who {
            Who::Walden(walden) => {
                let _in_call = calling(process, wire::OWN_LIBRARY, Some(file));
                let archived = walden.archive_file(process, file, path)?;
                if archived == Archived::Durably {
                    status::archiver::acknowledged(file);
                }
                Ok(archived)
            }
            Who::Unusable(why) => Err(why.clone()),
            Who::Several { members, taken } => {
                let mut all = true;
                for (number, member) in members.iter_mut().enumerate() {
                    if taken.has(file, number) {
                        continue;
                    }
                    // No further file is begun after SIGTERM (pgarch.c, pgarch_ArchiverCopyLoop, 15 to 18).
                    if process.shutdown_requested() {
                        return Ok(Archived::NotYet);
                    }
                    if member.archive_file(process, file, path) {
                        taken.add(file, number);
                    } else {
                        all = false;
                    }
                }
                if !all {
                    // What another module has taken meanwhile does not end the failure.
                    if let Some(why) = members.iter().find_map(Member::why_not) {
                        status::archiver::not_configured(why);
                    }
                    return Ok(Archived::NotYet);
                }
                taken.forget(file);
                status::archiver::acknowledged(file);
                Ok(Archived::Durably)
            }
        }
    }
}

/// Says of each module why it takes none, for the server's own WARNING that archiving is not configured.
fn none_takes_files(members: &[Member]) -> Failure {
    let reasons: Vec<&str> = members
        .iter()
        .filter_map(Member::why_not)
        .map(|why| why.message.as_str())
        .collect();
    let failure = Failure::new(reasons.join("; "));
    let hint = members
        .iter()
        .filter_map(Member::why_not)
        .find_map(|why| why.hint.clone());
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
