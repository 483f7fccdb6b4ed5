//! Times for messages and for `walden.json`: RFC 3339 in UTC, to the second.

use std::time::{Duration, SystemTime};

/// The last second of the year 9999, from 1970 on.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// `2026-02-03T04:05:06Z`. A time before 1970 or after 9999, which only a broken clock gives, is shown as the
/// nearest that the form can express.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let epoch = SystemTime::UNIX_EPOCH;
    let since = time.duration_since(epoch).unwrap_or_default().min(LAST);
    humantime::format_rfc3339_seconds(epoch + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_seconds_have_their_known_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(
                rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
                text
            );
        }
    }

    #[test]
    fn a_time_beyond_the_calendar_is_shown_as_its_end() {
        let beyond = SystemTime::UNIX_EPOCH + Duration::from_secs(400_000_000_000);
        assert_eq!(rfc3339(beyond), "9999-12-31T23:59:59Z");
    }
}
