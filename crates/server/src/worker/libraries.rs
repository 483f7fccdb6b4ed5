//! The recovery modules this server is configured with: each library loaded once, whatever jobs it does.
//!
//! Guarantees: what keeps a library from doing its jobs is reported once, when the worker starts, naming the
//! library and all its parameters; until it has been cured each request for such a job fails with the same
//! words. Loading is tried again at each of them, so that a repair needs no restart.

use crate::loader::recovery::Library;
use crate::settings::{self, Job};
use crate::status::recovery as status;
use ::status::Task;
use module::{Failure, Level, Process, Report};

/// The configured ones, and which job is whose.
pub(crate) struct Libraries {
    configured: Vec<Configured>,
    reported: Vec<String>,
}

struct Configured {
    name: String,
    jobs: Vec<Job>,
    loaded: Option<&'static Library>,
}

impl Libraries {
    /// Loads all that are configured, and reports what is wrong with them.
    pub(crate) fn load(process: Process) -> Self {
        let mut configured: Vec<Configured> = Vec::new();
        for job in Job::ALL {
            let Some(name) = job.library(process) else {
                continue;
            };
            match configured.iter_mut().find(|library| library.name == name) {
                Some(library) => library.jobs.push(job),
                None => configured.push(Configured {
                    name,
                    jobs: vec![job],
                    loaded: None,
                }),
            }
        }
        let mut reported = Vec::new();
        for library in &mut configured {
            if let Some(failure) = library.trouble(process) {
                reported.push(failure.message.clone());
                process.report(&Report::of(Level::Warning, failure));
            }
        }
        Self {
            configured,
            reported,
        }
    }

    /// The library for a job; `None` when no library is configured for it.
    pub(crate) fn for_job(
        &mut self,
        process: Process,
        job: Job,
    ) -> Result<Option<&'static Library>, Failure> {
        let library = self
            .configured
            .iter_mut()
            .find(|library| library.jobs.contains(&job));
        let Some(library) = library else {
            return Ok(None);
        };
        let loaded = library.loaded(process)?;
        if !loaded.does(job) {
            return Err(library.lacks_callbacks(loaded));
        }
        Ok(Some(loaded))
    }

    /// Whether this is what was reported when the worker started.
    pub(crate) fn has_reported(&self, failure: &Failure) -> bool {
        self.reported.contains(&failure.message)
    }
}

impl Configured {
    /// What keeps it from doing one of its jobs.
    fn trouble(&mut self, process: Process) -> Option<Failure> {
        match self.loaded(process) {
            Ok(loaded) if self.jobs.iter().all(|job| loaded.does(*job)) => None,
            Ok(loaded) => Some(self.lacks_callbacks(loaded)),
            Err(failure) => Some(failure),
        }
    }

    fn loaded(&mut self, process: Process) -> Result<&'static Library, Failure> {
        if let Some(library) = self.loaded {
            return Ok(library);
        }
        let time_limit = settings::restore_timeout(process);
        let in_call = status::calling(&self.name, Task::Load, None, time_limit);
        let library = Library::load(process, &self.name).map_err(|failure| {
            let message = format!(
                "could not load library \"{}\" of {}: {}",
                self.name,
                parameters(&self.jobs),
                failure.message
            );
            Failure { message, ..failure }.hint(
                "Install a recovery module of that name for this server, or name another one and restart.",
            )
        })?;
        drop(in_call);
        self.loaded = Some(library);
        Ok(library)
    }

    fn lacks_callbacks(&self, library: &Library) -> Failure {
        let mut jobs = self.jobs.clone();
        jobs.retain(|job| !library.does(*job));
        Failure::new(format!(
            "recovery module \"{}\" has no callback for {}",
            self.name,
            parameters(&jobs)
        ))
        .hint("Name a module there that does this job, or set the command instead, and restart.")
    }
}

/// The parameters of these jobs, for messages.
fn parameters(jobs: &[Job]) -> String {
    let quoted = |job: &Job| format!("\"{}\"", job.parameter().to_string_lossy());
    jobs.iter().map(quoted).collect::<Vec<_>>().join(" and ")
}
