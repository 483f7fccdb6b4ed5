//! `walden recovery-end [LAST_RESTARTPOINT]`: what is left to do when recovery has finished.
//!
//! For an archive that is a directory: removing what dead writers left behind. It prints nothing unless
//! it fails. LAST_RESTARTPOINT is accepted, since the server offers it, and not used.
//! Left to others: asking a worker instead (`client.rs`).

use crate::exit::Outcome;
use crate::flags::Global;
use crate::say;
use crate::settings;
use archive::Error;

/// Removes what dead writers have left in the archive.
pub(crate) fn run(global: &Global) -> Outcome {
    match finish(global) {
        Ok(leftovers) => {
            if leftovers > 0 || global.verbose {
                say::note(&format!(
                    "removed {} of dead writers",
                    say::counted(leftovers, "staged file")
                ));
            }
            Outcome::Done
        }
        Err(error) => {
            say::failure(&error);
            Outcome::Failed
        }
    }
}

fn finish(global: &Global) -> Result<u64, Error> {
    settings::choose(global, settings::current_data_dir())?
        .open()?
        .remove_leftovers()
}
