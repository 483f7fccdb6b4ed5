//! The book, checked: what it links to is there, and every code block compiles, runs, or is what it says.
//!
//! The first word behind a fence says what a block is, and with it who checks it:
//!
//! | block | how it is checked |
//! |---|---|
//! | `rust` | compiled against the kit as a library; lines behind `# ` are compiled and not shown |
//! | `c` | compiled against the server's headers with warnings as errors |
//! | `rust,file=PATH`, `c,file=PATH`, `toml,file=PATH` | written to PATH in the chapter's session |
//! | `rust,from=PATH`, `c,from=PATH`, `yaml,from=PATH` | these very lines stand in a file that is built or run elsewhere |
//! | `console` | run in the chapter's session; output that is shown has to come |
//! | `console,wait` | the same; a command is repeated until the output that is shown comes |
//! | `ini` | the settings of a real server, which has to know each of them |
//! | `ini,append=PATH` | appended to PATH in the chapter's session |
//! | `sql` | run on a real server with Walden loaded |
//! | `text` | not at all: pictures and messages |
//!
//! Any other word fails, so there is no block that nobody looks at.

mod code;
mod conf;
mod markdown;
mod reference;
mod session;
mod structure;

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;

/// Does this for each, some at a time: what is done waits for servers most of the time.
///
/// Answers with how many there were, or with the first failure.
fn for_each_at_once<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<usize> {
    const AT_ONCE: usize = 4;
    let next = AtomicUsize::new(0);
    let in_turn = || -> Result<()> {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(item)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(in_turn)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| match thread.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            })
    })?;
    Ok(items.len())
}
