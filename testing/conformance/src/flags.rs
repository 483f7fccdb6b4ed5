//! The command line of `walden-conformance`, and what it asks for.
//!
//! Guarantees: a plan has every default filled in, so that the suite asks for nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use conformance::{Library, Plan, Target};

const EXIT_STATUS: &str = "Exit status: 0 every promise is kept or does not apply, 1 one is broken or \
     unclear, or nothing could be judged, 2 usage error, 3 internal error.";

/// Runs an archive or recovery module or a base backup target on throwaway servers
///
/// Prints promise, verdict and evidence; succeeds when every promise is kept. Changes nothing but
/// temporary directories. Example: walden-conformance --archive-library basic_archive --set
/// "basic_archive.archive_directory={archive}"
#[derive(Debug, Parser)]
#[command(name = "walden-conformance", version, after_help = EXIT_STATUS, max_term_width = 100)]
pub(crate) struct Flags {
    /// The archive module: the library's path, {major} standing for the server's major version, or its
    /// name if it comes with the server
    #[arg(long, value_name = "PATH")]
    archive_library: Option<String>,

    /// The recovery module, hosted by walden.so
    #[arg(long, value_name = "PATH")]
    recovery_library: Option<String>,

    /// The library of a base backup target, which servers preload
    #[arg(long, value_name = "PATH", requires = "target")]
    target_library: Option<String>,

    /// The target, as pg_basebackup is given it; {n} stands for a number that each backup has for itself
    #[arg(long, value_name = "NAME[:DETAIL]", requires = "target_library")]
    target: Option<String>,

    /// How to unpack the target's last base backup into the directory {data}; fails where there is none [default: a
    /// backup is a folder in {archive} with base.tar in it]
    #[arg(long, value_name = "COMMAND", requires = "target_library")]
    unpack_command: Option<String>,

    /// A role that the target refuses, to be made with REPLICATION
    #[arg(long, value_name = "ROLE", requires = "target_library")]
    refused_role: Option<String>,

    /// A directory with a server's programs, repeated for several servers [default: that of pg_config
    /// on PATH]
    #[arg(long = "server", value_name = "BINDIR")]
    servers: Vec<PathBuf>,

    /// A parameter for every server; {archive} in the value stands for the archive's directory
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = name_and_value)]
    settings: Vec<(String, String)>,

    /// How to restore what an archive module stored, when no recovery module is given
    #[arg(long, value_name = "COMMAND", default_value = "cp {archive}/%f %p")]
    restore_command: String,

    /// Look at this promise alone; repeated for several
    #[arg(long, value_name = "PROMISE")]
    only: Vec<String>,

    /// List the promises with their sources, and look at none
    #[arg(long)]
    pub(crate) list: bool,

    /// What the random choices are made from, to repeat a run [default: a new one, which is printed]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// How many promises to look at at a time [default: one more than there are processors]
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<usize>,

    /// Where to make the servers' directories; a short path [default: /dev/shm if there is much of it,
    /// else /tmp]
    #[arg(long, value_name = "DIRECTORY")]
    place: Option<PathBuf>,

    /// The host of recovery modules [default: walden.so beside this program, else the server's]
    #[arg(long, value_name = "PATH")]
    host: Option<PathBuf>,

    /// Print one JSON document
    #[arg(long, conflicts_with = "markdown")]
    pub(crate) json: bool,

    /// Print a table in Markdown
    #[arg(long)]
    pub(crate) markdown: bool,
}

impl Flags {
    /// What the flags ask for, with the defaults.
    pub(crate) fn plan(&self) -> Result<Plan> {
        let mut values = self.settings.iter().map(|(_, value)| value);
        ensure!(
            values.any(|value| value.contains("{archive}")),
            "no --set says where the archive is: give --set 'NAME={{archive}}', NAME being the module's \
             parameter for its directory"
        );
        let servers = match self.servers.as_slice() {
            [] => vec![pg_config("--bindir")?],
            given => given.to_vec(),
        };
        let program = std::env::current_exe().context("could not find itself")?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Plan {
            servers,
            archive: self.archive_library.as_deref().map(Library::new),
            recovery: self.recovery_library.as_deref().map(Library::new),
            target: self.target(),
            host: self.host.clone().map_or_else(|| host(&program), Ok)?,
            client: client(&program),
            settings: self.settings.clone(),
            restore_command: self.restore_command.clone(),
            only: self.only.clone(),
            seed: self.seed.unwrap_or_else(fresh_seed),
            jobs: self.jobs.unwrap_or(cores + 1),
            place: self.place.clone().unwrap_or_else(conformance::quick_place),
        })
    }
}

impl Flags {
    /// The base backup target; the flags require its library and its name of each other.
    fn target(&self) -> Option<Target> {
        let (library, name) = self.target_library.as_deref().zip(self.target.clone())?;
        Some(Target {
            library: Library::new(library),
            name,
            unpack: self.unpack_command.clone(),
            refused_role: self.refused_role.clone(),
        })
    }
}

/// `walden.so` beside this program, as cargo builds it, else where `make install` put it.
fn host(program: &Path) -> Result<PathBuf> {
    let built = program.with_file_name("libwalden.so");
    if built.exists() {
        return Ok(built);
    }
    Ok(pg_config("--pkglibdir")?.join("walden.so"))
}

/// The host's client, `walden`: beside this program, as cargo builds it, else where `make install` put it.
///
/// Only a recovery module needs it, so the step that copies it reports that it cannot be found.
fn client(program: &Path) -> PathBuf {
    let beside = program.with_file_name("walden");
    match pg_config("--bindir") {
        Ok(dir) if !beside.exists() => dir.join("walden"),
        _ => beside,
    }
}

fn pg_config(option: &str) -> Result<PathBuf> {
    let answer = Command::new("pg_config").arg(option).output();
    let answer = answer.ok().filter(|answer| answer.status.success());
    let answer = answer.context("could not ask pg_config: name a server with --server")?;
    Ok(PathBuf::from(
        String::from_utf8_lossy(&answer.stdout).trim(),
    ))
}

/// Differs from run to run; nothing more is asked of it.
fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| u64::from(now.subsec_nanos()))
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("not NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_declared_flags_are_consistent() {
        Flags::command().debug_assert();
    }
}
