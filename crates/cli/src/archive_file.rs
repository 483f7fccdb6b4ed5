//! `walden archive FILE|PATH`: one file into the archive, done by this process.
//!
//! Works as `archive_command = 'walden archive %p'`, and for people who archive by hand what a lost
//! server left in `pg_wal`. Guarantees: success means durable, and nothing is overwritten; both are the
//! archive's. Left to others: retrying, which the server's archiver does.

use crate::exit::Outcome;
use crate::file_mode;
use crate::flags::{Archive, Global};
use crate::progress::{Progress, Where};
use crate::say;
use crate::settings;
use archive::{Cancel, Error, ErrorKind, Location, Put};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use wal::WalFileName;

/// Archives the file, or finds that it is archived already.
pub(crate) fn run(flags: &Archive, global: &Global) -> Outcome {
    // Of a server's command there is nothing to see, and plain lines would fill its log.
    let progress = Progress::start("archiving", Where::OnTerminal);
    let stored = named(&flags.file).and_then(|name| store(&name, flags, global));
    drop(progress);
    match stored {
        Ok(()) => Outcome::Done,
        Err(error) => {
            let message = format!("could not archive \"{}\": {error}", flags.file.display());
            say::error(&message, error.hint());
            Outcome::Failed
        }
    }
}

/// The WAL file's name: the last part of what was given.
fn named(file: &Path) -> Result<WalFileName, Error> {
    let name = file
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    name.parse()
        .map_err(|cause| Error::new(ErrorKind::Unusable, format!("{cause}")))
}

fn store(name: &WalFileName, flags: &Archive, global: &Global) -> Result<(), Error> {
    let bare = flags.file.components().count() == 1;
    let near_dir = if bare {
        settings::current_data_dir()
    } else {
        settings::data_dir_of(&flags.file)
    };
    let chosen = settings::choose(global, near_dir)?;
    // A bare name means a file in the pg_wal of the data directory at hand, as %f would.
    let path = match &chosen.data_dir {
        Some(dir) if bare => dir.join("pg_wal").join(&flags.file),
        _ => flags.file.clone(),
    };
    file_mode::like(Some(&path));
    warn_root(&path, &chosen.settings.location);
    let secret = chosen.secret();
    let has_digest = secret.is_some() || chosen.settings.options.recipients.is_empty();
    let archive = chosen.open()?.for_one_file().with_secret(secret);
    let put = archive.put_new(name, &path, chosen.system()?, &Cancel::new())?;
    for warning in archive.take_warnings() {
        say::warning(&warning);
    }
    if !has_digest && matches!(put, Put::Stored { .. }) {
        say::warning(
            "it was encrypted without a digest, because no data directory (-D) told the secret of its cluster: \
             a server that offers the same file and cannot open the stored one will not know that they are equal",
        );
    }
    if global.verbose {
        let place = archive.place();
        say::note(&match put {
            Put::Stored {
                bytes_in,
                bytes_out,
            } => {
                format!("archived \"{name}\" in \"{place}\", {bytes_in} bytes as {bytes_out}")
            }
            Put::AlreadyStored => format!("\"{name}\" was in \"{place}\" already"),
            Put::AsPartial => {
                format!("archived \"{name}\" in \"{place}\" as \"{name}.partial\"")
            }
        });
    }
    Ok(())
}

/// Says what comes of it when root archives for a server that is not root's: what root makes, the server cannot read.
fn warn_root(source: &Path, location: &Location) {
    let owner = source.metadata().map_or(0, |source| source.uid());
    let is_root = rustix::process::geteuid().is_root();
    let Location::Directory(directory) = location else {
        return;
    };
    if !is_root || owner == 0 {
        return;
    }
    say::warning(&format!(
        "run as root, this makes files in \"{}\" that belong to root: the server, whose user has ID {owner}, cannot read \
         them, and its archiver will stop at the first one that it has to look at (\"walden.json\", or a file that is \
         there already); run it as that user, or give the files to it afterwards (chown {owner})",
        directory.display()
    ));
}
