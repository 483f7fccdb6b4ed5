//! `walden archive-cleanup OLDEST_KEPT`: removes what recovery needs no more, done by this process.
//!
//! Guarantees: what goes is what `pg_archivecleanup` would remove, which is decided in `wal`
//! (`KeepFrom`). Left to others: asking a worker instead (`client.rs`).

use crate::client::{self, Call};
use crate::exit::Outcome;
use crate::flags::{ArchiveCleanup, Global};
use crate::say;
use crate::settings;
use archive::{Cancel, Cleaned, Error};
use wire::Request;

/// Runs the command.
pub(crate) fn run(flags: &ArchiveCleanup, global: &Global) -> Outcome {
    if let Some(library) = &flags.client.library {
        return client::run(&Call {
            library: library.clone(),
            single_user: flags.client.single_user,
            request: Request::ArchiveCleanup {
                last_restartpoint: flags.oldest_kept.to_string(),
            },
        });
    }
    match clean_up(flags, global) {
        Ok(Cleaned { files, bytes }) => {
            if global.verbose {
                say::note(&format!("removed {files} files, {bytes} bytes"));
            }
            Outcome::Done
        }
        Err(error) => {
            say::failure(&error);
            Outcome::Failed
        }
    }
}

fn clean_up(flags: &ArchiveCleanup, global: &Global) -> Result<Cleaned, Error> {
    let chosen = settings::choose(global, settings::current_data_dir())?;
    let system = chosen.system()?;
    chosen
        .open()?
        .clean_up(&flags.oldest_kept, system, &Cancel::new())
}
