//! The recovery worker's client: what the server runs for every file when a recovery library is set.
//!
//! One connect, one frame each way, exit. `main` comes here before it touches a flag parser, because
//! this runs once per segment and each millisecond counts.
//!
//! If there is no answer and the module is Walden's own, the job is done here: after a crash the server starts
//! no worker before replay has begun (`maybe_start_bgworkers`, postmaster.c, 15), but asks for files earlier.
//!
//! Guarantees: "absent" is said only when the worker, or the archive, said so; every wait is bounded; the program ends
//! with the process that started it, so that it does not outlive the server. The server leaves SIGINT
//! and SIGPIPE ignored and gives `/dev/null` as input (`system` under `PreRestoreCommand`, 15), so
//! nothing here relies on them. Left to others: the restoring, which the worker does.

use crate::caller::{self, could_not_restore};
use crate::exit::Outcome;
use crate::flags::{ArchiveCleanup, Client, Global, Job, Restore};
use crate::{cleanup, recovery_end, restore, say, settings};
use recovery::Phase;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;
use wire::{Answer, AskError, Request, SOCKET_PATH};

/// How long Walden's own module is given to be answered for by the worker. Usually the worker is there
/// within milliseconds of the first request; where it is not, after a crash say, this is lost once per file,
/// and there it may be missing for hundreds of files: 15 starts it again only when a standby has become
/// consistent. No file is lost for it: the client does the job itself.
const OWN_WORKER_START_WAIT_MAX: Duration = Duration::from_millis(30);

/// How long to wait for a worker with another module, where recovery does not stop over it: a standby asks again by itself,
/// and a promotion, which asks several times, must not be held up by a worker that cannot start.
///
/// In targeted recovery the wait is [`wire::WORKER_START_WAIT_MAX`], and the server stops after it. 18's postmaster then
/// stays, without a startup process, until an immediate shutdown, as it does with a plain command.
const IMPATIENT_WORKER_START_WAIT_MAX: Duration = Duration::from_secs(5);

/// A command line as the library writes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// The library that the worker has loaded.
    pub(crate) library: String,
    /// The server is in single-user mode, so there is no worker.
    pub(crate) single_user: bool,
    /// What to ask.
    pub(crate) request: Request,
}

impl Call {
    /// Recognises the library's own spelling, word for word; anything else is the flag parser's.
    pub(crate) fn from_args(args: &[OsString]) -> Option<Call> {
        let args: Vec<&str> = args.iter().map(|arg| arg.to_str()).collect::<Option<_>>()?;
        let (single_user, job, library, rest) = match args.as_slice() {
            [job, "--library", library, "--single-user", rest @ ..] => (true, job, library, rest),
            [job, "--library", library, rest @ ..] => (false, job, library, rest),
            _ => return None,
        };
        if rest.iter().any(|arg| arg.starts_with('-')) {
            return None;
        }
        let request = match (*job, rest) {
            ("restore", [file, path, last_restartpoint]) => Request::Restore {
                file: (*file).to_owned(),
                path: (*path).to_owned(),
                last_restartpoint: (*last_restartpoint).to_owned(),
            },
            ("archive-cleanup", [last_restartpoint]) => Request::ArchiveCleanup {
                last_restartpoint: (*last_restartpoint).to_owned(),
            },
            ("recovery-end", [last_restartpoint]) => Request::RecoveryEnd {
                last_restartpoint: (*last_restartpoint).to_owned(),
            },
            _ => return None,
        };
        Some(Call {
            library: (*library).to_owned(),
            single_user,
            request,
        })
    }

    /// The same of a command line that the flag parser has read; `None` if the job is to be done by this process.
    pub(crate) fn of(job: &Job) -> Option<Call> {
        let (client, request) = match job {
            Job::Restore(flags) => (
                &flags.client,
                Request::Restore {
                    file: flags.name.to_string(),
                    path: flags.dest.display().to_string(),
                    last_restartpoint: flags.last_restartpoint.clone().unwrap_or_default(),
                },
            ),
            Job::ArchiveCleanup(flags) => (
                &flags.client,
                Request::ArchiveCleanup {
                    last_restartpoint: flags.oldest_kept.to_string(),
                },
            ),
            Job::RecoveryEnd(flags) => (
                &flags.client,
                Request::RecoveryEnd {
                    last_restartpoint: flags.last_restartpoint.clone().unwrap_or_default(),
                },
            ),
            _ => return None,
        };
        Some(Call {
            library: client.library.clone()?,
            single_user: client.single_user,
            request,
        })
    }
}

