//! The recovery modules this server is configured with: each library loaded once, whatever jobs it does.

use super::loader::Library;
use crate::settings::Job;
use module::{Failure, Level, Process, Report};
use std::rc::Rc;

/// The loaded ones, and which job is whose.
pub(crate) struct Libraries {
    loaded: Vec<Rc<Library>>,
}

impl Libraries {
    /// Loads all that are configured.  One that cannot be loaded is reported now, and tried again at each
    /// request for its job, so that its repair needs no restart.
    pub(crate) fn load(process: Process) -> Self {
        let mut libraries = Self { loaded: Vec::new() };
        for job in Job::ALL {
            if let Err(failure) = libraries.for_job(process, job) {
                process.report(&Report::of(Level::Warning, failure));
            }
        }
        libraries
    }

    /// The library for a job; `None` when no library is configured for it.
    pub(crate) fn for_job(
        &mut self,
        process: Process,
        job: Job,
    ) -> Result<Option<Rc<Library>>, Failure> {
        let Some(name) = job.library(process) else {
            return Ok(None);
        };
        if let Some(library) = self.loaded.iter().find(|library| library.name() == name) {
            return Ok(Some(Rc::clone(library)));
        }
        let library = Library::load(process, &name).map_err(|failure| {
            let parameter = job.parameter().to_string_lossy();
            let message = format!(
                "could not load library \"{name}\" of \"{parameter}\": {}",
                failure.message
            );
            Failure { message, ..failure }
        })?;
        let library = Rc::new(library);
        self.loaded.push(Rc::clone(&library));
        Ok(Some(library))
    }

    /// Lets every library end.
    pub(crate) fn shutdown(&self, process: Process) {
        for library in &self.loaded {
            if let Err(failure) = library.shutdown(process) {
                process.report(&Report::of(Level::Warning, failure));
            }
        }
    }
}
