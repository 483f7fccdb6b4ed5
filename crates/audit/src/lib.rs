//! What a WAL archive is worth: whether all of it can be replayed, and which moments it can be recovered to.
//!
//! Reads archives through `archive` and WAL through `wal`; never writes to an archive. Showing the findings is left to the
//! command.

pub mod backup_history;
mod chain;
pub mod entries;
pub mod facts;
mod finding;
#[cfg(test)]
mod fixtures;
pub mod gather;
pub mod index;
mod inventory;
pub mod line;
mod lineage;
pub mod map;
mod measure;
mod packed;
mod ranges;
pub mod records;
mod scan;
mod sizes;
pub mod stop;
#[cfg(test)]
mod stop_tests;
pub mod survey;
pub mod targets;
mod text;
pub mod timestamp;
mod verify;

pub use finding::{Finding, Findings, Kind, LISTED_MAX, Severity};
pub use inventory::{Foreign, Inventory, Stamp, Tally, TimelineFiles, stops_recovery};
pub use lineage::{Gap, Lineage, Run, Runs, Stretch};
pub use measure::Measure;
pub use ranges::{Depth, Ranges, Span, TimelineRanges, ranges};
pub use scan::READERS_MAX;
pub use text::size;
pub use verify::{Edge, Report, Request, Scope, Told, nothing_there, verify};
