//! A moment as WAL has it.
//!
//! Guarantees the conversion to the clock of the operating system. How a moment is shown is left to others.

use std::time::{Duration, SystemTime};

/// Seconds from 1970 to 2000, both at the beginning of the year in UTC.
const EPOCH_S: i64 = 946_684_800;

/// Microseconds since 2000-01-01 00:00 UTC, as `timestamp with time zone` has them.
///
/// Source: `TimestampTz` in `datatype/timestamp.h`, 15 to 18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// From seconds since 1970, as a checkpoint has them (`pg_time_t`); `None` for what no timestamp can express.
    #[must_use]
    pub fn from_unix_seconds(seconds: i64) -> Option<Timestamp> {
        seconds
            .checked_sub(EPOCH_S)?
            .checked_mul(1_000_000)
            .map(Timestamp)
    }

    /// From the operating system's clock; `None` for what no timestamp can express. Cut to microseconds.
    #[must_use]
    pub fn from_system_time(time: SystemTime) -> Option<Timestamp> {
        let micros = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).ok()?,
            Err(before) => i64::try_from(before.duration().as_micros())
                .ok()?
                .checked_neg()?,
        };
        micros.checked_sub(EPOCH_S * 1_000_000).map(Timestamp)
    }

    /// For the operating system's clock; `None` for what it cannot express.
    #[must_use]
    pub fn to_system_time(self) -> Option<SystemTime> {
        let since = Duration::from_micros(self.0.unsigned_abs());
        let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH_S.unsigned_abs());
        if self.0 < 0 {
            epoch.checked_sub(since)
        } else {
            epoch.checked_add(since)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_of_wal_is_the_beginning_of_2000() {
        assert_eq!(
            Timestamp(0).to_system_time(),
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_800))
        );
        assert_eq!(
            Timestamp::from_unix_seconds(946_684_801),
            Some(Timestamp(1_000_000))
        );
    }

    #[test]
    fn moments_survive_the_way_there_and_back() {
        for micros in [0, 1, -1, 848_000_000_123_456, -946_684_800_000_001] {
            let time = Timestamp(micros).to_system_time().unwrap();
            assert_eq!(Timestamp::from_system_time(time), Some(Timestamp(micros)));
        }
    }

    #[test]
    fn what_cannot_be_expressed_is_refused() {
        assert_eq!(Timestamp::from_unix_seconds(i64::MAX), None);
        assert_eq!(Timestamp::from_unix_seconds(i64::MIN), None);
    }
}
