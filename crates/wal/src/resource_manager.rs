//! Which part of the server wrote a record, and replays it.
//!
//! Guarantees the names that `pg_waldump` prints. What the records of each say is left to `meaning`, for the few that
//! recovery depends on.

use std::fmt;

/// A resource manager, by the number in a record's header.
///
/// Source: `rmgrlist.h`, 15 to 18, whose numbers are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceManager(pub u8);

/// In the order of their numbers.
const NAMES: [&str; 22] = [
    "XLOG",
    "Transaction",
    "Storage",
    "CLOG",
    "Database",
    "Tablespace",
    "MultiXact",
    "RelMap",
    "Standby",
    "Heap2",
    "Heap",
    "Btree",
    "Hash",
    "Gin",
    "Gist",
    "Sequence",
    "SPGist",
    "BRIN",
    "CommitTs",
    "ReplicationOrigin",
    "Generic",
    "LogicalMessage",
];

impl ResourceManager {
    /// Checkpoints, switches, restore points, full-page images.
    pub const XLOG: ResourceManager = ResourceManager(0);
    /// Commits and aborts.
    pub const TRANSACTION: ResourceManager = ResourceManager(1);

    /// The name of one that comes with the server; `None` for an extension's, and for numbers without one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        NAMES.get(usize::from(self.0)).copied()
    }
}

/// As `pg_waldump` shows it: `Heap2`; an extension's as `custom129`, and so any other without a name.
impl fmt::Display for ResourceManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => f.pad(&format!("custom{:03}", self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_pg_waldump() {
        assert_eq!(ResourceManager::XLOG.to_string(), "XLOG");
        assert_eq!(ResourceManager(21).to_string(), "LogicalMessage");
        assert_eq!(ResourceManager(128).to_string(), "custom128");
    }
}
