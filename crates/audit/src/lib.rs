//! What a WAL archive is worth: whether all of it can be replayed, and which moments it can be recovered to.
//!
//! Reads archives through `archive` and WAL through `wal`; never writes to an archive. Showing the findings is left to the
//! command.

mod finding;
mod inventory;
mod positions;

pub use finding::{Finding, Findings, Kind, LISTED_MAX, Severity};
pub use inventory::{Foreign, Form, Inventory, Tally, TimelineFiles};
pub use positions::{Positions, Run};
