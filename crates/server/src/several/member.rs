//! One archive module of several: Walden's own, or another library.
//!
//! Guarantees: trouble that lasts (not configured, cannot be loaded) is reported under the module's name when it
//! begins or changes, and not at each attempt; a file that was not taken is reported at each attempt with
//! module, file and cause. Leaves to the host what follows for the file.

use crate::archiver::Archiver;
use crate::loader::archive::Library;
use crate::loader::c_text;
use crate::settings;
use crate::status;
use module::{ArchiveModule, Archived, Failure, Level, Module, Process, Report, WalFileName};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long it takes to remind of a module that takes no files: as often as the server says the same of a
/// single one when nothing else wakes its archiver (pgarch.c, `PGARCH_AUTOWAKE_INTERVAL`, 15 to 18).
const REMIND_AFTER: Duration = Duration::from_secs(60);
/// How long a library that could not be loaded is left alone: as long as the server waits before it starts an
/// archiver again that has ended over it (pgarch.c, `PGARCH_RESTART_INTERVAL`, 15 to 18).
const LOAD_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// One module of the list.
pub(super) struct Member {
    name: String,
    kind: Kind,
    why_not: Option<Failure>,
    reported: Option<(String, Instant)>,
}

enum Kind {
    /// Walden's own, called directly.
    Walden(Box<Archiver>),
    /// Another library's, called through the C interface.
    Loaded(&'static Library),
    /// Another library's, not loaded yet; since when.
    NotLoaded(Option<(Instant, Failure)>),
}

impl Member {
    /// The module of this name; a library is loaded by the first [`Member::check`].
    pub(super) fn new(process: Process, name: String) -> Result<Self, Failure> {
        let kind = if wire::is_own_library(&name) {
            Kind::Walden(Box::new(Archiver::startup(process)?))
        } else {
            Kind::NotLoaded(None)
        };
        Ok(Self {
            name,
            kind,
            why_not: None,
            reported: None,
        })
    }

    /// Finds out whether the module takes files now. True when it archives elsewhere than before: what it had taken
    /// until then counts no more. For another library that cannot be known.
    pub(super) fn check(&mut self, process: Process) -> bool {
        let _in_call = status::archiver::calling(process, &self.name, None);
        self.load(process);
        let mut moved = false;
        let configured = match &mut self.kind {
            Kind::Walden(walden) => {
                let before = walden.settings().cloned();
                let configured = walden.check_configured(process);
                moved = before.is_some() && walden.settings() != before.as_ref();
                configured
            }
            Kind::Loaded(library) => library.check_configured(process),
            Kind::NotLoaded(why) => {
                self.why_not = why.as_ref().map(|(_, why)| why.clone());
                return false;
            }
        };
        let name = &self.name;
        self.why_not = configured.err().map(|why| {
            let message = format!(
                "archive module \"{name}\" is not configured: {}",
                why.message
            );
            Failure { message, ..why }
        });
        moved
    }

    /// Loads the library, if that is still to be done and was not tried just now.
    fn load(&mut self, process: Process) {
        let Kind::NotLoaded(tried) = &self.kind else {
            return;
        };
        if matches!(tried, Some((when, _)) if when.elapsed() < LOAD_AGAIN_AFTER) {
            return;
        }
        self.kind = match Library::load(process, &self.name) {
            Ok(library) => Kind::Loaded(library),
            Err(why) => Kind::NotLoaded(Some((Instant::now(), could_not_load(&self.name, why)))),
        };
    }

    /// Why the module takes no files, as of the last check; `None` when it does.
    pub(super) fn why_not(&self) -> Option<&Failure> {
        self.why_not.as_ref()
    }

    /// Reports why the module takes no files, if that is news or due again.
    pub(super) fn report_why_not(&mut self, process: Process) {
        let Some(why) = &self.why_not else {
            self.reported = None;
            return;
        };
        let known = self.reported.as_ref().is_some_and(|(message, when)| {
            *message == why.message && when.elapsed() < REMIND_AFTER
        });
        if known {
            return;
        }
        status::archiver::not_configured(why);
        let mut report = why.clone();
        report.detail.get_or_insert_with(|| {
            "The other modules are given the files, but none counts as archived before all have it.".to_owned()
        });
        process.report(&Report::of(Level::Warning, report));
        self.reported = Some((why.message.clone(), Instant::now()));
    }

    /// One attempt at one file; true when the module has taken it. Why not is reported.
    pub(super) fn archive_file(
        &mut self,
        process: Process,
        file: &WalFileName,
        path: &Path,
    ) -> bool {
        if self.why_not.is_some() {
            return false;
        }
        let what = format!(
            "archive module \"{}\" did not archive file \"{file}\"",
            self.name
        );
        let is_walden = matches!(self.kind, Kind::Walden(_));
        let _in_call = status::archiver::calling(process, &self.name, Some(file));
        let failure = match self.try_file(process, file, path) {
            Ok(Some(taken)) => return taken,
            Ok(None) => Failure::new(what)
                .detail("Its reason, if it gave one, was reported by the module just before."),
            Err(why) => Failure {
                message: format!("{what}: {}", why.message),
                ..why
            },
        };
        // Walden's own module knows its cause and has noted it.
        if !is_walden {
            status::archiver::not_taken(file, &failure);
        }
        process.report(&Report::of(Level::Warning, failure));
        false
    }

    /// Whether the module has taken the file; `None` for a refusal that the host has to report.
    fn try_file(
        &mut self,
        process: Process,
        file: &WalFileName,
        path: &Path,
    ) -> Result<Option<bool>, Failure> {
        match &mut self.kind {
            // "Not yet" is no failure: the server has something else to do first, and asks again.
            Kind::Walden(walden) => Ok(Some(
                walden.archive_file(process, file, path)? == Archived::Durably,
            )),
            Kind::Loaded(library) => {
                let (file, path) = (c_text(&file.to_string())?, c_text(&path.to_string_lossy())?);
                let taken = library.archive_file(process, &file, &path)?;
                Ok(taken.then_some(true))
            }
            Kind::NotLoaded(_) => Ok(Some(false)),
        }
    }

    /// Ends Walden's own module; the server ends the others itself.
    pub(super) fn shutdown(self, process: Process) {
        if let Kind::Walden(walden) = self.kind {
            walden.shutdown(process);
        }
    }
}

fn could_not_load(name: &str, why: Failure) -> Failure {
    let parameter = settings::archive_libraries_name();
    let message = format!(
        "could not load library \"{name}\" of \"{parameter}\": {}",
        why.message
    );
    Failure { message, ..why }.hint(format!(
        "Install an archive module of that name for this server, or take it out of \"{parameter}\" and reload."
    ))
}
