//! How long a judge believes what it has seen, and what it waits for.
//!
//! Guarantees the product's own values by default; others are for simulations, where time does not pass.

use std::time::Duration;

/// How long what a judge has seen holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long evidence must have been there before it counts: an archive to which several files go at once has a later one
    /// before an earlier one for a moment, and that is no trouble.
    pub settled_after: Duration,
    /// How long a thorough look holds for a standby, which asks every few seconds and does not end over the answer.
    pub look_holds: Duration,
    /// How long an archive that has proven to be there counts as there for a standby, which asks for a segment and for the next
    /// timeline in one go.
    pub presence_holds: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            settled_after: Duration::from_millis(500),
            look_holds: Duration::from_secs(60),
            presence_holds: Duration::from_secs(1),
        }
    }
}
