//! `walden archive-cleanup OLDEST_KEPT`: removes what recovery no longer needs, done by this process.
//!
//! Guarantees: for a server, what goes is what `pg_archivecleanup` would remove, and nothing during targeted recovery, whose
//! other tries need it; for a person, less: see [`archive::Archive::clean_up_by_hand`]. Every removal is told. Left to others:
//! which files may go (`archive`, `wal::KeepFrom`), and asking a worker instead (`client.rs`).

use crate::caller;
use crate::exit::Outcome;
use crate::flags::{ArchiveCleanup, Global};
use crate::say;
use crate::settings::{self, Chosen};
use archive::{ByHand, Cancel, Cleaned, CleanedByHand, Error};
use recovery::Phase;
use std::path::Path;

/// Removes the files before the one that is kept.
pub(crate) fn run(flags: &ArchiveCleanup, global: &Global) -> Outcome {
    ended(choose(global).and_then(|chosen| {
        match chosen
            .data_dir
            .as_deref()
            .filter(|dir| caller::is_server_of(dir))
        {
            Some(dir) => for_server(flags, &chosen, dir),
            None => for_person(flags, &chosen),
        }
    }))
}

/// Does what the server of the current directory asks its worker for, without one.
pub(crate) fn run_for_server(flags: &ArchiveCleanup, global: &Global) -> Outcome {
    let here = Path::new(".");
    ended(choose(global).and_then(|chosen| for_server(flags, &chosen, here)))
}

fn ended(cleaned: Result<(), Error>) -> Outcome {
    match cleaned {
        Ok(()) => Outcome::Done,
        Err(error) => {
            say::failure(&error);
            Outcome::Failed
        }
    }
}

fn choose(global: &Global) -> Result<Chosen, Error> {
    settings::choose(global, settings::current_data_dir())
}

fn for_server(flags: &ArchiveCleanup, chosen: &Chosen, data_dir: &Path) -> Result<(), Error> {
    if Phase::of(data_dir) == Phase::Targeted {
        say::note(
            "archive cleanup removes nothing during targeted recovery, which may be tried again",
        );
        return Ok(());
    }
    let system = chosen.system()?;
    let archive = chosen.open()?;
    let cleaned = archive.clean_up(&flags.oldest_kept, system, &Cancel::new())?;
    tell("removed", &cleaned, &archive.place());
    Ok(())
}

fn for_person(flags: &ArchiveCleanup, chosen: &Chosen) -> Result<(), Error> {
    let system = chosen.system()?;
    let archive = chosen.open()?;
    let how = ByHand {
        force: flags.force,
        dry_run: flags.dry_run,
    };
    let mut keys = String::new();
    let CleanedByHand { cleaned, kept_for } = archive.clean_up_by_hand(
        &flags.oldest_kept,
        system,
        how,
        &mut |key| {
            keys.push_str(key);
            keys.push('\n');
        },
        &Cancel::new(),
    )?;
    say::output(&keys);
    let done = if flags.dry_run {
        "would remove"
    } else {
        "removed"
    };
    tell(done, &cleaned, &archive.place());
    if let Some(backup) = kept_for {
        say::warning(&format!(
            "what the base backup of \"{backup}\" needs was kept: remove that file if the backup is gone, or give --force"
        ));
    }
    if cleaned.files == 0 {
        say::note("there is nothing to remove");
    }
    Ok(())
}

/// How many files went, and which.
fn tell(done: &str, cleaned: &Cleaned, place: &str) {
    let Cleaned { files, bytes, .. } = cleaned;
    if let Some((first, last)) = cleaned.range {
        say::note(&format!(
            "{done} {}, {bytes} bytes, from archive \"{place}\": \"{first}\" to \"{last}\"",
            say::counted(*files, "file")
        ));
    }
}