/// Asks the worker, and turns its answer into an outcome.
pub(crate) fn run(call: &Call) -> Outcome {
    run_within(call, wire::WORKER_START_WAIT_MAX)
}

/// The same, waiting at most this long for a worker to come up where a recovery would stop without one.
fn run_within(call: &Call, worker_start_wait_max: Duration) -> Outcome {
    if call.single_user {
        let message = format!(
            "recovery module \"{}\" cannot be loaded in single-user mode",
            call.library
        );
        let hint = "No background worker runs in single-user mode. Start the server normally, or set \
                    the command instead of the library.";
        say::error(&message, Some(hint));
        return Outcome::Failed;
    }
    if settings::current_data_dir().is_none() {
        let message = "the recovery worker cannot be found from here: the current directory is not a \
                       data directory";
        say::error(
            message,
            Some("--library is for the server's own use; leave it out to do the job here."),
        );
        return Outcome::Failed;
    }
    caller::die_with_parent();
    let own = wire::is_own_library(&call.library);
    let wait = match call.request {
        // A restartpoint at shutdown runs after the server has stopped its background workers, and
        // nothing is lost by cleaning up later.
        Request::ArchiveCleanup { .. } | Request::Status => Duration::ZERO,
        Request::Restore { .. } | Request::RecoveryEnd { .. } if own => OWN_WORKER_START_WAIT_MAX,
        Request::Restore { .. } | Request::RecoveryEnd { .. } => {
            if Phase::of(Path::new(".")).stops() {
                worker_start_wait_max
            } else {
                worker_start_wait_max.min(IMPATIENT_WORKER_START_WAIT_MAX)
            }
        }
    };
    let answer = wire::ask(
        Path::new(SOCKET_PATH),
        &call.request,
        wait,
        wire::ANSWER_WAIT_MAX,
    );
    match (&call.request, answer) {
        (_, Ok(Answer::Done)) => Outcome::Done,
        (Request::Restore { .. }, Ok(Answer::Absent)) => Outcome::Absent,
        (request, Err(AskError::NoWorker { .. } | AskError::Lost { .. })) if own => {
            in_process(request)
        }
        (Request::ArchiveCleanup { .. }, Err(AskError::NoWorker { .. })) => {
            say::warning(
                "the recovery worker is not running, archive cleanup is left to the next restartpoint",
            );
            Outcome::Done
        }
        (Request::Restore { path, .. }, Ok(Answer::Reported)) => {
            caller::could_not_tell(Path::new(path))
        }
        (_, Ok(Answer::Reported)) => Outcome::Failed,
        (request, Ok(Answer::CouldNotTell(cause))) => could_not(request, &cause, None),
        (request, Ok(Answer::Absent | Answer::Status(_))) => {
            could_not(request, "the recovery worker gave an invalid answer", None)
        }
        (request, Err(error)) => could_not(request, &error.to_string(), hint_for(&error)),
    }
}

/// Does the job of Walden's own module here, with the settings of the data directory that is the current
/// one: what the worker would do, and nothing less.
fn in_process(request: &Request) -> Outcome {
    let global = Global::of_data_directory(".");
    let last = |last: &String| Some(last.clone());
    match request {
        Request::Restore {
            file,
            path,
            last_restartpoint,
        } => match file.parse() {
            Ok(name) => {
                let flags = Restore {
                    name,
                    dest: path.into(),
                    last_restartpoint: last(last_restartpoint),
                    missing_segment: None,
                    timeout: None,
                    client: Client::NONE,
                };
                restore::run(&flags, &global)
            }
            Err(error) => could_not(request, &error.to_string(), None),
        },
        Request::ArchiveCleanup { last_restartpoint } => match last_restartpoint.parse() {
            Ok(oldest_kept) => cleanup::run_for_server(
                &ArchiveCleanup {
                    oldest_kept,
                    force: false,
                    dry_run: false,
                    client: Client::NONE,
                },
                &global,
            ),
            Err(error) => could_not(request, &error.to_string(), None),
        },
        Request::RecoveryEnd { .. } => recovery_end::run(&global),
        Request::Status => could_not(request, "there is no recovery worker", None),
    }
}

