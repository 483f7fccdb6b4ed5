//! How long tests take, for whoever wants to know.
//!
//! Guarantees that a test is what it is without: nothing is written unless the environment asks for it, and a time that
//! cannot be written is left out. Leaves to the reader what to make of the times.

use std::fs::File;
use std::io::Write;
use std::time::Instant;

/// The file to which times are appended: seconds, the test program and the test in a line.
const TIMES: &str = "WALDEN_TEST_TIMES";

/// Does this, and appends how long it took to the file that `WALDEN_TEST_TIMES` names.
///
/// The test is the one that the thread is named after, as the test runner does; other threads' work counts as none.
pub fn timed<T>(body: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let outcome = body();
    if let Some(path) = std::env::var_os(TIMES)
        && let Some(test) = std::thread::current().name()
    {
        let program = std::env::current_exe().unwrap_or_default();
        let program = program.file_stem().unwrap_or_default().to_string_lossy();
        // cargo puts a hash behind the name.
        let (program, _) = program.rsplit_once('-').unwrap_or((&program, ""));
        let took = begun.elapsed().as_secs_f64();
        // In one write, so that lines of several programs do not mix.
        let line = format!("{took:.1}\t{program} {test}\n");
        let file = File::options().create(true).append(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
    outcome
}
