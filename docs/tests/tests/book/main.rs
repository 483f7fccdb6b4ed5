//! The book, checked: what it links to is there, and every code block compiles, runs, or is what it says.
//!
//! The first word behind a fence says what a block is, and with it who checks it:
//!
//! | block | how it is checked |
//! |---|---|
//! | `rust` | compiled against the kit as a library; lines behind `# ` are compiled and not shown |
//! | `c` | compiled against the server's headers with warnings as errors |
//! | `rust,file=PATH`, `c,file=PATH`, `toml,file=PATH` | written to PATH in the chapter's session |
//! | `rust,from=PATH`, `c,from=PATH` | these very lines stand in a file that is built elsewhere |
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