/// Says what could not be done and why, once, and ends accordingly.
fn could_not(request: &Request, cause: &str, hint: Option<&str>) -> Outcome {
    match request {
        Request::Restore { file, path, .. } => {
            could_not_restore(file, Path::new(path), cause, hint)
        }
        Request::ArchiveCleanup { .. } => {
            say::error(&format!("could not clean up the archive: {cause}"), hint);
            Outcome::Failed
        }
        Request::RecoveryEnd { .. } => {
            say::error(&format!("could not finish recovery: {cause}"), hint);
            Outcome::Failed
        }
        Request::Status => {
            say::error(
                &format!("could not ask for the recovery worker's status: {cause}"),
                hint,
            );
            Outcome::Failed
        }
    }
}

fn hint_for(error: &AskError) -> Option<&'static str> {
    match error {
        AskError::NoWorker { .. } => Some(
            "The recovery worker is started by shared_preload_libraries; the server's log says why \
             it is not running.",
        ),
        AskError::Protocol(wire::FrameError::Version { .. }) => {
            Some("Install program and library of one version, and restart the server.")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::again::Again;
    use std::fs;

    fn call(line: &str) -> Option<Call> {
        Call::from_args(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_librarys_own_command_lines_are_recognised() {
        let found = call("restore --library walden F pg_wal/RECOVERYXLOG R").unwrap();
        assert_eq!(
            (found.library.as_str(), found.single_user),
            ("walden", false)
        );
        let request = Request::Restore {
            file: "F".into(),
            path: "pg_wal/RECOVERYXLOG".into(),
            last_restartpoint: "R".into(),
        };
        assert_eq!(found.request, request);
        let found = call("recovery-end --library x --single-user R").unwrap();
        assert!(found.single_user);
        assert_eq!(
            found.request,
            Request::RecoveryEnd {
                last_restartpoint: "R".into()
            }
        );
        let found = call("archive-cleanup --library x R").unwrap();
        assert_eq!(
            found.request,
            Request::ArchiveCleanup {
                last_restartpoint: "R".into()
            }
        );
    }

    #[test]
    fn any_other_command_line_is_left_to_the_flag_parser() {
        for line in [
            "restore F P R",
            "restore --library x F P",
            "restore --library x F P R more",
            "restore F P R --library x",
            "restore --library x --help F P",
            "list --library x R",
            "",
        ] {
            assert_eq!(call(line), None, "{line}");
        }
    }

    #[test]
    fn without_a_worker_restore_could_not_tell_recovery_end_fails_and_cleanup_is_left_for_later() {
        const TEST: &str = concat!(
            "client::tests::",
            "without_a_worker_restore_could_not_tell_recovery_end_fails_and_cleanup_is_left_for_later"
        );
        const SEGMENT: &str = "000000010000000000000003";
        Again::answer(|args| {
            let answer = |args: &[OsString]| {
                run_within(&Call::from_args(args).unwrap(), Duration::from_millis(60))
            };
            crate::exit::status_of(args, answer)
        });
        let dir = tempfile::tempdir().unwrap();
        for folder in ["global", "pg_wal", "pg_stat_tmp"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        for file in ["PG_VERSION", "global/pg_control", "recovery.signal"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        let alone = |args: &[&str]| Again::run(TEST, args, dir.path());
        let restore = [
            "restore",
            "--library",
            "other",
            SEGMENT,
            "pg_wal/RECOVERYXLOG",
            SEGMENT,
        ];
        let says = |again: &Again, status: i32, what: &str| {
            assert_eq!(again.status, status, "{again:?}");
            assert!(again.stderr.contains(what), "{again:?}");
        };
        says(&alone(&restore), 200, "pg_stat_tmp/walden_recovery.sock");
        let recovery_end = alone(&["recovery-end", "--library", "other", SEGMENT]);
        says(&recovery_end, 1, "could not finish recovery");
        let cleanup = alone(&["archive-cleanup", "--library", "other", SEGMENT]);
        says(&cleanup, 0, "left to the next restartpoint");
        assert_eq!(cleanup.stderr.lines().count(), 1, "{cleanup:?}");
        fs::write(dir.path().join("standby.signal"), "").unwrap();
        says(&alone(&restore), 1, "could not restore");
    }
}
