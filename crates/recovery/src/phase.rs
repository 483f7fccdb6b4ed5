//! How far a recovery has come, by the signal files in its data directory.

use std::path::Path;

/// What a server does with "could not tell", by the phase of its recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// `standby.signal`: it asks again by itself and streams meanwhile, so nothing is retried for it; a
    /// status above 125 would take it down.
    Standby,
    /// `recovery.signal`: it asks once. A status from 1 to 125 would be the end of WAL, so "could not
    /// tell" is retried and then stops it.
    Targeted,
    /// Neither: the end of a recovery. The server has chosen its new timeline, removed the signal files
    /// and asks for nothing but timeline history files, to copy them. If it stopped now it would next
    /// start on the old timeline, for writing, with no memory of a recovery; so it must not stop, and
    /// must not be held up either.
    Ending,
}

impl Phase {
    /// The phase of the server of this data directory (`readRecoverySignalFile` and the end of
    /// `StartupXLOG`, `xlogrecovery.c` and `xlog.c`, 15 to 18). `standby.signal` wins over
    /// `recovery.signal`.
    #[must_use]
    pub fn of(data_directory: &Path) -> Phase {
        if data_directory.join("standby.signal").exists() {
            Phase::Standby
        } else if data_directory.join("recovery.signal").exists() {
            Phase::Targeted
        } else {
            Phase::Ending
        }
    }

    /// Whether "could not tell" may stop the server, and is worth retrying before it does.
    #[must_use]
    pub fn stops(self) -> bool {
        self == Phase::Targeted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_targeted_recovery_is_stopped_by_could_not_tell() -> std::io::Result<()> {
        let data = tempfile::tempdir()?;
        assert_eq!(Phase::of(data.path()), Phase::Ending);
        std::fs::write(data.path().join("recovery.signal"), "")?;
        assert_eq!(Phase::of(data.path()), Phase::Targeted);
        std::fs::write(data.path().join("standby.signal"), "")?;
        assert_eq!(Phase::of(data.path()), Phase::Standby);
        assert!(Phase::Targeted.stops() && !Phase::Standby.stops() && !Phase::Ending.stops());
        Ok(())
    }
}
