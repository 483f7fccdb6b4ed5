//! For tests of how the program ends: a test runs itself again, in a process of its own.
//!
//! Guarantees that the second process ends with the status that the program would have ended with, and that what it says
//! on its standard error is all there. Leaves to the test what is run there in the place of `main`.

#![allow(clippy::unwrap_used, clippy::exit)]

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

/// The command line of the second process, its arguments parted by a character that no argument holds.
const ARGS: &str = "WALDEN_TEST_AGAIN";
const BETWEEN: char = '\u{1f}';

/// What became of the second process.
#[derive(Debug)]
pub(crate) struct Again {
    pub(crate) status: i32,
    pub(crate) stderr: String,
}

impl Again {
    /// In the second process: ends it with the status that `program` answers for its arguments. Else nothing.
    pub(crate) fn answer(program: impl FnOnce(&[OsString]) -> u8) {
        if let Ok(args) = std::env::var(ARGS) {
            let args: Vec<_> = args.split(BETWEEN).map(OsString::from).collect();
            std::process::exit(program(&args).into());
        }
    }

    /// Runs the test of this name again, in this directory; it has to begin with [`Again::answer`].
    pub(crate) fn run(test: &str, args: &[&str], dir: impl AsRef<Path>) -> Again {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", test])
            .env(ARGS, args.join(&BETWEEN.to_string()))
            .current_dir(dir)
            .output()
            .unwrap();
        // A name that is no test's runs nothing, and that succeeds.
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.contains("running 1 test"), "{test}: {stdout}");
        Again {
            status: output.status.code().unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
