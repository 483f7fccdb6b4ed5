//! What a server shows of its archiving and recovery.
//!
//! The archiver and the recovery worker each write a section of a region that all processes of the server share
//! ([`region`]); a session that shows `walden.status` reads them and makes one JSON document of them ([`Status`]). Programs
//! outside read the same types from the document.
//!
//! Guarantees: times are Unix times in seconds, durations are seconds, sizes are bytes; what is not known is absent. Leaves to
//! the server's library: making the region, and what happens when.

mod model;
pub mod region;

pub use model::{
    Archiver, Bytes, Call, Cause, Counts, FRESH_FOR_S, Failure, Histogram, InFlight, Named,
    Pending, Recent, Recovery, Requests, Restored, Stage, Status, Task, Unarchived, now, unix,
};
