//! The conformance suite: runs any archive or recovery module or base backup target on real servers, and says which promises
//! it keeps.
//!
//! Guarantees: a module is loaded by a stock server and judged by what can be seen from outside (the
//! archive's files, the server's log, statistics and contents), never by its source; each promise has
//! servers and an archive of its own; the same seed makes the same random choices.
//! Leaves to its caller where servers and libraries are, and how the report is shown: `walden-conformance`, the program of
//! this package, asks its user.
//!
//! | part | file |
//! |---|---|
//! | what is put to the test | [`subject`] |
//! | a promise and its verdict | [`promise`] |
//! | the promises of archive modules | [`archive`] |
//! | the promises of recovery modules | [`recovery`] |
//! | the promises of base backup targets | [`target`] |
//! | one server's slow disk | [`stall`] |
//! | whether it can be judged at all | [`first_look`] |
//! | running all of it | [`suite`] |
//! | the table | [`report`] |

mod archive;
mod first_look;
mod promise;
mod recovery;
mod report;
mod stall;
mod subject;
mod suite;
mod target;

pub use promise::{Kind, Promise, Verdict};
pub use report::{Line, Report};
pub use subject::{Library, Plan, Target, quick_place};
pub use suite::{promises, run};
