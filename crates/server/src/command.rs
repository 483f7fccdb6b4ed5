//! Walden's own client as a shell command of the server: making one, and knowing one when it is met.

use crate::settings::Job;
use module::Failure;
use std::path::{Path, PathBuf};

/// The program's name.
const PROGRAM: &str = "walden";

/// What makes the shell become the program instead of starting it.
const EXEC: &str = "exec";

/// The client program: the one installed with this library (`../bin` of the library's directory), else in the library's own
/// directory, as on `dynamic_library_path`, else beside the server program, else on PATH.
pub(crate) fn program(library: Option<&Path>, server: &Path) -> Result<PathBuf, Failure> {
    let beside_library = library
        .and_then(Path::parent)
        .and_then(Path::parent)
        .map(|prefix| prefix.join("bin").join(PROGRAM));
    let with_library = library
        .and_then(Path::parent)
        .map(|folder| folder.join(PROGRAM));
    let beside_server = server.parent().map(|bin| bin.join(PROGRAM));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(PROGRAM));
    let mut candidates = beside_library
        .into_iter()
        .chain(with_library)
        .chain(beside_server)
        .chain(on_path);
    candidates
        .find(|candidate| candidate.is_absolute() && candidate.is_file())
        .ok_or_else(|| {
            Failure::new("could not find the program \"walden\"")
                .detail(
                    "It is looked for beside the library, beside the server program, and on PATH.",
                )
                .hint("Install it with the library, for example with \"make install\".")
        })
}

/// How the client shall get its job done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Through<'a> {
    /// By the recovery worker, which has loaded this library.
    Worker {
        /// The library's name.
        library: &'a str,
    },
    /// By itself, from this archive: single-user mode has no worker.
    Itself {
        /// `walden.archive`.
        archive: &'a str,
        /// `walden.missing_segment`.
        missing_segment: archive::MissingSegment,
    },
    /// Not at all: single-user mode and a library that is not Walden's own.
    Nothing {
        /// The library's name.
        library: &'a str,
    },
}

/// The command for a job, ready for the server's configuration.
///
/// The shell becomes the client: a fork less for each file, and the client's parent is the server's own process.
pub(crate) fn command(program: &Path, job: Job, through: Through<'_>) -> String {
    let program = quoted(&program.to_string_lossy());
    let mut words = vec![EXEC.to_owned(), program, job.verb().to_owned()];
    match through {
        Through::Worker { library } => words.extend(["--library".to_owned(), quoted(library)]),
        Through::Nothing { library } => {
            words.extend([
                "--library".to_owned(),
                quoted(library),
                "--single-user".to_owned(),
            ]);
        }
        Through::Itself {
            archive,
            missing_segment,
        } => {
            words.extend(["--archive".to_owned(), quoted(archive)]);
            if job == Job::Restore {
                words.extend(["--missing-segment".to_owned(), missing_segment.to_string()]);
            }
        }
    }
    let placeholders: &[&str] = match job {
        Job::Restore => &["\"%f\"", "\"%p\"", "\"%r\""],
        Job::ArchiveCleanup | Job::RecoveryEnd => &["\"%r\""],
    };
    words.extend(placeholders.iter().map(|word| (*word).to_owned()));
    words.join(" ")
}

/// A word for `/bin/sh`, in a parameter where the server replaces what follows a percent sign.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''").replace('%', "%%"))
}

/// Whether a command is Walden's own client doing this job and nothing else.
///
/// Leading assignments are fine (`WALDEN_ARCHIVE=/a walden restore %f %p`), and so is `exec`; anything that runs
/// a second program is not, because then it is not the client alone that answers.
pub(crate) fn is_own_client(command: &str, job: Job) -> bool {
    let Some(words) = words(command) else {
        return false;
    };
    let mut words = words
        .iter()
        .skip_while(|word| is_assignment(word))
        .peekable();
    words.next_if(|word| *word == EXEC);
    let Some(program) = words.next() else {
        return false;
    };
    let name = Path::new(program).file_name();
    name.is_some_and(|name| name == PROGRAM) && words.any(|word| word == job.verb())
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// The words of a simple shell command; `None` for anything that is not one.
fn words(command: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = command.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (Some('\''), _) => word.get_or_insert_default().push(letter),
            (_, '\\') => word.get_or_insert_default().push(letters.next()?),
            (_, '`' | '$') => return None,
            (Some(_), _) => word.get_or_insert_default().push(letter),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, ' ' | '\t') => words.extend(word.take()),
            (None, ';' | '|' | '&' | '<' | '>' | '(' | ')' | '\n' | '#') => return None,
            (None, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_is_wired_is_recognised_as_the_own_client() {
        for job in Job::ALL {
            for through in [
                Through::Worker { library: "walden" },
                Through::Nothing { library: "it's" },
                Through::Itself {
                    archive: "/a b/100%",
                    missing_segment: archive::MissingSegment::End,
                },
            ] {
                let command = command(Path::new("/usr/lib/x y/bin/walden"), job, through);
                assert!(is_own_client(&command, job), "{command}");
            }
        }
    }

    #[test]
    fn quotes_and_percent_signs_in_names_reach_the_client_unchanged() {
        let through = Through::Itself {
            archive: "/it's/100%",
            missing_segment: archive::MissingSegment::Error,
        };
        assert_eq!(
            command(Path::new("/bin/walden"), Job::Restore, through),
            "exec '/bin/walden' restore --archive '/it'\\''s/100%%' --missing-segment error \"%f\" \"%p\" \"%r\""
        );
    }

    #[test]
    fn only_the_client_alone_doing_the_same_job_is_the_own_client() {
        for (command, own) in [
            ("walden restore %f %p", true),
            ("/usr/bin/walden restore \"%f\" \"%p\" \"%r\"", true),
            ("WALDEN_ARCHIVE=/a walden restore %f %p", true),
            ("walden -A /a restore %f %p", true),
            ("exec walden restore %f %p", true),
            ("WALDEN_ARCHIVE=/a exec walden restore %f %p", true),
            ("exec WALDEN_ARCHIVE=/a walden restore %f %p", false),
            ("exec cp /a/%f %p", false),
            ("exec", false),
            ("cp /a/%f %p", false),
            ("walden restore %f %p || cp /a/%f %p", false),
            ("walden restore %f %p; true", false),
            ("walden archive-cleanup %r", false),
            ("walden-g restore %f %p", false),
            ("echo walden restore", false),
            ("walden restore $(x)", false),
            ("walden restore 'open", false),
            ("", false),
        ] {
            assert_eq!(is_own_client(command, Job::Restore), own, "{command}");
        }
    }

    #[test]
    fn the_program_beside_the_library_comes_first() -> std::io::Result<()> {
        let prefix = tempfile::tempdir()?;
        for folder in ["bin", "lib", "server"] {
            std::fs::create_dir(prefix.path().join(folder))?;
        }
        let beside_library = prefix.path().join("bin/walden");
        let beside_server = prefix.path().join("server/walden");
        std::fs::write(&beside_library, "")?;
        std::fs::write(&beside_server, "")?;
        let library = prefix.path().join("lib/walden.so");
        let server = prefix.path().join("server/postgres");
        assert_eq!(program(Some(&library), &server), Ok(beside_library.clone()));
        std::fs::remove_file(&beside_library)?;
        let with_library = prefix.path().join("lib/walden");
        std::fs::write(&with_library, "")?;
        assert_eq!(program(Some(&library), &server), Ok(with_library.clone()));
        std::fs::remove_file(&with_library)?;
        assert_eq!(program(Some(&library), &server), Ok(beside_server));
        Ok(())
    }
}
