//! What a WAL archive is worth: whether all of it can be replayed, and which moments it can be recovered to.
//!
//! Reads archives through `archive` and WAL through `wal`; never writes to an archive. Showing the findings is left to the
//! command.

mod backup_history;
mod finding;
mod inventory;
mod lineage;
mod positions;
mod ranges;
mod verify;

pub use backup_history::{BackupHistory, InvalidBackupHistory};
pub use finding::{Finding, Findings, Kind, LISTED_MAX, Severity};
pub use inventory::{Foreign, Form, Inventory, Tally, TimelineFiles};
pub use lineage::{Gap, Lineage, Runs, Stretch};
pub use positions::{Positions, Run};
pub use ranges::{Depth, Span, Ranges, TimelineRanges, ranges};
pub use verify::{Edge, Measure, READERS_MAX, Report, Request, Scope, Told, verify};
