//! What a WAL archive is worth: whether all of it can be replayed, and which moments it can be recovered to.
//!
//! Reads archives through `archive` and WAL through `wal`; never writes to an archive. Showing the findings is left to the
//! command.

mod backup_label;
mod finding;
mod inventory;
mod lineage;
mod positions;
mod survey;
mod verify;

pub use backup_label::{BackupLabel, InvalidBackupLabel};
pub use finding::{Finding, Findings, Kind, LISTED_MAX, Severity};
pub use inventory::{Foreign, Form, Inventory, Tally, TimelineFiles};
pub use lineage::{Gap, Lineage, Runs, Stretch};
pub use positions::{Positions, Run};
pub use survey::{Depth, Span, Survey, TimelineSurvey, survey};
pub use verify::{Edge, Measure, READERS_MAX, Report, Request, Scope, Told, verify};
