//! Every way out of the program, in one table.
//!
//! | | `restore` | other commands |
//! |---|---|---|
//! | done | 0 | 0 |
//! | absent from the archive | 1 | |
//! | failed: could not tell | 200 | 1 |
//! | could not tell whether an archive is sound | | 4 |
//! | failed, and the server must go on: a standby, or the end of a recovery | 1 | 1 |
//! | usage error | 201 | 2 |
//! | panic | 202 | 3 |
//! | `check --nagios`: passed, warning, failed, unknown | | 0, 1, 2, 3 |
//!
//! The server takes a `restore_command` that exits with 1 to 125 for the end of WAL, and stops over
//! anything higher (`RestoreArchivedFile`, `xlogarchive.c`, 15 to 18). So nothing but an archive's own
//! "absent" may be 1, except where the server must not stop (`recovery::Phase`): a standby asks again
//! anyway, and a recovery that is ending can only be copying a timeline history file. A command line
//! that names no command counts as a restore: it might have meant to be one.
//!
//! Running out of memory or stack ends the program by a signal, which the server takes for "could not
//! tell" too, all but SIGTERM, after which it stops without a word; that one only the server sends.
//!
//! Guarantees: a panic is caught and reported in one line; no path calls `exit` elsewhere.
//! Left to others: telling the outcomes apart, and the messages.

use crate::say;
use std::ffi::OsString;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It did what it was asked.
    Done,
    /// The archive was asked and does not hold the file.
    Absent,
    /// It did not do it; for a restore: whether the file exists is not known.
    Failed,
    /// Whether something is wrong is not known.
    CouldNotTell,
    /// What a monitoring plugin exits with: 0 to 3.
    Nagios(u8),
    /// The same as failed, for a server that must not stop over it.
    FailedServerGoesOn,
    /// The command line was wrong.
    Usage,
    /// The program panicked, which is a bug.
    Panicked,
}

/// The two columns of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// `restore`, and whatever cannot be recognised.
    Restore,
    /// Every other command.
    Other,
}

/// The exit status of an outcome, by the table in the file's header.
pub(crate) fn status(column: Column, outcome: Outcome) -> u8 {
    match (column, outcome) {
        (_, Outcome::Done) => 0,
        (_, Outcome::Nagios(status)) => status,
        (_, Outcome::FailedServerGoesOn) => 1,
        (Column::Restore, Outcome::Absent) => 1,
        (Column::Restore, Outcome::Failed | Outcome::CouldNotTell) => 200,
        (Column::Restore, Outcome::Usage) => 201,
        (Column::Restore, Outcome::Panicked) => 202,
        (Column::Other, Outcome::Absent | Outcome::Failed) => 1,
        (Column::Other, Outcome::Usage) => 2,
        (Column::Other, Outcome::Panicked) => 3,
        (Column::Other, Outcome::CouldNotTell) => 4,
    }
}

/// Runs the program and turns its outcome, or its panic, into its exit status.
pub(crate) fn leave(args: &[OsString], run: impl FnOnce(&[OsString]) -> Outcome) -> ExitCode {
    ExitCode::from(status_of(args, run))
}

/// What [`leave`] exits with.
pub(crate) fn status_of(args: &[OsString], run: impl FnOnce(&[OsString]) -> Outcome) -> u8 {
    panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let what = text
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        match info.location() {
            Some(at) => say::bug(&format!("{what} ({}:{})", at.file(), at.line())),
            None => say::bug(what),
        }
    }));
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| run(args))).unwrap_or(Outcome::Panicked);
    status(column_of(args), outcome)
}

