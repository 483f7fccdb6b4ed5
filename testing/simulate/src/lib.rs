//! Histories of clusters and their archive, made up from a seed: what servers write, lose, archive and recover, and what the
//! archive's owner and its storage do to it. Each answer that a server gets is judged from what the servers wrote.
//!
//! Guarantees that a seed always gives the same history. `tree` knows what was written by whom; `reader`, `startup`, `life` are
//! the server; `world` is all servers and the archive, `archiving` their archivers; `history` makes up what happens; `oracle`
//! judges; `restores` has what answers the servers: `cp`, Walden, and Walden with faults planted in it. For tests alone: nothing
//! of the product uses it.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a simulation that does what its author did not expect is to stop"
)]

pub mod archiving;
pub mod files;
pub mod history;
pub mod ideal;
pub mod life;
pub mod oracle;
pub mod planted;
pub mod reader;
pub mod restores;
pub mod run;
pub mod startup;
pub mod timelines;
pub mod tree;
pub mod walden;
pub mod world;

/// Segment size in bytes.
pub const SEGMENT: u64 = if cfg!(feature = "small-segments") {
    64 * 1024
} else {
    1024 * 1024
};

/// Size of a WAL page in bytes.
pub const PAGE: u64 = 8192;

/// System identifier of all servers.
pub const SYSTEM: u64 = 7_654_321;

/// The number of the segment that holds a place.
#[must_use]
pub fn segment_of(lsn: u64) -> u64 {
    lsn / SEGMENT
}

/// A place as messages have it.
#[must_use]
pub fn lsn(place: u64) -> String {
    wal::Lsn(place).to_string()
}
