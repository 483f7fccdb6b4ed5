//! What happens when the library is loaded: mutual exclusion, and the wiring of the three commands.
//!
//! With a library named for a job, the job's shell command is set here to Walden's own client, with a source
//! that no configuration file beats, so `SHOW restore_command` tells what runs. The client then asks the
//! recovery worker, which is registered here too.

use crate::command::{self, Through};
use crate::settings::{self, Job};
use crate::status;
use module::{Failure, Level, Loading, Process, Registration, Report, library_path};
use pgconf::ServerConf;
use std::ffi::CString;
use std::path::Path;
use std::time::Duration;

/// The pause before a failed worker is started again: long enough not to fill the log, short enough not to
/// hold recovery up.
const WORKER_RESTART_AFTER: Duration = Duration::from_secs(1);

/// Runs once in every process that loads the library, after the parameters have been defined.
pub(crate) fn on_load(loading: Loading) -> Result<(), Failure> {
    if !loading.preloading() {
        warn_of_libraries_without_preloading(*loading);
        return Ok(());
    }
    loading.reserve_prefix(c"walden")?;
    status::create(loading)?;
    warn_of_list_without_host(*loading)?;
    let jobs: Vec<(Job, String)> = Job::ALL
        .into_iter()
        .filter_map(|job| job.library(*loading).map(|library| (job, library)))
        .collect();
    if jobs.is_empty() {
        return Ok(());
    }
    for (job, _) in &jobs {
        let command = loading.parameter(job.command())?.unwrap_or_default();
        if excludes(*job, &command) {
            return Err(both_set(*job).detail(format!(
                "Only one of {:?}, {:?} may be set.",
                text(job.command()),
                text(job.parameter())
            )));
        }
    }
    wire(loading, &jobs)?;
    if loading.single_user() {
        return Ok(());
    }
    let library = library_for_workers();
    loading.register_worker(Registration {
        name: c"walden recovery worker",
        library: &library,
        function: c"walden_recovery_worker",
        restart_after: WORKER_RESTART_AFTER,
    })
}

/// What the server shall load to start the worker: this very file, which it may have been given by a path that
/// its search does not cover; or the name, where the path does not fit (bgworker.h, 15 and 16).
fn library_for_workers() -> CString {
    let path = library_path()
        .map(|path| path.into_os_string().into_encoded_bytes())
        .filter(|path| path.len() < abi::worker::BGW_MAXLEN)
        .and_then(|path| CString::new(path).ok());
    path.unwrap_or_else(|| c"walden".to_owned())
}

fn wire(loading: Loading, jobs: &[(Job, String)]) -> Result<(), Failure> {
    let program = command::program(library_path().as_deref(), &loading.server_program())?;
    let archive = settings::archive_text(*loading);
    for (job, library) in jobs {
        let through = if !loading.single_user() {
            Through::Worker { library }
        } else if wire::is_own_library(library) {
            let missing_segment = settings::missing_segment(*loading);
            Through::Itself {
                archive: &archive,
                missing_segment,
            }
        } else {
            Through::Nothing { library }
        };
        let command = command::command(&program, *job, through);
        loading.override_parameter(job.command(), &command)?;
    }
    Ok(())
}

/// After a reload: a command that has appeared beside a library does not count, and that is worth a WARNING.
///
/// The server's own parameter cannot be asked, because ours overrides it; so the configuration files are read
/// the way the server reads them.
pub(crate) fn warn_of_commands(process: Process) {
    match commands_in_files(process) {
        Ok(jobs) => {
            for job in jobs {
                process.report(&Report::of(
                    Level::Warning,
                    both_set(job).detail(format!(
                        "{:?} is ignored; the library stays in use.",
                        text(job.command())
                    )),
                ));
            }
        }
        Err(failure) => process.report(&Report::of(Level::Warning, failure)),
    }
}

fn commands_in_files(process: Process) -> Result<Vec<Job>, Failure> {
    let libraries: Vec<Job> = Job::ALL
        .into_iter()
        .filter(|job| job.library(process).is_some())
        .collect();
    let parameter = |name| process.parameter(name).map(Option::unwrap_or_default);
    let config_file = parameter(c"config_file")?;
    let data_directory = parameter(c"data_directory")?;
    let conf = ServerConf::read_file(Path::new(&config_file), Path::new(&data_directory))
        .map_err(crate::failure::of_conf)?;
    let set = |job: &Job| excludes(*job, conf.get(text(job.command())).unwrap_or_default());
    Ok(libraries.into_iter().filter(set).collect())
}

/// Whether a command and a library cannot stand together: Walden's own client is no conflict, since pg_rewind
/// and Patroni read the command from the file.
fn excludes(job: Job, command: &str) -> bool {
    !command.is_empty() && !command::is_own_client(command, job)
}

fn both_set(job: Job) -> Failure {
    Failure::new(format!(
        "both {:?} and {:?} set",
        text(job.command()),
        text(job.parameter())
    ))
}

/// The archiver loads one library, and only if that is Walden the others are loaded too.
fn warn_of_list_without_host(process: Process) -> Result<(), Failure> {
    let host = process.parameter(c"archive_library")?.unwrap_or_default();
    if settings::archive_libraries(process).is_empty() || wire::is_own_library(&host) {
        return Ok(());
    }
    let name = settings::archive_libraries_name();
    let text = Failure::new(format!("{name:?} has no effect"))
        .hint("Set \"archive_library\" to \"walden\" and reload.");
    process.report(&Report::of(Level::Warning, text));
    Ok(())
}

fn warn_of_libraries_without_preloading(process: Process) {
    for job in Job::ALL {
        let set = process.parameter(job.parameter()).ok().flatten();
        if set.is_some_and(|library| !library.is_empty()) {
            let text = Failure::new(format!("{:?} has no effect", text(job.parameter())))
                .hint("Add \"walden\" to \"shared_preload_libraries\" and restart the server.");
            process.report(&Report::of(Level::Warning, text));
        }
    }
}

fn text(name: &'static std::ffi::CStr) -> &'static str {
    name.to_str().unwrap_or_default()
}