/// The column that a command line belongs to, read without the flag parser, which may have refused it.
///
/// Only a first word that is certainly another command leads away from the restore column: it may be
/// preceded by flags that are known, and by nothing else.
fn column_of(args: &[OsString]) -> Column {
    const OTHERS: &[&str] = &[
        "archive",
        "archive-cleanup",
        "recovery-end",
        "list",
        "backups",
        "verify",
        "check",
        "targets",
        "map",
        "status",
        "metrics",
    ];
    const WITH_VALUE: [&str; 7] = [
        "-A",
        "--archive",
        "-D",
        "--pgdata",
        "--compression",
        "--recipients",
        "--identity-file",
    ];
    const WITHOUT_VALUE: [&str; 2] = ["-v", "--verbose"];
    let mut args = args.iter().map(|arg| arg.to_str().unwrap_or_default());
    while let Some(arg) = args.next() {
        if OTHERS.contains(&arg) {
            return Column::Other;
        } else if WITH_VALUE.contains(&arg) {
            args.next();
        } else if !WITHOUT_VALUE.contains(&arg) && !has_attached_value(arg) {
            break;
        }
    }
    Column::Restore
}

/// Whether this is `-Avalue`, `--archive=value` or the like.
fn has_attached_value(arg: &str) -> bool {
    let long = [
        "--archive=",
        "--pgdata=",
        "--compression=",
        "--recipients=",
        "--identity-file=",
    ];
    let short = ["-A", "-D"];
    long.iter().any(|flag| arg.starts_with(flag))
        || short
            .iter()
            .any(|flag| arg.len() > 2 && arg.starts_with(flag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::again::Again;

    fn column(line: &str) -> Column {
        column_of(
            &line
                .split_whitespace()
                .map(OsString::from)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn only_absence_and_a_standbys_failure_let_a_restore_exit_between_1_and_125() {
        use Outcome::{Absent, CouldNotTell, Done, Failed, FailedServerGoesOn, Panicked, Usage};
        for outcome in [
            Done,
            Absent,
            Failed,
            CouldNotTell,
            FailedServerGoesOn,
            Usage,
            Panicked,
        ] {
            let end_of_wal = (1..=125).contains(&status(Column::Restore, outcome));
            assert_eq!(
                end_of_wal,
                matches!(outcome, Absent | FailedServerGoesOn),
                "{outcome:?}"
            );
            assert_eq!(
                status(Column::Restore, outcome) == 0,
                outcome == Done,
                "{outcome:?}"
            );
            assert!(status(Column::Other, outcome) <= 4, "{outcome:?}");
        }
    }

    #[test]
    fn a_command_line_that_is_not_certainly_another_command_counts_as_a_restore() {
        for line in [
            "",
            "restore",
            "retsore a b",
            "-Q",
            "-Q archive",
            "restore list x",
            "-A",
        ] {
            assert_eq!(column(line), Column::Restore, "{line}");
        }
        for line in [
            "archive x",
            "-A restore list",
            "-A/x list",
            "--archive=/x -v check --bad",
            "recovery-end",
            "archive-cleanup",
        ] {
            assert_eq!(column(line), Column::Other, "{line}");
        }
    }

    #[test]
    fn a_panic_is_reported_in_one_line_and_has_a_status_of_its_own() {
        const TEST: &str =
            "exit::tests::a_panic_is_reported_in_one_line_and_has_a_status_of_its_own";
        Again::answer(|args| status_of(args, |_| panic!("asked to panic")));
        for (line, status) in [
            ("restore SEGMENT x", 202),
            ("-A ARCHIVE restore SEGMENT x", 202),
            ("archive SEGMENT", 3),
            ("archive-cleanup SEGMENT", 3),
            ("recovery-end", 3),
            ("list", 3),
            ("-A ARCHIVE check", 3),
        ] {
            let again = Again::run(TEST, &line.split(' ').collect::<Vec<_>>(), ".");
            assert_eq!(again.status, status, "{line}: {again:?}");
            assert!(again.stderr.contains("asked to panic"), "{line}: {again:?}");
            assert_eq!(again.stderr.lines().count(), 1, "{line}: {again:?}");
        }
    }
}
