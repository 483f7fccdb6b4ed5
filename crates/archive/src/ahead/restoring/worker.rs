//! What a worker of restore-ahead does.
//!
//! Guarantees: no lock is held while the archive is asked; a panic in a fetch fails that fetch alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::ahead::memory;
use crate::ahead::pool::Pool;
use crate::archive::{Archive, Place};
use crate::error::Error;
use crate::format::workspace::Workspace;
use crate::get::{self, Request, Ruled};

use super::state::{Cost, Job, State, Why};

/// Opens an archive.
type Open = Box<dyn Fn(&Place) -> Result<Archive, Error> + Send + Sync>;

/// What restoring takes beside the state.
pub(crate) struct Tools {
    pub(super) notifier: Box<dyn Fn() + Send + Sync>,
    pub(super) open: Open,
}

/// Fetches a file. A request that waits for this job is answered, whatever happens to it.
pub(super) fn run(pool: &Pool<State>, job: &Job, workspace: &mut Workspace) {
    let begun = Instant::now();
    let found = catch_unwind(AssertUnwindSafe(|| fetch(&pool.tools, job, workspace)));
    let found = found.unwrap_or_else(|_| {
        *workspace = Workspace::default();
        Err(Error::unusable("the work ended without an answer"))
    });
    let cost = Cost {
        took: begun.elapsed(),
        bytes: workspace.bytes(),
    };
    if cost.bytes > memory::restoring_bytes() {
        // The rare large window is not kept for files that do not need it.
        *workspace = Workspace::default();
    }
    let awaited = pool.state().ended(job, found, &cost);
    if awaited {
        (pool.tools.notifier)();
    }
}

/// What became of the job. Of one that is ahead there is no answer, so nothing need be proven.
fn fetch(tools: &Tools, job: &Job, workspace: &mut Workspace) -> Result<Ruled, Error> {
    let around = &job.fetch.around;
    let archive = around.source.open(&tools.open)?;
    let request = Request {
        name: &job.fetch.name,
        parent: &around.parent,
        system: Some(around.system),
        ahead: !job.fetch.is_demanded(),
    };
    match &job.fetch.why {
        Why::Demanded(rule) => {
            get::ruled(&archive, &request, rule.as_ref(), workspace, &job.cancel)
        }
        Why::Ahead | Why::Awaited => {
            let fetched = get::fetch(&archive, &request, workspace, &job.cancel)?;
            Ok(fetched.map_or(Ruled::Absent(Vec::new()), |it| Ruled::File(Box::new(it))))
        }
    }
}
